"""wgpy's own TCP/IP stack: alone in memory, through WireGuard to itself, and to Linux behind wireguard-go.

Beside it stand gVisor's stack in a Go program on wireguard-go's `tun/netstack`, and Linux itself with wireguard-go on
both sides. For each cell of each round everyone is measured before the next cell begins, in an order that rotates by
one per round. What arrives is compared with what was sent by SHA-256, in every cell: see `ends.py`; where everything
runs is drawn in `stacks.py`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import host, netstack_memory, stacks
from benchmarks.contenders import Missing
from benchmarks.load import LoadFailed
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result, ratios
from benchmarks.stacks import RTT_MS, Site
from benchmarks.tunnel import require_machine, rotated
from tests.e2e.lab import open_lab

_MEMORY: Final = "in memory, two stacks, one direction"
_OWN: Final = "to a stack of its own kind, two processes"
_NEAR: Final = "to Linux behind wireguard-go"
_FAR: Final = f"to Linux, {RTT_MS:g} ms away"
_TRIPS: Final = 300


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number that a cell yields.

    Attributes:
        key: what it is called in the key of the row.
        label: of the row.
        unit: of the number.
        value: finds it in what a client reports, given what the client was told.
        is_more_better: whether a greater one is better.
    """

    key: str
    label: str
    unit: str
    value: Callable[[dict[str, Any], int], float]
    is_more_better: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """One load.

    Attributes:
        group: the heading that it stands under.
        path: of `stacks.Site`.
        verb: of `ends`.
        number: what the client is told, out of the options.
        quantities: what comes of it.
    """

    group: str
    path: str
    verb: str
    number: Callable[[argparse.Namespace], int]
    quantities: tuple[Quantity, ...]


def _megabits(report: dict[str, Any], octets: int) -> float:
    return octets * 8e-6 / float(report["seconds"])


def _rate(report: dict[str, Any], _: int) -> float:
    return float(report["rate"])


def _stream(group: str, path: str, verb: str, label: str, share: float) -> Cell:
    quantity = Quantity("rate", label, "Mbit/s", _megabits)
    return Cell(group, path, verb, lambda options: max(1, int(options.megabytes * share * 1e6)), (quantity,))


def _trips(group: str, path: str, label: str, unit: str, ending: str, value: Callable[[float], float]) -> Cell:
    quantities = tuple(
        Quantity(name, f"{label}, {name}{ending}", unit, lambda report, _, name=name: value(report[name]), False)  # type: ignore[misc]
        for name in ("p50", "p99")
    )
    return Cell(group, path, "trips", lambda _: _TRIPS, quantities)


def _connects(group: str, path: str) -> Cell:
    quantity = Quantity("rate", "connections opened and closed", "1/s", _rate)
    return Cell(group, path, "connects", lambda options: int(options.seconds), (quantity,))


def _memory(end: str, label: str) -> Quantity:
    return Quantity(end, label, "MB", lambda report, _: float(report[end]) / 1e6, False)


