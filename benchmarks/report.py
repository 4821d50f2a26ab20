"""What a person sees: a progress bar while it runs, then one table. Colours on a terminal only."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from benchmarks.samples import Result, Row, Spread

_TIMES: Final = "\N{MULTIPLICATION SIGN}"
_WIDTH: Final = 30
# Ratios closer to 1 than this are noise on a shared machine: no colour.
_NOISE: Final = 0.05


class Progress:
    """One line on standard error, rewritten in place on a terminal; elsewhere a line per tenth."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        """Begin.

        Args:
            total: how many steps there will be.
            stream: where to draw.
        """
        self._stream = sys.stderr if stream is None else stream
        self._is_live = self._stream.isatty()
        self._total = max(1, total)
        self._done = 0
        self._tenth = 0
        self._start = time.monotonic()

    def show(self, what: str) -> None:
        """Say what begins now."""
        if self._is_live:
            full = _WIDTH * self._done // self._total
            bar = "█" * full + "░" * (_WIDTH - full)
            self._stream.write(f"\r\x1b[K{bar} {self._done}/{self._total} {self._left()} {what[:60]}")
            self._stream.flush()

    def step(self) -> None:
        """One step is done."""
        self._done += 1
        tenth = 10 * self._done // self._total
        if not self._is_live and tenth > self._tenth:
            self._tenth = tenth
            self._stream.write(f"[{'#' * tenth}{'.' * (10 - tenth)}] {self._done}/{self._total} {self._left()}\n")
            self._stream.flush()

    def over(self, steps: Iterable[tuple[str, object]]) -> Iterator[object]:
        """Walk through named steps, showing each."""
        for name, value in steps:
            self.show(name)
            yield value
            self.step()

    def close(self) -> None:
        """Remove the bar."""
        if self._is_live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _left(self) -> str:
        if not self._done:
            return ""
        left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"


def number(value: float) -> str:
    """Three significant digits, thousands apart, no exponent for ordinary sizes."""
    if value == 0 or not 1e-4 <= abs(value) < 1e12:
        return f"{value:.3g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _cell(found: Spread | None) -> str:
    return "failed" if found is None else number(found.median)


def _ratio_cell(row: Row, rival: str) -> tuple[str, str]:
    found, merit = row.against(rival), row.merit(rival)
    if found is None or merit is None:
        return "", ""
    text = f"{_TIMES}{found.median:.2f}"
    if found.low != found.high:
        text += f" ({found.low:.2f}-{found.high:.2f})"
    if abs(merit.median - 1) <= _NOISE:
        return text, ""
    return text, "\x1b[32m" if merit.median > 1 else "\x1b[31m"


def table(result: Result, *, has_colour: bool = False) -> str:
    """The medians of every contender, and our ratio to each rival with the range of the rounds."""
    rivals = result.rivals
    heads = ["", "unit", *result.contenders, *(f"{result.contenders[0]} / {name}" for name in rivals)]
    lines: list[list[tuple[str, str]]] = [[(head, "\x1b[1m") for head in heads]]
    group = ""
    for row in result.rows:
        if row.group != group:
            group = row.group
            if group:
                lines.append([(group, "\x1b[1m")] + [("", "")] * (len(heads) - 1))
        arrow = "↑" if row.is_more_better else "↓"
        line = [(f"  {row.label}" if row.group else row.label, ""), (f"{row.unit} {arrow}", "\x1b[2m")]
        line += [(_cell(row.of(name)) if name in row.samples else "", "") for name in result.contenders]
        line += [_ratio_cell(row, name) for name in rivals]
        lines.append(line)
    widths = [max(len(line[column][0]) for line in lines) for column in range(len(heads))]
    out = []
    for line in lines:
        words = []
        for column, ((text, colour), width) in enumerate(zip(line, widths, strict=True)):
            padded = f"{text:<{width}}" if column < 2 else f"{text:>{width}}"
            words.append(f"{colour}{padded}\x1b[0m" if colour and has_colour else padded)
        out.append("  ".join(words).rstrip())
    return "\n".join(out)


def wants_colour(stream: TextIO) -> bool:
    """Whether to colour: a terminal, and nobody objects (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def print_result(result: Result, stream: TextIO | None = None) -> None:
    """The table between what it ran on and what to know about it."""
    stream = sys.stdout if stream is None else stream
    print(
        f"\n{result.benchmark}: {', '.join(f'{name} {value}' for name, value in result.options.items())}", file=stream
    )
    for name, value in result.machine.items():
        print(f"  {name:<14}{value}", file=stream)
    print(f"\n{table(result, has_colour=wants_colour(stream))}\n", file=stream)
    print("↑ more is better, ↓ less is better; medians of the rounds", file=stream, end="")
    print(f"; {_TIMES} is the median of the per-round ratios (least-greatest)" if result.rivals else "", file=stream)
    for note in result.notes:
        print(f"- {note}", file=stream)
