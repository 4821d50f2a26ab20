"""A packet device in memory: what the door promises, bounded both ways; R5, R7."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.property.strategies import UDP, PacketShape, received
from wgpy.errors import DropReason, TunnelClosed
from wgpy.tun.memory import MemoryDevice
from wgpy.wire import ip


def packets(count: int, *, size: int = 100, target: int = 2, tos: int = 0) -> list[bytes]:
    shape = PacketShape(protocol=UDP, target=bytes([10, 0, 0, target]), tos=tos)
    return [shape.but(payload=bytes([n & 0xFF]) * size).build() for n in range(count)]


async def read_all(device: MemoryDevice, sent: list[bytes]) -> list[list[bytes]]:
    await device.send(sent)
    return [[bytes(row)[: ip.true_length_untrusted(row)] for row in slab] for slab in device.read_batch()]


async def test_packets_come_out_as_slabs_of_one_destination_length_and_mark() -> None:
    runs = [packets(3), packets(2, target=3), packets(1, size=50, target=3), packets(2, size=50, target=3, tos=1)]
    assert await read_all(MemoryDevice("m"), [one for run in runs for one in run]) == runs


async def test_a_slab_fits_into_one_grouped_send() -> None:
    slabs = await read_all(MemoryDevice("m"), packets(100, size=1392))
    assert [len(slab) for slab in slabs] == [45, 45, 10]


async def test_rows_are_padded_with_zeros() -> None:
    device = MemoryDevice("m")
    await device.send(packets(2, size=41))
    (slab,) = device.read_batch()
    assert slab.length == 80
    assert all(not any(row[69:]) for row in slab)


async def test_what_is_no_packet_is_counted_and_dropped() -> None:
    device = MemoryDevice("m")
    (good,) = packets(1)
    assert await read_all(device, [b"", b"nonsense", good[:-1], good + b"\0", good]) == [[good]]
    assert device.drops == {DropReason.INNER_MALFORMED: 4}


async def test_a_writer_waits_while_the_queue_is_full(autojump_clock: trio.testing.MockClock) -> None:
    """R5: backpressure, not loss."""
    device = MemoryDevice("m", limit=4)
    sent = packets(10)
    found: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.send, sent)
        while len(found) < 10:
            await device.wait_readable()
            await trio.testing.wait_all_tasks_blocked()
            batch = [bytes(row)[:128] for slab in device.read_batch() for row in slab]
            assert len(batch) <= 4
            found += batch
    assert found == sent


async def test_a_reader_who_is_too_slow_loses_the_newest_and_it_is_counted() -> None:
    device = MemoryDevice("m", limit=4)
    sent = packets(6)
    device.write_batch([received(sent)])
    assert device.drops == {DropReason.TUN_WRITE_FAILED: 2}
    assert await device.receive() == sent[:4]


async def test_closing_wakes_everybody_and_twice_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    device = MemoryDevice("m", limit=1)
    await device.send(packets(1))
    ended = []

    async def ends(wait: object) -> None:
        with pytest.raises(TunnelClosed, match="m was closed"):
            await wait()  # type: ignore[operator]
        ended.append(wait)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends, device.receive)
        nursery.start_soon(ends, lambda: device.send(packets(2)))
        await trio.testing.wait_all_tasks_blocked()
        device.close()
        device.close()
    assert len(ended) == 2
    device.read_batch()
    await ends(device.wait_readable)
    with pytest.raises(TunnelClosed):
        device.write_batch([received(packets(1))])


async def test_what_was_received_before_the_end_can_still_be_read() -> None:
    device = MemoryDevice("m")
    device.write_batch([received(packets(1))])
    device.close()
    assert await device.receive() == packets(1)
    with pytest.raises(TunnelClosed):
        await device.receive()
