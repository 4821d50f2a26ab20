"""`python -m benchmarks NAME`: one entry for all measurements.

Each run shows a progress bar, prints a table, and writes JSON and a chart (SVG and PNG) beside it.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import pstats
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import chart, report
from benchmarks.host import REPOSITORY
from benchmarks.load import LoadFailed
from benchmarks.readme import RESULTS, renew
from tests.e2e.lab import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.samples import Result

NAMES: Final = {
    "tunnel": "daemons in two namespaces, against other implementations: throughput, packets, RTT, CPU, memory",
    "kernel": "against the Linux kernel's WireGuard, everyone inside one emulated guest",
    "handshake": "handshakes per second of the engine in memory, alone and in a storm; refusals per second",
    "flood": "a tunnel under a flood of handshake messages: throughput and pings, calm and flooded in turn",
    "netstack": "the userspace TCP/IP stack: in memory, through WireGuard, against gVisor and Linux",
    "hub": "the hub: pages, live changes, kubectl through the tunnel, a thousand edges, broken streams",
    "scale": "what grows with the number of peers: memory, CPU, wg show, wg setconf, AllowedIPs up to a million",
    "crypto": "what each primitive costs",
    "long": "a steady stream for an hour: loss, rekeys, growth of memory",
    "steps": "where a packet's time goes, from the running daemons",
    "check": "compare with benchmarks/results by ratio to wireguard-go; status 1 when worse",
}
# These measure this very process, so that a profile of it says something.
IN_MEMORY: Final = ("handshake", "scale", "crypto")
OUTPUT: Final = REPOSITORY / "build/benchmarks"
_ROUNDS: Final = 3
_INTERRUPTED: Final = 130
# `all` is what `make bench` runs, about half an hour: each with moderate options.
ALL: Final = (
    ("tunnel", "--rounds", "3", "--seconds", "2"),
    ("netstack", "--rounds", "3"),
    ("handshake", "--rounds", "3"),
    ("crypto", "--rounds", "3"),
    ("scale", "--rounds", "1"),
    ("steps", "--rounds", "2"),
    ("kernel", "--rounds", "3"),
    ("long", "--minutes", "5"),
)
_EXAMPLES: Final = """examples:
  python -m benchmarks tunnel --against wireguard-go --cells tcp1 --mtu 1420 --seconds 2 --rounds 5
  python -m benchmarks tunnel --against wgpy@../other-checkout --cells tcp1,udp64
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, summary in NAMES.items():
        child = names.add_parser(name, help=summary, description=summary)
        child.add_argument("--json", type=Path, metavar="FILE", help=f"where to write (build/benchmarks/{name}.json)")
        child.add_argument("--rounds", type=_positive, default=_ROUNDS, metavar="N", help=f"how often ({_ROUNDS})")
        if name in IN_MEMORY:
            child.add_argument("--profile", action="store_true", help="print where the time goes (cProfile)")
        importlib.import_module(f"benchmarks.{name}").add_arguments(child)
    everything = "each of them with moderate options, about half an hour"
    child = names.add_parser("all", help=everything, description=everything)
    child.add_argument("--keep", action="store_true", help="write into benchmarks/results and renew the README there")
    return parser


def run_all(*, keep: bool) -> int:
    """One benchmark after another; one that this machine cannot run does not stop the others."""
    status = 0
    for argv in ALL:
        try:
            status = max(status, main([*argv, *(["--json", str(RESULTS / f"{argv[0]}.json")] if keep else [])]))
        except SystemExit as left:
            print(f"{argv[0]} is left out: {left}", file=sys.stderr)
            status = 1
        if status == _INTERRUPTED:
            break
    if keep:
        renew()
    return status


def _run(options: argparse.Namespace) -> Result:
    run: Callable[[argparse.Namespace], Result] = importlib.import_module(f"benchmarks.{options.name}").run
    if not getattr(options, "profile", False):
        return run(options)
    profiler = cProfile.Profile()
    result = profiler.runcall(run, options)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    result.note("the profiler ran: every figure is too slow")
    return result


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a number of rounds: at least 1")
    return number


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark; the exit status."""
    options = build_parser().parse_args(argv)
    if options.name == "all":
        return run_all(keep=options.keep)
    # Namespaces and daemons are taken down on the way out, whoever ends us.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        result = _run(options)
    except KeyboardInterrupt:
        print("\nstopped; everything that was started has been ended", file=sys.stderr)
        return _INTERRUPTED
    except (LoadFailed, CommandFailed) as failed:
        raise SystemExit(f"{options.name} cannot go on: {failed}") from None
    report.print_result(result)
    path: Path = options.json or OUTPUT / f"{options.name}.json"
    result.save(path)
    files = [path]
    try:
        files += chart.draw(result, path)
    except chart.ChartMissing as missing:
        print(missing, file=sys.stderr)
    print(f"written: {', '.join(str(_short(file)) for file in files)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
