"""Charts are drawn as SVG and PNG; what they show is checked in the SVG, where text stays text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import chart
from benchmarks.samples import Result, Row


def result(*, rivals: bool, over: str = "") -> Result:
    samples: dict[str, list[float | None]] = {"wgpy": [2.0, None, 3.0]}
    if rivals:
        samples["boringtun"] = [1.0, 1.0, 1.0]
    rows = [Row("a", "speed", "Gbit/s", True, "MTU 1420", samples)]
    return Result("tunnel", {"machine": "some box"}, {}, list(samples), rows, [], over)


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        (result(rivals=True), ("against boringtun", "speed", "MTU 1420", "some box")),
        (result(rivals=False), ("more is better", "speed", "some box")),
        (result(rivals=False, over="minute"), ("minute", "speed: Gbit/s")),
    ],
    ids=["merits", "bars", "lines"],
)
def test_each_kind_of_result_is_drawn(drawn: Result, words: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install '.[bench]'")
    files = chart.draw(drawn, tmp_path / "run.json")
    assert [file.name for file in files] == ["run.svg", "run.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    svg = files[0].read_text()
    for word in words:
        assert word in svg


def test_the_same_figures_give_the_same_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install '.[bench]'")
    first, second = (chart.draw(result(rivals=True), tmp_path / name)[0] for name in ("a.json", "b.json"))
    assert first.read_bytes() == second.read_bytes()


def test_without_matplotlib_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(chart.ChartMissing, match="pip install"):
        chart.draw(result(rivals=True), tmp_path / "run.json")


def test_groups_keep_their_order() -> None:
    rows = [Row(key, key, "s", group=group) for key, group in (("1", "b"), ("2", "a"), ("3", "b"))]
    assert {name: [row.key for row in members] for name, members in chart.groups(rows).items()} == {
        "b": ["1", "3"],
        "a": ["2"],
    }
