"""What a benchmark found: rows of samples, one per contender and round, and the few statistics that we trust.

A shared machine is up to twice as fast in one minute as in the next. So contenders take turns within every round, the
ratio is taken inside each round, and the median of those ratios is what counts. A round in which either side failed has
no ratio. This file reads no clock and prints nothing.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OURS: Final = "wgpy"


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and how far the single rounds were from it."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float | None]) -> Spread | None:
    """The median, least and greatest of the rounds that succeeded; None if none did."""
    good = [value for value in values if value is not None and math.isfinite(value)]
    return Spread(statistics.median(good), min(good), max(good)) if good else None


def ratios(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float | None]:
    """Our value over theirs, round by round; None where one of them has none, or theirs is 0."""
    return [
        None if mine is None or other is None or not other else mine / other
        for mine, other in zip(ours, theirs, strict=False)
    ]


@dataclass(slots=True)
class Row:
    """One quantity, for every contender, for every round.

    Attributes:
        key: names the row for good, such as `1420/tcp1/rate`; `check` finds it in the baseline by this.
        label: for people.
        unit: of the samples.
        is_more_better: whether a greater value is the better one.
        group: the heading that it stands under.
        samples: contender to one value per round, None where it failed.
    """

    key: str
    label: str
    unit: str
    is_more_better: bool = True
    group: str = ""
    samples: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, contender: str, value: float | None) -> None:
        """One more round."""
        self.samples.setdefault(contender, []).append(value)

    def of(self, contender: str) -> Spread | None:
        """A contender's values."""
        return spread(self.samples.get(contender, []))

    def against(self, contender: str, ours: str = OURS) -> Spread | None:
        """The ratio of us to a contender: the median of the per-round ratios."""
        return spread(ratios(self.samples.get(ours, []), self.samples.get(contender, [])))

    def merit(self, contender: str, ours: str = OURS) -> Spread | None:
        """`against` turned so that more than 1 is good for us, whatever the row measures."""
        found = self.against(contender, ours)
        if found is None or self.is_more_better:
            return found
        if not found.low:
            return None
        return Spread(1 / found.median, 1 / found.high, 1 / found.low)


@dataclass(slots=True)
class Result:
    """A whole run.

    Attributes:
        benchmark: its name on the command line.
        machine: what it ran on, and the versions of everything.
        options: how it was asked for.
        contenders: in the order of the columns, ours first.
        rows: what was measured.
        notes: what a reader must know to read the numbers rightly.
        over: what the samples of a row follow each other in, such as `minute`; empty for rounds, whose order says
            nothing.
    """

    benchmark: str
    machine: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    contenders: list[str] = field(default_factory=lambda: [OURS])
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    over: str = ""

    def row(self, key: str, label: str, unit: str, *, is_more_better: bool = True, group: str = "") -> Row:
        """The row of that key, made when it is new."""
        for row in self.rows:
            if row.key == key:
                return row
        self.rows.append(Row(key, label, unit, is_more_better, group))
        return self.rows[-1]

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def rivals(self) -> list[str]:
        """Everyone but us."""
        return [name for name in self.contenders if name != OURS]

    def save(self, path: Path) -> None:
        """Write everything as JSON, medians and ratios included for readers without this program."""
        document = asdict(self)
        for row, written in zip(self.rows, document["rows"], strict=True):
            written["medians"] = {name: found.median for name in row.samples if (found := row.of(name))}
            written["ratios"] = {name: asdict(found) for name in self.rivals if (found := row.against(name))}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read what `save` wrote; what it had worked out is worked out again."""
        document = json.loads(path.read_text())
        rows = [Row(**{name: row[name] for name in Row.__slots__}) for row in document.pop("rows")]
        return cls(**document, rows=rows)
