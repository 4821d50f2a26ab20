"""Did wgpy become slower? A fresh run against the one in benchmarks/results, by ratios to the same rival only.

Absolute times say more about the machine and its neighbours than about us. So the fresh run has the rival beside us,
and what is compared is how much better or worse than the rival we are: then, and now.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import report, tunnel
from benchmarks.host import REPOSITORY
from benchmarks.samples import Result, Spread

BASELINE: Final = REPOSITORY / "benchmarks/results/tunnel.json"
# Rows whose ratio says something about the run rather than about us: peak memory depends on which loads came before,
# and in a flood of UDP, CPU per datagram that arrived depends on how many the neighbours of this machine made us lose.
_TOO_FICKLE: Final = re.compile(r"/memory$|/udp\d+/cpu$|/p99$")
_TIMES: Final = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of both runs, as merit: more than 1 is better than the rival.

    Attributes:
        label: of the row.
        then: in the baseline.
        now: in the fresh run.
        tolerance: how much of the merit may be lost before it counts.
    """

    label: str
    then: Spread
    now: Spread
    tolerance: float

    @property
    def change(self) -> float:
        """Merit now over merit then: below 1 is worse."""
        return self.now.median / self.then.median

    @property
    def is_worse(self) -> bool:
        """Whether it became worse beyond the tolerance, and not in the median only.

        One lucky or unlucky round must not decide: even the best fresh round is below the baseline's median.
        """
        return self.change < 1 - self.tolerance and self.now.high < self.then.median


def compare(then: Result, now: Result, rival: str, tolerance: float) -> list[Comparison]:
    """Every row that both runs have with that rival, without the fickle ones."""
    baseline = {row.key: row for row in then.rows}
    found = []
    for row in now.rows:
        if _TOO_FICKLE.search(row.key):
            continue
        before = baseline.get(row.key)
        merit_then = before.merit(rival) if before is not None else None
        merit_now = row.merit(rival)
        if merit_then is not None and merit_now is not None:
            found.append(Comparison(f"{row.group}: {row.label}", merit_then, merit_now, tolerance))
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks check`."""
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE", help="what to compare with")
    parser.add_argument("--run", type=Path, metavar="FILE", help="compare this run instead of a fresh one")
    parser.add_argument("--against", default="wireguard-go", metavar="NAME", help="the rival (wireguard-go)")
    parser.add_argument("--cells", default="tcp1,tcp1r,udp64", metavar="NAMES", help="loads (tcp1,tcp1r,udp64)")
    parser.add_argument("--mtu", default="1420", metavar="NUMBERS", help="inner MTUs (1420)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="length of one load (2)")
    parser.add_argument("--tolerance", type=float, default=0.15, metavar="T", help="part that may be lost (0.15)")


def run(options: argparse.Namespace) -> Result:
    """Measure, compare, print.

    Raises:
        SystemExit: with status 1 when something became worse, or nothing could be compared.
    """
    then = Result.load(options.baseline)
    now = Result.load(options.run) if options.run else tunnel.run(options)
    compared = compare(then, now, options.against, options.tolerance)
    if not compared:
        raise SystemExit(f"{options.baseline} and the run have no row with {options.against} in common")
    print(verdict(compared, has_colour=report.wants_colour(sys.stdout)))
    if any(one.is_worse for one in compared):
        raise SystemExit(1)
    return now


def verdict(compared: list[Comparison], *, has_colour: bool) -> str:
    """One line per row."""
    width = max(len(one.label) for one in compared)
    lines = []
    for one in compared:
        word, colour = ("WORSE", "\x1b[31m") if one.is_worse else ("fine", "\x1b[32m")
        painted = f"{colour}{word}\x1b[0m" if has_colour else word
        lines.append(
            f"{one.label:<{width}}  merit then {_TIMES}{one.then.median:.2f}, now {_TIMES}{one.now.median:.2f} "
            f"({one.now.low:.2f}-{one.now.high:.2f})  {one.change - 1:+.0%}  {painted}"
        )
    return "\n".join(lines)
