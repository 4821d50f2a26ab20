"""The regression check compares ratios, and one unlucky round decides nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import build_parser
from benchmarks.check import compare, run, verdict
from benchmarks.samples import Result, Row


def result(ours: list[float | None], theirs: list[float | None], *, is_more_better: bool = True) -> Result:
    row = Row("1420/tcp1/rate", "TCP", "Gbit/s", is_more_better, "MTU 1420", {"wgpy": ours, "wireguard-go": theirs})
    return Result("tunnel", {}, {}, ["wgpy", "wireguard-go"], [row])


def judge(then: Result, now: Result) -> list[bool]:
    return [one.is_worse for one in compare(then, now, "wireguard-go", 0.15)]


def test_a_slower_machine_is_no_regression() -> None:
    assert judge(result([2.0] * 3, [1.0] * 3), result([0.2] * 3, [0.1] * 3)) == [False]


def test_falling_behind_the_rival_is_a_regression() -> None:
    assert judge(result([2.0] * 3, [1.0] * 3), result([1.5] * 3, [1.0] * 3)) == [True]


def test_more_cpu_than_the_rival_is_a_regression() -> None:
    then, now = (result([cpu] * 3, [1.0] * 3, is_more_better=False) for cpu in (1.0, 1.5))
    assert judge(then, now) == [True]


def test_within_the_tolerance_is_fine() -> None:
    assert judge(result([2.0] * 3, [1.0] * 3), result([1.8] * 3, [1.0] * 3)) == [False]


def test_a_wide_spread_that_reaches_the_baseline_is_fine() -> None:
    assert judge(result([2.0] * 3, [1.0] * 3), result([1.0, 1.5, 2.1], [1.0] * 3)) == [False]


def test_rows_that_only_one_run_has_are_not_compared() -> None:
    now = result([1.0], [1.0])
    now.rows[0].key = "1420/udp64/rate"
    assert judge(result([2.0], [1.0]), now) == []


@pytest.mark.parametrize("key", ["1420/memory", "1420/udp64/cpu", "1420/ping/p99"])
def test_rows_that_depend_on_the_rest_of_the_run_are_not_judged(key: str) -> None:
    then, now = result([2.0], [1.0]), result([1.0], [1.0])
    then.rows[0].key = now.rows[0].key = key
    assert judge(then, now) == []


def test_the_verdict_names_what_became_worse() -> None:
    compared = compare(result([2.0] * 3, [1.0] * 3), result([1.0] * 3, [1.0] * 3), "wireguard-go", 0.15)
    assert verdict(compared, has_colour=False).endswith("-50%  WORSE")
    assert "\x1b[31m" in verdict(compared, has_colour=True)


@pytest.mark.parametrize(("ours", "status"), [(1.0, 1), (2.0, None)])
def test_status_says_whether_something_became_worse(ours: float, status: int | None, tmp_path: Path) -> None:
    result([2.0] * 3, [1.0] * 3).save(tmp_path / "then.json")
    result([ours] * 3, [1.0] * 3).save(tmp_path / "now.json")
    argv = ["check", "--baseline", str(tmp_path / "then.json"), "--run", str(tmp_path / "now.json")]
    if status is None:
        assert run(build_parser().parse_args(argv)).benchmark == "tunnel"
    else:
        with pytest.raises(SystemExit) as left:
            run(build_parser().parse_args(argv))
        assert left.value.code == status


def test_a_rival_that_is_in_neither_run_is_an_error(tmp_path: Path) -> None:
    result([2.0], [1.0]).save(tmp_path / "run.json")
    argv = ["check", "--baseline", str(tmp_path / "run.json"), "--run", str(tmp_path / "run.json")]
    with pytest.raises(SystemExit, match="no row with gotatun"):
        run(build_parser().parse_args([*argv, "--against", "gotatun"]))
