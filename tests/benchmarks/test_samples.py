"""Statistics of rounds, and results on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.samples import Result, Row, Spread, ratios, spread


def rate(ours: list[float | None], theirs: list[float | None], *, is_more_better: bool = True) -> Row:
    return Row("a/b", "a", "x/s", is_more_better, samples={"wgpy": ours, "rival": theirs})


def test_spread_is_median_least_and_greatest() -> None:
    assert spread([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)


def test_failed_rounds_do_not_count() -> None:
    assert spread([None, 4.0, float("nan")]) == Spread(4.0, 4.0, 4.0)
    assert spread([None]) is None
    assert spread([]) is None


def test_ratio_is_taken_within_each_round() -> None:
    # The machine was ten times faster in the second round: the ratio of medians would be 11 / 5.5.
    row = rate([2.0, 20.0, 1.5], [1.0, 10.0, 1.0])
    assert row.against("rival") == Spread(2.0, 1.5, 2.0)


def test_a_round_in_which_one_failed_has_no_ratio() -> None:
    assert ratios([1.0, None, 3.0, 4.0], [2.0, 2.0, None, 0.0]) == [0.5, None, None, None]


def test_a_contender_that_joined_late_is_compared_in_its_rounds_only() -> None:
    assert ratios([1.0, 2.0], [2.0]) == [0.5]


def test_merit_above_one_is_good_for_us_whatever_is_measured() -> None:
    assert rate([2.0, 3.0], [1.0, 1.0]).merit("rival") == Spread(2.5, 2.0, 3.0)
    assert rate([2.0, 4.0], [1.0, 1.0], is_more_better=False).merit("rival") == Spread(1 / 3, 0.25, 0.5)


def test_nothing_to_compare_has_no_merit() -> None:
    assert rate([1.0], [None]).merit("rival") is None
    assert rate([0.0], [1.0], is_more_better=False).merit("rival") is None
    assert rate([1.0], [1.0]).merit("nobody") is None


def test_a_row_is_made_once() -> None:
    result = Result("tunnel", {})
    result.row("k", "label", "s").add("wgpy", 1.0)
    result.row("k", "label", "s").add("wgpy", 2.0)
    assert [row.samples for row in result.rows] == [{"wgpy": [1.0, 2.0]}]


def test_a_note_is_made_once() -> None:
    result = Result("tunnel", {})
    result.note("once")
    result.note("once")
    assert result.notes == ["once"]


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    result = Result("tunnel", {"kernel": "Linux"}, {"rounds": 2}, ["wgpy", "rival"], [rate([1.0, None], [2.0, 1.0])])
    result.note("mind this")
    result.save(tmp_path / "new" / "run.json")
    assert Result.load(tmp_path / "new" / "run.json") == result


def test_the_file_holds_medians_and_ratios_for_other_readers(tmp_path: Path) -> None:
    Result("tunnel", {}, {}, ["wgpy", "rival"], [rate([1.0, 3.0], [2.0, 2.0])]).save(tmp_path / "run.json")
    text = (tmp_path / "run.json").read_text()
    assert '"medians": {\n    "wgpy": 2.0' in text
    assert '"median": 1.0' in text


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(KeyError):
        Result.load(tmp_path / "run.json")
