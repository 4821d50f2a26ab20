"""Real daemons in two network namespaces joined by veth, each rival the same way, taking turns.

    iperf3 -c, ping ── left: daemon ═══ veth ═══ right: daemon ── iperf3 -s

Every contender has its own pair of namespaces and lives through the whole run, so that turns can change quickly: for
each cell of each round everyone is measured before the next cell begins, in an order that rotates by one per round.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from benchmarks import contenders, host
from benchmarks.contenders import Contender, Missing
from benchmarks.load import Loadable, LoadFailed, Pair, percentile
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result
from tests.e2e.lab import open_lab
from tests.machine import GROUPS, why_missing

T = TypeVar("T")

DEFAULT_RIVALS: Final = ("wireguard-go", "boringtun", "gotatun")
_PINGS: Final = 200


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number that a cell yields.

    Attributes:
        key: what it is called in the key of the row.
        label: what it adds to the label of the cell.
        unit: of the number.
        is_more_better: whether a greater one is better.
    """

    key: str
    label: str
    unit: str
    is_more_better: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """One load: for a pair and a length in seconds, one number per quantity."""

    label: str
    quantities: tuple[Quantity, ...]
    run: Callable[[Loadable, float], list[float | None]]


def _tcp(label: str, *options: str) -> Cell:
    def run(pair: Loadable, seconds: float) -> list[float | None]:
        flow = pair.iperf(*options, seconds=seconds)
        return [flow.gigabits_per_second, flow.cpu_per_gigabyte]

    quantities = (Quantity("rate", "", "Gbit/s", True), Quantity("cpu", ", CPU", "s/GB", False))
    return Cell(label, quantities, run)


def _udp(size: int) -> Cell:
    def run(pair: Loadable, seconds: float) -> list[float | None]:
        flow = pair.iperf("-u", "-b", "0", "-l", str(size), seconds=seconds)
        return [flow.packets / flow.seconds, flow.cpu_per_packet_us]

    quantities = (Quantity("rate", "", "packets/s", True), Quantity("cpu", ", CPU", "µs/packet", False))
    return Cell(f"UDP {size} octets, arrived", quantities, run)


def _ping(label: str, *, is_busy: bool) -> Cell:
    def run(pair: Loadable, seconds: float) -> list[float | None]:
        # 10 ms between echo requests: the stream has to outlast them.
        with pair.busy(2 * _PINGS * 0.01 + seconds) if is_busy else contextlib.nullcontext():
            trips = pair.ping(_PINGS)
        return [percentile(trips, 0.5), percentile(trips, 0.99)]

    return Cell(label, (Quantity("p50", ", p50", "µs", False), Quantity("p99", ", p99", "µs", False)), run)


