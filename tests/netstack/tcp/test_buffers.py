"""The two buffers of a connection against simple models."""

from hypothesis import given, settings
from hypothesis import strategies as st

from wgpy.netstack.tcp.receiver import Receiver
from wgpy.netstack.tcp.sendbuffer import SendBuffer

STREAM = bytes(number * 31 % 251 for number in range(1 << 17))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 9_000)), max_size=60), st.integers(1, 1 << 33))
def test_pieces_in_any_order_make_the_stream(segments, start):
    """Overlaps, holes, repetitions: what is in order is an exact prefix, blocks say exactly what else is held."""
    receiver = Receiver()
    receiver.start(start - 1)
    held = set()
    got = b""
    for at, size in segments:
        end = min(at + size, receiver.edge - start)
        receiver.arrive(start + at, STREAM[at : at + size], acks_each=False, segments=1)
        held.update(range(at, end))
        got += receiver.read(7_000)
        prefix = receiver.nxt - start
        assert prefix == next((octet for octet in range(len(held) + 1) if octet not in held), len(held))
        assert {octet for piece in receiver.pieces for octet in range(piece.start, piece.end)} == {
            start + octet for octet in held if octet >= prefix
        }
        for before, after in zip(receiver.pieces, receiver.pieces[1:], strict=False):
            assert before.end < after.start
        for piece in receiver.pieces:
            assert b"".join(piece.chunks) == STREAM[piece.start - start : piece.end - start]
        receiver.window()
    while part := receiver.read(11):
        got += part
    assert got == STREAM[: receiver.nxt - start]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(("bytes", "view", "array")), st.sampled_from((1, 10, 2047, 2048, 5000, 70_000))),
        min_size=1,
        max_size=20,
    ),
    st.data(),
)
def test_any_part_can_be_read_again_until_it_is_released(writes, data):
    buffer, start = SendBuffer(1000), 1000
    written = b""
    for kind, size in writes:
        octets = STREAM[:size]
        value = {"bytes": octets, "view": memoryview(octets), "array": bytearray(octets)}[kind]
        room = data.draw(st.integers(0, 100_000))
        taken = buffer.append(value, room)
        assert taken == min(size, room)
        if kind == "array":
            value[:] = bytes(size)  # the caller may do with it what he likes
        written += octets[:taken]
        if written:
            low = data.draw(st.integers(buffer.start - start, len(written)))
            high = data.draw(st.integers(low, len(written)))
            if high > low:
                assert bytes(buffer.octets(start + low, start + high)) == written[low:high]
            una = data.draw(st.integers(buffer.start - start, len(written)))
            buffer.release(start + una)
            assert len(buffer) == len(written) - una


def test_bytes_are_kept_by_reference_and_small_parts_of_large_ones_are_not():
    """Section 7: no copy on the way in, no megabyte kept alive by its last octets."""
    buffer = SendBuffer(0)
    large = bytes(1 << 20)
    buffer.append(large, 1 << 20)
    view = buffer.octets(0, 1000)
    assert isinstance(view, memoryview)
    assert view.obj is large
    buffer.release((1 << 20) - 1000)
    view = buffer.octets((1 << 20) - 1000, 1 << 20)
    assert isinstance(view, memoryview)
    assert view.obj is not large
    other = SendBuffer(0)
    other.append(large, 10_000)
    view = other.octets(0, 10_000)
    assert isinstance(view, memoryview)
    assert view.obj is not large


def test_a_stream_that_never_ends_takes_bounded_memory():
    buffer = SendBuffer(0)
    for number in range(5000):
        buffer.append(STREAM[:3000], 3000)
        buffer.release(number * 3000)
    assert len(buffer._chunks) < 200
