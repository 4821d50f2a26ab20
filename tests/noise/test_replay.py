"""The replay window against a plain set; B15, B16, S3, T26."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpy.constants import COUNTER_WINDOW, REJECT_AFTER_MESSAGES
from wgpy.noise.replay import ReplayWindow


class Model:
    """RFC 6479 by its meaning: every counter that was seen, and the highest of them."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def accept(self, counter: int) -> bool:
        highest = max(self.seen, default=-1)
        if counter >= REJECT_AFTER_MESSAGES or counter in self.seen or highest - counter > COUNTER_WINDOW:
            return False
        self.seen.add(counter)
        return True


EDGES = [0, 1, 2, 63, 64, 65, 8127, 8128, 8129, 8191, 8192, 8193, 20000, 2**32, 2**63]
near = st.integers(-3, 3)
jumps = st.sampled_from(EDGES) | st.sampled_from(EDGES).map(lambda n: -n) | near
counters = st.lists(jumps, max_size=60).map(
    lambda steps: [max(0, sum(steps[: n + 1])) for n in range(len(steps))]
) | st.lists(st.integers(0, 2**64 - 1) | st.integers(REJECT_AFTER_MESSAGES - 3, 2**64 - 1) | near.map(abs), max_size=40)


@given(counters)
@settings(max_examples=300)
def test_b15_it_agrees_with_a_set(sequence: list[int]) -> None:
    window, model = ReplayWindow(), Model()
    for counter in sequence:
        assert window.accept(counter) == model.accept(counter), counter


@given(st.lists(st.tuples(counters, st.sets(st.integers(0, 39), max_size=3)), max_size=6))
@settings(max_examples=200)
def test_a_batch_is_its_rows_one_by_one(batches: list[tuple[list[int], set[int]]]) -> None:
    window, one_by_one = ReplayWindow(), ReplayWindow()
    for sequence, failed in batches:
        expected = [row for row, c in enumerate(sequence) if row not in failed and not one_by_one.accept(c)]
        assert window.accept_rows(sequence, failed) == expected
        assert window.highest == one_by_one.highest


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 12000)), min_size=1, max_size=4), st.integers(0, 20000))
def test_growing_runs_take_one_step_and_leave_the_same_window(runs: list[tuple[int, int]], probe: int) -> None:
    window, model = ReplayWindow(), Model()
    first = 0
    for gap, count in runs:
        first += gap
        run = list(range(first, first + count))
        assert window.accept_rows(run, ()) == []
        model.seen.update(run)
        first += count
    for counter in {max(0, first - probe), probe, first, max(0, first - COUNTER_WINDOW - 1)}:
        assert window.accept(counter) == model.accept(counter), counter


def test_t26_the_first_counter_is_zero_and_a_forged_row_moves_nothing() -> None:
    window = ReplayWindow()
    assert window.accept_rows([2**63], {0}) == []
    assert window.highest == -1
    assert window.accept(0)
    assert not window.accept(0)


@pytest.mark.parametrize("counter", [REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1, 2**64 - 2, 2**64 - 1])
def test_s3_counters_at_the_end_neither_wrap_nor_move_the_window(counter: int) -> None:
    """B16: boringtun #54 took 0, 2^64 - 1, 0 as three different counters."""
    window = ReplayWindow()
    assert window.accept(0)
    assert not window.accept(counter)
    assert window.accept_rows([counter], ()) == [0]
    assert window.highest == 0
    assert not window.accept(0)
    assert window.accept(REJECT_AFTER_MESSAGES - 1)
    assert not window.accept(0)


def test_s3_a_jump_costs_no_more_than_a_window() -> None:
    window = ReplayWindow()
    assert window.accept(5)
    assert window.accept(2**63)
    assert window._seen.bit_length() <= COUNTER_WINDOW + 1


def test_b16_a_growing_batch_ends_at_the_last_counter_that_is_allowed() -> None:
    last = REJECT_AFTER_MESSAGES - 1
    window = ReplayWindow()
    assert window.accept_rows([last - 1, last, last + 1], ()) == [2]
    assert window.highest == last
    assert ReplayWindow().accept_rows([last - 2, last - 1, last], ()) == []


def test_a_growing_batch_that_was_seen_before_is_refused_row_by_row() -> None:
    window = ReplayWindow()
    assert window.accept_rows(list(range(10)), ()) == []
    assert window.accept_rows(list(range(10)), ()) == list(range(10))
    assert window.accept_rows(list(range(5, 15)), ()) == [0, 1, 2, 3, 4]
    assert window.highest == 14


@pytest.mark.parametrize("first", [8, 9, 10])
def test_a_growing_batch_may_not_begin_at_or_below_the_highest_counter(first: int) -> None:
    """The step that takes a whole batch holds for what is new only; the highest counter itself was seen."""
    window = ReplayWindow()
    assert window.accept_rows(list(range(10)), ()) == []
    assert window.accept_rows(list(range(first, 20)), ()) == list(range(10 - first))


def test_forged_rows_of_a_growing_batch_leave_their_counters_unseen() -> None:
    window = ReplayWindow()
    assert window.accept_rows([0, 1, 2, 3], {1, 3}) == []
    assert window.highest == 2
    assert window.accept_rows([0, 1, 2, 3], {0, 2}) == []
    assert window.accept_rows([0, 1, 2, 3], ()) == [0, 1, 2, 3]