CELLS: Final = {
    "tcp1": _tcp("TCP, 1 stream"),
    "tcp1r": _tcp("TCP, 1 stream, reverse", "-R"),
    "tcp8": _tcp("TCP, 8 streams", "-P", "8"),
    "tcp8r": _tcp("TCP, 8 streams, reverse", "-P", "8", "-R"),
    "udp1372": _udp(1372),
    "udp64": _udp(64),
    "ping": _ping("RTT, idle", is_busy=False),
    "pingload": _ping("RTT, under load", is_busy=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks tunnel`."""
    parser.add_argument(
        "--against",
        default=",".join(DEFAULT_RIVALS),
        metavar="NAMES",
        help=f"rivals, of {', '.join(contenders.NAMES[1:])} and wgpy@FOLDER ({','.join(DEFAULT_RIVALS)}); '' for none",
    )
    parser.add_argument("--cells", default=",".join(CELLS), metavar="NAMES", help=f"loads ({','.join(CELLS)})")
    parser.add_argument("--mtu", default="1420,8920", metavar="NUMBERS", help="inner MTUs (1420,8920)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="length of one load (3)")


def run(options: argparse.Namespace) -> Result:
    """Measure.

    Raises:
        SystemExit: the machine cannot do it, or the options make no sense; says why.
    """
    require_machine()
    cells = options.cells.split(",")
    if unknown := [name for name in cells if name not in CELLS]:
        raise SystemExit(f"no cell is called {unknown[0]!r}: choose from {', '.join(CELLS)}")
    mtus = [int(text) for text in options.mtu.split(",")]
    result = Result("tunnel", host.describe())
    result.options = {"rounds": options.rounds, "seconds": options.seconds}
    known = find_all(result, [OURS, *filter(None, options.against.split(","))])
    progress = Progress(len(mtus) * options.rounds * len(cells) * len(known))
    try:
        for mtu in mtus:
            # A lab per MTU: its daemons end before the next ones start.
            with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
                progress.show(f"starting the daemons, MTU {mtu}")
                pairs = [Pair(lab, contender, mtu=min(mtu, contender.max_mtu)) for contender in known]
                for pair in pairs:
                    if pair.mtu != mtu:
                        result.note(f"{pair.name} ran with MTU {pair.mtu} in the rows of {mtu}: its limit")
                measure(result, pairs, cells, mtu, options, progress)
    finally:
        progress.close()
    return result


def require_machine() -> None:
    """Check that namespaces, TUN interfaces and the usual tools are there.

    Raises:
        SystemExit: they are not; says why and how to mend it.
    """
    for group in ("root", "tun", "netns", "tools"):
        if missing := why_missing(group):
            raise SystemExit(f"{missing}\n  to mend it: {GROUPS[group].how}")


def find_all(result: Result, names: list[str]) -> list[Contender]:
    """Those that are here; for the others a note, and on standard error how to get them.

    Raises:
        SystemExit: nobody has that name.
    """
    found = []
    if unknown := [name for name in names if not contenders.is_known(name)]:
        raise SystemExit(f"nobody is called {unknown[0]!r}: choose from {', '.join(contenders.NAMES)}, or wgpy@FOLDER")
    for name in names:
        try:
            contender = contenders.find(name)
        except Missing as missing:
            print(f"{name} is left out: {missing}", file=sys.stderr)
            result.note(f"{name} was left out: {str(missing).splitlines()[0]}")
            continue
        found.append(contender)
        result.machine[contender.name] = contender.version
    result.contenders = [contender.name for contender in found]
    return found


def measure(
    result: Result, pairs: list[Pair], cells: list[str], mtu: int, options: argparse.Namespace, progress: Progress
) -> None:
    """All rounds of one MTU."""
    for number in range(options.rounds):
        for cell in cells:
            for pair in rotated(pairs, number):
                progress.show(f"MTU {mtu}, round {number + 1}: {cell}, {pair.name}")
                take(result, pair, cell, mtu, options.seconds)
                progress.step()
        for pair in pairs:
            row = result.row(f"{mtu}/memory", "peak memory", "MB", is_more_better=False, group=f"MTU {mtu}")
            peak = pair.peak_octets()
            row.add(pair.name, None if peak is None else peak / 1e6)


def rotated(pairs: Sequence[T], number: int) -> list[T]:
    """The contenders in the order of that round: nobody is always first, or always after the same rival."""
    first = number % len(pairs)
    return [*pairs[first:], *pairs[:first]]


def take(result: Result, pair: Loadable, name: str, mtu: int, seconds: float) -> None:
    """One load of one pair, into the rows of its cell."""
    cell = CELLS[name]
    values: list[float | None]
    try:
        values = cell.run(pair, seconds)
    except (LoadFailed, AssertionError) as error:
        result.note(f"failed: MTU {mtu}, {name}: {error}")
        values = [None] * len(cell.quantities)
    for quantity, value in zip(cell.quantities, values, strict=True):
        row = result.row(
            f"{mtu}/{name}/{quantity.key}",
            f"{cell.label}{quantity.label}",
            quantity.unit,
            is_more_better=quantity.is_more_better,
            group=f"MTU {mtu}",
        )
        row.add(pair.name, value)
