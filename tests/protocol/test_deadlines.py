"""The heap of deadlines against a dictionary that is searched; R2."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from wgpy.protocol.deadlines import DeadlineHeap
from wgpy.protocol.timers import NEVER

owners = st.integers(0, 5)
times = st.integers(0, 20).map(float) | st.just(NEVER)
operations = st.lists(
    st.tuples(st.just("wake_by"), owners, times)
    | st.tuples(st.just("discard"), owners, st.just(0.0))
    | st.tuples(st.just("pop"), st.just(0), times.filter(lambda time: time < NEVER)),
    max_size=80,
)


@given(operations)
@settings(max_examples=200)
def test_owners_are_woken_at_their_earliest_deadline_once(sequence: list[tuple[str, int, float]]) -> None:
    heap: DeadlineHeap[int] = DeadlineHeap()
    model: dict[int, float] = {}
    for verb, owner, time in sequence:
        match verb:
            case "wake_by":
                heap.wake_by(owner, time)
                if time < model.get(owner, NEVER):
                    model[owner] = time
            case "discard":
                heap.discard(owner)
                model.pop(owner, None)
            case _:
                popped = heap.pop_due(time)
                due = [one for one, deadline in model.items() if deadline <= time]
                assert (popped is None) == (not due)
                if popped is not None:
                    model.pop(popped)
                    assert popped in due
        assert heap.next_deadline() == min(model.values(), default=NEVER)


def test_the_earliest_comes_first() -> None:
    heap: DeadlineHeap[str] = DeadlineHeap()
    for owner, time in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        heap.wake_by(owner, time)
    assert [heap.pop_due(2.0), heap.pop_due(2.0), heap.pop_due(2.0), heap.pop_due(3.0)] == ["a", "b", None, "c"]


def test_b35_ten_thousand_changes_of_one_owner_leave_a_small_heap() -> None:
    heap: DeadlineHeap[str] = DeadlineHeap()
    for number in range(10_000):
        heap.wake_by("a", 20_000.0 - number)
        heap.wake_by(f"other {number}", 5.0)
        heap.discard(f"other {number}")
    assert len(heap._heap) < 300