CELLS: Final = {
    "own-send": _stream(_OWN, "own", "upload", "TCP, 1 stream", 1),
    "own-trips": _trips(_OWN, "own", "1 KB there and back", "ms", "", lambda seconds: seconds * 1e3),
    "own-connects": _connects(_OWN, "own"),
    "own-udp": Cell(
        _OWN,
        "own",
        "datagrams",
        lambda options: int(options.seconds),
        (Quantity("rate", "UDP datagrams of 1,400 octets, arrived", "1/s", _rate),),
    ),
    "own-idle": Cell(
        _OWN,
        "own",
        "idle",
        lambda options: int(options.connections),
        (
            _memory("here", "resident set with idle connections, client"),
            _memory("there", "resident set with idle connections, server"),
        ),
    ),
    "download": _stream(_NEAR, "near", "download", "download, 1 stream", 1),
    "upload": _stream(_NEAR, "near", "upload", "upload, 1 stream", 1),
    "trips": _trips(_NEAR, "near", "1 KB there and back", "ms", "", lambda seconds: seconds * 1e3),
    "connects": _connects(_NEAR, "near"),
    "far-download": _stream(_FAR, "far", "download", "download, clean", 0.5),
    "far-upload": _stream(_FAR, "far", "upload", "upload, clean", 0.5),
    "late-download": _stream(_FAR, "late", "download", "download, 2 % up to 3 ms late", 0.5),
    "late-upload": _stream(_FAR, "late", "upload", "upload, 2 % up to 3 ms late", 0.5),
    "lossy-download": _stream(_FAR, "lossy", "download", "download, 1 % lost", 0.05),
    "lossy-upload": _stream(_FAR, "lossy", "upload", "upload, 1 % lost", 0.05),
    "far-trips": _trips(
        _FAR, "far", "1 KB there and back", "ms", " beyond the RTT", lambda seconds: seconds * 1e3 - RTT_MS
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks netstack`."""
    rivals = ",".join(stacks.NAMES[1:])
    parser.add_argument("--against", default=rivals, metavar="NAMES", help=f"rivals ({rivals}); '' for none")
    cells = ",".join(("memory", *CELLS))
    parser.add_argument("--cells", default=cells, metavar="NAMES", help=f"loads ({cells})")
    parser.add_argument("--megabytes", type=float, default=64, metavar="N", help="octets of a stream, in 10^6 (64)")
    parser.add_argument("--seconds", type=int, default=2, metavar="S", help="length of what is counted per second (2)")
    parser.add_argument("--connections", type=int, default=10_000, metavar="N", help="that are idle (10000)")


def run(options: argparse.Namespace) -> Result:
    """Measure.

    Raises:
        SystemExit: the machine cannot do it, or the options make no sense; says why.
    """
    cells = options.cells.split(",")
    if unknown := [name for name in cells if name not in ("memory", *CELLS)]:
        raise SystemExit(f"no cell is called {unknown[0]!r}: choose from memory, {', '.join(CELLS)}")
    result = Result("netstack", host.describe())
    result.options = {name: getattr(options, name) for name in ("rounds", "megabytes", "seconds", "connections")}
    if "memory" in cells:
        _measure_memory(result, options)
        cells.remove("memory")
    if not cells:
        return result
    require_machine()
    found = _find_all(result, [OURS, *filter(None, options.against.split(","))])
    progress = Progress(options.rounds * len(cells) * len(found))
    try:
        with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
            progress.show("starting servers and relays")
            sites = [Site(lab, stack) for stack in found]
            for number in range(options.rounds):
                for cell in cells:
                    for site in rotated(sites, number):
                        progress.show(f"round {number + 1}: {cell}, {site.stack.name}")
                        _take(result, site, cell, options)
                        progress.step()
    finally:
        progress.close()
    _compare_late_and_clean(result)
    return result


def _find_all(result: Result, names: list[str]) -> list[stacks.Stack]:
    if unknown := [name for name in names if name not in stacks.NAMES]:
        raise SystemExit(f"nobody is called {unknown[0]!r}: choose from {', '.join(stacks.NAMES)}")
    found = []
    for name in names:
        try:
            found.append(stacks.find(name))
        except Missing as missing:
            print(f"{name} is left out: {missing}", file=sys.stderr)
            result.note(f"{name} was left out: {str(missing).splitlines()[0]}")
            continue
        result.machine[name] = found[-1].version
    result.contenders = [stack.name for stack in found]
    return found


def _measure_memory(result: Result, options: argparse.Namespace) -> None:
    megabytes = max(1, int(options.megabytes))
    for _ in range(options.rounds):
        found = netstack_memory.measure(megabytes)
        row = result.row("memory/send", "sending, MTU 1420", "Mbit/s", group=_MEMORY)
        row.add(OURS, found.send_mbit)
        row = result.row("memory/receive", "receiving, MTU 1420", "Mbit/s", group=_MEMORY)
        row.add(OURS, found.receive_mbit)
        row = result.row("memory/connects", "connections opened and closed, both ends", "1/s", group=_MEMORY)
        row.add(OURS, netstack_memory.connects_per_second(options.connections // 10 or 1))
    result.note("in memory: per second of CPU time of one thread; the other end is not counted but where it says so")


def _take(result: Result, site: Site, name: str, options: argparse.Namespace) -> None:
    """One load of one contender, into the rows of its cell."""
    cell = CELLS[name]
    if cell.path == "own" and site.stack.name == "linux":
        return  # Linux on both sides is what it is measured with in the other groups
    number = cell.number(options)
    report: dict[str, Any] | None
    try:
        report = site.run(cell.path, cell.verb, number)
    except LoadFailed as failed:
        result.note(f"failed: {name}: {failed}")
        report = None
    for quantity in cell.quantities:
        row = result.row(
            f"{name}/{quantity.key}",
            quantity.label,
            quantity.unit,
            is_more_better=quantity.is_more_better,
            group=cell.group,
        )
        row.add(site.stack.name, None if report is None else quantity.value(report, number))


def _compare_late_and_clean(result: Result) -> None:
    """What disorder leaves of the rate without it, round by round."""
    rows = {row.key: row for row in result.rows}
    for verb in ("download", "upload"):
        clean, late = rows.get(f"far-{verb}/rate"), rows.get(f"late-{verb}/rate")
        if clean is None or late is None:
            continue
        row = result.row(f"late-{verb}/share", f"{verb}, late / clean", "", group=_FAR)
        for name in result.contenders:
            for share in ratios(late.samples[name], clean.samples[name]):
                row.add(name, share)
