"""Where a packet's time goes, from the running daemons: the table of steps, per full segment and per batch.

Two daemons with WGPY_PROFILE=1 carry one TCP stream; each says on standard error, when it ends, how often it did what
and how long it took: `profile: STEP | CALLS | MICROSECONDS | PER CALL` (wgpy.runtime.profile).
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import contenders, host
from benchmarks.load import Pair
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result
from benchmarks.tunnel import require_machine
from tests.e2e.lab import open_lab

_LINE: Final = re.compile(r"^profile: (.+?) \| (\d+) \| (\d+) \| [\d.]+$", re.MULTILINE)
# What TCP leaves of the MTU: IPv4, TCP and its timestamps.
_HEADERS: Final = 52


class Step(NamedTuple):
    """What one step took in one daemon.

    Attributes:
        name: as the daemon calls it.
        calls: how often: once per batch.
        microseconds: of all calls together.
    """

    name: str
    calls: int
    microseconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks steps`."""
    parser.add_argument("--mtu", type=int, default=1420, help="inner MTU (1420)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="length of the stream (5)")
    parser.add_argument("--streams", type=int, default=1, metavar="N", help="TCP streams at once (1)")


def run(options: argparse.Namespace) -> Result:
    """Measure.

    Raises:
        SystemExit: the daemons print no profile.
    """
    require_machine()
    result = Result("steps", host.describe())
    result.options = {name: getattr(options, name) for name in ("rounds", "mtu", "seconds", "streams")}
    progress = Progress(options.rounds)
    try:
        for number in range(options.rounds):
            progress.show(f"round {number + 1}")
            segments, sides = profile(options.mtu, options.seconds, options.streams)
            for side, steps in sides.items():
                add_steps(result, side, steps, segments)
            progress.step()
    finally:
        progress.close()
    result.note("the clock itself takes part: read the proportions, and take speed from `tunnel`")
    return result


def profile(mtu: int, seconds: float, streams: int) -> tuple[float, dict[str, list[Step]]]:
    """One stream through two fresh daemons.

    Returns:
        How many full segments arrived, and the steps of the daemon that sent them and of the one that received them.
    """
    with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
        pair = Pair(lab, contenders.find(OURS), mtu=mtu, env={"WGPY_PROFILE": "1"})
        flow = pair.iperf("-P", str(streams), seconds=seconds)
        found = {}
        for side, end in (("sender", pair.left), ("receiver", pair.right)):
            assert end.process is not None, "wgpy is a process"
            end.process.stop()
            found[side] = read_profile(end.process.output)
            if not found[side]:
                raise SystemExit("the daemon printed no profile: this wgpy does not know WGPY_PROFILE")
    return flow.octets / (mtu - _HEADERS), found


def read_profile(text: str) -> list[Step]:
    """The steps in a daemon's output, in packet order."""
    return [Step(name, int(calls), float(total)) for name, calls, total in _LINE.findall(text)]


def add_steps(result: Result, side: str, steps: list[Step], segments: float) -> None:
    """One round of one daemon: each step per segment that arrived, and per call."""
    group = f"{side}, per segment"
    everything = Step("everything", 0, sum(step.microseconds for step in steps))
    for step in (*steps, everything):
        row = result.row(f"{side}/{step.name}/segment", step.name, "µs", is_more_better=False, group=group)
        row.add(OURS, step.microseconds / segments)
    for step in steps:
        if step.calls:
            group = f"{side}, per call"
            row = result.row(f"{side}/{step.name}/call", step.name, "µs", is_more_better=False, group=group)
            row.add(OURS, step.microseconds / step.calls)
