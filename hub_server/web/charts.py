"""Geometry of the charts: numbers in, points and labels out. No markup, no time, no colour.

A chart is drawn in a box of 96 by 100 units that the page stretches to its width; the labels stand beside it as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 96.0, 100.0


@dataclass(frozen=True, slots=True)
class Line:
    """One series: an SVG path, and whether there is anything to see."""

    path: str
    is_empty: bool


def ceiling(values: Sequence[float | None], least: float) -> float:
    """The top of an axis: the next 1, 2 or 5 times a power of ten, and never below `least`."""
    top = max([least, *(value for value in values if value is not None)])
    step = least
    while step < top:
        for factor in (2.0, 5.0, 10.0):
            if step * factor >= top:
                return step * factor
        step *= 10.0
    return step


def line(values: Sequence[float | None], top: float) -> Line:
    """A path through the middle of each quarter of an hour; a missing value breaks it, a lonely one is a short dash."""
    width = WIDTH / max(1, len(values))
    parts: list[str] = []
    open_run = False
    for i, value in enumerate(values):
        if value is None:
            open_run = False
            continue
        x, y = (i + 0.5) * width, HEIGHT - min(1.0, value / top) * (HEIGHT - 4) - 2
        if not open_run and (i + 1 == len(values) or values[i + 1] is None):
            parts.append(f"M{x - width / 2:.1f} {y:.1f}h{width:.1f}")
        else:
            parts.append(f"{'L' if open_run else 'M'}{x:.1f} {y:.1f}")
        open_run = True
    return Line("".join(parts), not parts)
