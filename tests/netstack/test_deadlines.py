"""The lazy heap: nobody is woken too early, nobody too late."""

from hypothesis import given
from hypothesis import strategies as st

from wgpy.netstack.constants import NEVER
from wgpy.netstack.deadlines import DeadlineHeap


class Sleeper:
    def __init__(self):
        self.wakes_at = NEVER
        self.deadline = NEVER


steps = st.tuples(st.sampled_from(("set", "drop", "wake")), st.integers(0, 4), st.integers(0, 50))


@given(st.lists(steps, max_size=80))
def test_the_heap_agrees_with_a_list(steps):
    heap, sleepers, now = DeadlineHeap(), [Sleeper() for _ in range(5)], 0.0
    for action, who, amount in steps:
        sleeper = sleepers[who]
        if action == "set":
            sleeper.deadline = now + amount
            heap.wake_by(sleeper, sleeper.deadline)
        elif action == "drop":
            sleeper.deadline = NEVER
            heap.discard(sleeper)
        else:
            now += amount
            due = {one for one in sleepers if one.deadline <= now}
            woken = set()
            while (one := heap.pop_due(now)) is not None:
                assert one.deadline <= now
                one.deadline = NEVER
                woken.add(one)
            assert woken == due
        assert heap.next_deadline() == min(one.deadline for one in sleepers)


def test_moving_a_deadline_later_costs_no_entry():
    heap, sleeper = DeadlineHeap(), Sleeper()
    for moment in range(1, 10_000):
        sleeper.deadline = float(moment)
        heap.wake_by(sleeper, sleeper.deadline)
    assert len(heap._heap) == 1
    assert heap.next_deadline() == 9999.0


def test_moving_a_deadline_earlier_again_and_again_leaves_few_dead():
    heap, sleeper = DeadlineHeap(), Sleeper()
    for moment in range(10_000, 0, -1):
        sleeper.deadline = float(moment)
        heap.wake_by(sleeper, sleeper.deadline)
    assert len(heap._heap) < 100
    assert heap.next_deadline() == 1.0
