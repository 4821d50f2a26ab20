"""A steady stream for an hour: throughput by the minute, rekeys on the way, lost packets, and whether memory grows.

A UDP stream at a steady rate below what the machine can carry goes through one pair of wgpy daemons. Every 120 seconds
the session is renewed, and none of that may cost a packet. Resident memory is read every minute.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import contenders, host
from benchmarks.load import LoadFailed, Pair
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result
from benchmarks.tunnel import require_machine
from tests.e2e.lab import open_lab

_SIZE: Final = 1372


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks long`."""
    parser.add_argument("--minutes", type=int, default=60, metavar="M", help="how long (60)")
    parser.add_argument("--megabits", type=float, default=50.0, metavar="R", help="rate, Mbit/s (50)")


def run(options: argparse.Namespace) -> Result:
    """Measure; one minute is one round."""
    require_machine()
    result = Result("long", host.describe())
    result.over = "minute"
    result.options = {"minutes": options.minutes, "megabits": options.megabits}
    contender = contenders.find(OURS)
    progress = Progress(options.minutes)
    memory: list[tuple[float, float]] = []
    try:
        with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
            pair = Pair(lab, contender, mtu=1420)
            renewed = 0
            for number in range(options.minutes):
                progress.show(f"minute {number + 1}")
                before = pair.left.latest_handshake(pair.right)
                measure_minute(result, pair, number, options.megabits, memory)
                renewed += pair.left.latest_handshake(pair.right) != before
                progress.step()
    finally:
        progress.close()
    row = result.row("slope", "growth of both daemons together", "MB/hour", is_more_better=False, group="memory")
    row.add(OURS, slope(memory) * 3600 / 1e6)
    lost = [value for value in result.row("lost", "", "").samples.get(OURS, []) if value is not None]
    row = result.row("lost/total", "packets lost, all in all", "packets", is_more_better=False, group="in all")
    row.add(OURS, sum(lost))
    result.row("rekeys", "minutes in which the session was renewed", "minutes", group="in all").add(OURS, renewed)
    return result


def measure_minute(result: Result, pair: Pair, number: int, megabits: float, memory: list[tuple[float, float]]) -> None:
    """One minute of the stream; resident memory at its end."""
    # The seconds before and after the stream belong to the minute, so the stream itself is a little shorter.
    try:
        flow = pair.iperf("-u", "-b", f"{megabits:g}M", "-l", str(_SIZE), seconds=59)
    except LoadFailed as failed:
        result.note(f"minute {number + 1}: {failed}")
        return
    group = "throughput and loss"
    result.row("rate", "throughput", "Mbit/s", group=group).add(OURS, flow.gigabits_per_second * 1000)
    lost = result.row("lost", "packets lost per minute", "packets", is_more_better=False, group=group)
    lost.add(OURS, flow.lost)
    result.row("packets", "packets that arrived per minute", "packets", group=group).add(OURS, flow.packets)
    result.row("cpu", "CPU of both daemons", "µs/packet", is_more_better=False, group=group).add(
        OURS, flow.cpu_per_packet_us
    )
    resident = sum(end.process.status("VmRSS") * 1024 for end in (pair.left, pair.right) if end.process)
    memory.append((time.monotonic(), resident))
    row = result.row("resident", "resident set of both daemons", "MB", is_more_better=False, group="memory")
    row.add(OURS, resident / 1e6)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line through the points, by least squares; 0 for fewer than three.

    The first fifth is left out: buffers and caches fill then, and growth that ends is no leak.
    """
    later = points[len(points) // 5 :]
    if len(later) < 3:
        return 0.0
    return statistics.linear_regression([x for x, _ in later], [y for _, y in later]).slope
