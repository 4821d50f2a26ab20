"""The table, its numbers and colours, and the progress bar."""

from __future__ import annotations

import io

import pytest

from benchmarks import report
from benchmarks.samples import Result, Row


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def result() -> Result:
    rows = [
        Row("a", "speed", "Gbit/s", True, "MTU 1420", {"wgpy": [2.0, 3.0], "rival": [1.0, 1.0]}),
        Row("b", "delay", "µs", False, "MTU 1420", {"wgpy": [30.0, 30.0], "rival": [10.0, 10.0]}),
        Row("c", "loss", "packets", False, "", {"wgpy": [None, None], "rival": [1.0, 1.0]}),
    ]
    return Result("tunnel", {"kernel": "Linux 6"}, {"rounds": 2}, ["wgpy", "rival"], rows, ["mind this"])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.5123, "0.512"), (12.345, "12.3"), (1234.5, "1,234"), (99.99, "100"), (1e-7, "1e-07")],
)
def test_numbers_have_three_digits_and_no_exponent_where_none_is_needed(value: float, text: str) -> None:
    assert report.number(value) == text


def test_table_has_medians_and_ratios(result: Result) -> None:
    lines = [line.split() for line in report.table(result).splitlines()]
    assert lines[0] == ["unit", "wgpy", "rival", "wgpy", "/", "rival"]
    assert lines[1] == ["MTU", "1420"]
    assert lines[2] == ["speed", "Gbit/s", "↑", "2.5", "1", "\N{MULTIPLICATION SIGN}2.50", "(2.00-3.00)"]
    assert lines[3] == ["delay", "µs", "↓", "30", "10", "\N{MULTIPLICATION SIGN}3.00"]


def test_a_row_without_any_good_round_says_so(result: Result) -> None:
    assert report.table(result).splitlines()[-1].split() == ["loss", "packets", "↓", "failed", "1"]


def test_green_is_better_and_red_is_worse_whatever_is_measured(result: Result) -> None:
    _, _, speed, delay, _ = report.table(result, has_colour=True).splitlines()
    assert "\x1b[32m" in speed
    assert "\x1b[31m" in delay


def test_no_colour_unless_on_a_terminal(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert report.wants_colour(Terminal())
    assert not report.wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not report.wants_colour(Terminal())


def test_everything_a_reader_needs_is_printed(result: Result) -> None:
    out = io.StringIO()
    report.print_result(result, out)
    for part in ("tunnel: rounds 2", "Linux 6", "mind this", "per-round ratios"):
        assert part in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_progress_rewrites_one_line_on_a_terminal() -> None:
    out = Terminal()
    progress = report.Progress(2, out)
    progress.show("first")
    progress.step()
    progress.show("second")
    progress.close()
    assert "\n" not in out.getvalue()
    assert "1/2" in out.getvalue()
    assert out.getvalue().endswith("\r\x1b[K")


def test_progress_prints_a_line_per_tenth_elsewhere() -> None:
    out = io.StringIO()
    progress = report.Progress(40, out)
    for _ in range(40):
        progress.show("on")
        progress.step()
    progress.close()
    assert len(out.getvalue().splitlines()) == 10
    assert "\x1b" not in out.getvalue()
