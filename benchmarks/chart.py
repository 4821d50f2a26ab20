"""A result as a picture, SVG and PNG, to be read at a glance.

With rivals: one line per quantity, one mark per rival, on a logarithmic scale of merit. Right of the line in the middle
wgpy is better, left of it worse, whatever the quantity measures. Without rivals: bars, one panel per
unit; or a line over time where the run has one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import number

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.samples import Result, Row

# Distinguishable in black and white too: a marker for each colour (Okabe and Ito's palette, for the colour-blind).
_MARKS: Final = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "D"), ("#cc79a7", "^"), ("#e69f00", "v"))
_INK: Final = "#333333"
_SPAN: Final = 30.0
_TIMES: Final = "\N{MULTIPLICATION SIGN}"


class ChartMissing(Exception):
    """There is nothing to draw with; says how to get it."""


def draw(result: Result, path: Path) -> list[Path]:
    """Draw a result.

    Args:
        result: what to draw.
        path: where; its suffix is replaced.

    Returns:
        The files written.

    Raises:
        ChartMissing: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ChartMissing("no chart without matplotlib: pip install '.[bench]' -c constraints.txt") from None
    matplotlib.use("Agg")
    # The same figures give the same file, and text stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "wgpy", "svg.fonttype": "none", "font.size": 9})
    paint = _lines if result.over else _merits if result.rivals else _bars
    figure = paint(result)
    machine = f"{result.machine.get('date', '')}, {result.machine.get('machine', '')}"
    figure.text(0.01, 0.003, machine, fontsize=7, color=_INK)
    files = [path.with_suffix(".svg"), path.with_suffix(".png")]
    for file in files:
        figure.savefig(file, dpi=120, metadata={"Date": None} if file.suffix == ".svg" else None)
    return files


def groups(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows by group, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found


def _figure(heights: list[int]) -> tuple[Any, Any]:
    from matplotlib import pyplot

    height = sum(heights) * 0.3 + 0.9 * len(heights) + 0.6
    figure, axes = pyplot.subplots(
        len(heights), 1, figsize=(9, height), squeeze=False, layout="constrained", height_ratios=heights
    )
    return figure, axes[:, 0]


def _merits(result: Result) -> Any:
    grouped = {
        name: rows
        for name, all_rows in groups(result.rows).items()
        if (rows := [row for row in all_rows if any(row.merit(rival) for rival in result.rivals)])
    }
    figure, axes = _figure([len(rows) + 1 for rows in grouped.values()])
    ends = [end for rows in grouped.values() for row in rows for rival in result.rivals for end in _ends(row, rival)]
    edge = min(_SPAN, 1.3 * max(2.0, *ends, *(1 / end for end in ends)))
    ticks = [tick for tick in (1 / 20, 1 / 10, 1 / 5, 1 / 2, 1, 2, 5, 10, 20) if 1 / edge <= tick <= edge]
    for (name, rows), axis in zip(grouped.items(), axes, strict=True):
        axis.axvspan(1, edge, color="#e8f3ea", zorder=0)
        axis.axvline(1, color=_INK, linewidth=1)
        for place_of_rival, (rival, (colour, marker)) in enumerate(zip(result.rivals, _MARKS, strict=False)):
            offset = (place_of_rival - (len(result.rivals) - 1) / 2) * 0.2
            for place, row in enumerate(rows):
                merit = row.merit(rival)
                if merit is None:
                    continue
                axis.plot([merit.low, merit.high], [place + offset] * 2, color=colour, linewidth=1, alpha=0.5)
                axis.plot(merit.median, place + offset, marker, color=colour, markersize=5)
            axis.plot([], [], marker, color=colour, label=f"against {rival}")
        axis.set_xscale("log")
        axis.set_xlim(1 / edge, edge)
        axis.set_xticks(ticks, [f"{_TIMES}{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set_yticks(range(len(rows)), [row.label for row in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_title(name, loc="left", fontweight="bold")
    axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(result.rivals), frameon=False)
    axes[-1].set_xlabel("wgpy worse   ←   median of the per-round ratios, line: from least to greatest   →   better\n")
    figure.suptitle(f"wgpy against {', '.join(result.rivals)}: {result.benchmark}", fontweight="bold")
    return figure


def _ends(row: Row, rival: str) -> list[float]:
    merit = row.merit(rival)
    return [] if merit is None else [merit.low, merit.high]


def _bars(result: Result) -> Any:
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in result.rows:
        if row.of(result.contenders[0]) is not None:
            panels.setdefault((row.group, row.unit), []).append(row)
    figure, axes = _figure([len(rows) for rows in panels.values()])
    for ((group, unit), rows), axis in zip(panels.items(), axes, strict=True):
        found = [spread for row in rows if (spread := row.of(result.contenders[0]))]
        values = [spread.median for spread in found]
        bars = axis.barh(range(len(rows)), values, color=_MARKS[0][0], height=0.65)
        axis.bar_label(bars, [f" {number(value)}" for value in values], color=_INK)
        axis.set_yticks(range(len(rows)), [row.label for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        positive = [value for value in values if value > 0]
        if positive and max(positive) / min(positive) > _SPAN:
            axis.set_xscale("log")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
        better = "more" if rows[0].is_more_better else "less"
        axis.set_title(f"{group or result.benchmark}: {unit} ({better} is better)", loc="left", fontweight="bold")
    axes[-1].set_xlabel("\n")
    return figure


def _lines(result: Result) -> Any:
    rows = [row for row in result.rows if len(row.samples.get(result.contenders[0], ())) > 1]
    figure, axes = _figure([6] * len(rows))
    for row, axis in zip(rows, axes, strict=True):
        values = [math.nan if value is None else value for value in row.samples[result.contenders[0]]]
        axis.plot(range(1, len(values) + 1), values, color=_MARKS[0][0], marker=".")
        # From 0, so that noise does not look like a slope.
        axis.set_ylim(0, max([1.0, *(value for value in values if value == value)]) * 1.15)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(f"{row.label}: {row.unit}", loc="left", fontweight="bold")
    axes[-1].set_xlabel(f"{result.over}\n")
    return figure
