"""Staged packets against lists; B23, R6, S12."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.strategies import received
from wgpy.constants import MAX_STAGED_OCTETS_PER_DEVICE, MAX_STAGED_PACKETS, MAX_STAGED_PER_DEVICE
from wgpy.dataplane.slab import Slab
from wgpy.errors import DropReason
from wgpy.protocol.staging import StagedPackets, StagingLimit


def slab_of(number: int, count: int, size: int = 4) -> Slab:
    return received([(number + row).to_bytes(4) + bytes(size - 4) for row in range(count)], stride=size)


def held(staged: StagedPackets) -> list[int]:
    slabs = staged.take()
    staged.put_back(slabs)
    return [int.from_bytes(row[:4]) for slab in slabs for row in slab]


operations = st.lists(
    st.tuples(st.sampled_from(["append", "append", "append", "take", "flush", "put back", "drop"]), st.integers(1, 70)),
    max_size=30,
)


@given(operations)
@settings(max_examples=150)
def test_b23_the_oldest_go_first_and_every_loss_is_counted(sequence: list[tuple[str, int]]) -> None:
    drops: Counter[DropReason] = Counter()
    limit = StagingLimit()
    staged = StagedPackets(limit, lambda reason, count: drops.update({reason: count}))
    model: list[int] = []
    lost: Counter[DropReason] = Counter()
    number = 0
    for verb, count in sequence:
        match verb:
            case "append":
                staged.append(slab_of(number, count))
                model += range(number, number + count)
                number += count
                lost[DropReason.STAGING_OVERFLOW] += max(0, len(model) - MAX_STAGED_PACKETS)
                model = model[-MAX_STAGED_PACKETS:]
            case "take":
                assert [int.from_bytes(row[:4]) for slab in staged.take() for row in slab] == model
                model = []
            case "put back":
                staged.put_back(staged.take())
            case "flush":
                staged.flush()
                lost[DropReason.STAGING_FLUSHED] += len(model)
                model = []
            case _:
                staged.drop_oldest(count)
                lost[DropReason.STAGING_OVERFLOW] += min(count, len(model))
                model = model[count:]
        assert held(staged) == model
        assert staged.count == limit.count == len(model)
        assert staged.octets == limit.octets == 4 * len(model)
    assert +drops == +lost


def test_what_is_staged_is_a_copy() -> None:
    staged = StagedPackets(StagingLimit(), lambda reason, count: None)
    slab = slab_of(5, 2)
    staged.append(slab)
    slab.arena.view[:] = bytes(len(slab.arena.view))
    assert held(staged) == [5, 6]


def test_r6_over_the_limit_of_the_device_the_longest_queue_pays() -> None:
    drops: Counter[int] = Counter()
    limit = StagingLimit()

    def queue(number: int) -> StagedPackets:
        return StagedPackets(limit, lambda reason, count: drops.update({number: count}))

    quiet = [queue(n) for n in range(20)]
    for one in quiet:
        one.append(slab_of(0, 1))
    noisy = [queue(1000 + n) for n in range(40)]
    for one in noisy:
        one.append(slab_of(0, MAX_STAGED_PACKETS))
    assert limit.count == MAX_STAGED_PER_DEVICE
    assert all(one.count == 1 for one in quiet)
    assert all(number >= 1000 for number in drops)
    assert sum(drops.values()) == 20 + 40 * MAX_STAGED_PACKETS - MAX_STAGED_PER_DEVICE
    counts = [one.count for one in noisy]
    assert max(counts) <= MAX_STAGED_PACKETS


def test_r6_octets_are_bounded_too() -> None:
    limit = StagingLimit()
    queues = [StagedPackets(limit, lambda reason, count: None) for _ in range(40)]
    for one in queues:
        for _ in range(5):
            one.append(slab_of(0, 1, 65000))
        assert limit.octets <= MAX_STAGED_OCTETS_PER_DEVICE
    assert limit.octets > MAX_STAGED_OCTETS_PER_DEVICE - 65000
    assert sum(one.octets for one in queues) == limit.octets


def test_r6_the_notes_of_lengths_do_not_grow_for_ever() -> None:
    limit = StagingLimit()
    one, other = (StagedPackets(limit, lambda reason, count: None) for _ in range(2))
    other.append(slab_of(0, 1))
    for number in range(30_000):
        one.append(slab_of(number, 1))
        one.take()
    assert len(limit._longest) <= 2 * MAX_STAGED_PER_DEVICE + 1
