"""Against the Linux kernel's own WireGuard, in an emulated guest, everyone inside the same guest.

    guest: iperf3 -c, ping ── left: WireGuard ═══ veth ═══ right: WireGuard ── iperf3 -s

Three pairs take turns: wgpy with itself, the kernel with itself, and wgpy with the kernel (`mixed`, sent by wgpy). QEMU
translates every instruction (TCG) and has no fast vector instructions: absolute figures mean nothing, and the kernel's
cipher suffers as much as ours. Read the ratios, and remember where they come from.

CPU is that of the whole guest, iperf3 included, because the kernel's work belongs to no process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import guest_image, host
from benchmarks.load import Flow, LoadFailed, read_flow
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result
from benchmarks.tunnel import CELLS, rotated, take
from tests.e2e.daemons import LEFT, RIGHT, Addresses
from tests.e2e.guest import Guest, boot_guest
from tests.e2e.lab import CommandFailed, open_lab
from tests.machine import GROUPS, find_program, guest_folder, why_missing

# Left and right end of each pair.
PAIRS: Final = {
    OURS: ("wgpy", "wgpy"),
    "kernel": ("kernel", "kernel"),
    "mixed": ("wgpy", "kernel"),
    "wireguard-go": ("wireguard-go", "wireguard-go"),
}
_CELLS: Final = "tcp1,tcp1r,tcp8,udp1372,udp64,ping,pingload"
_MTU: Final = 1420
_MEGABYTES: Final = 1536
_PATIENCE: Final = 90.0
_DAEMON: Final = "import sys; sys.argv[0] = 'wireguard-py'; from wgpy.cli import daemon_main; sys.exit(daemon_main())"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks kernel`."""
    names = ", ".join(name for name in PAIRS if name != OURS)
    parser.add_argument("--against", default="kernel,mixed", metavar="NAMES", help=f"of {names} (kernel,mixed)")
    parser.add_argument("--cells", default=_CELLS, metavar="NAMES", help=f"loads ({_CELLS})")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="length of one load (5)")


def run(options: argparse.Namespace) -> Result:
    """Boot, measure, power off.

    Raises:
        SystemExit: there is no QEMU or no guest; says how to get it.
    """
    for group in ("root", "netns", "qemu"):
        if missing := why_missing(group):
            raise SystemExit(f"{missing}\n  to mend it: {GROUPS[group].how}")
    names = [OURS, *filter(None, options.against.split(","))]
    cells = options.cells.split(",")
    if unknown := [name for name in (*names, *cells) if name not in PAIRS and name not in CELLS]:
        raise SystemExit(f"nothing is called {unknown[0]!r}: pairs {', '.join(PAIRS)}, cells {', '.join(CELLS)}")
    if "wireguard-go" in names and not find_program("wireguard-go"):
        raise SystemExit(f"{why_missing('go')}\n  to mend it: {GROUPS['go'].how}")
    result = Result("kernel", host.describe())
    result.options = {"rounds": options.rounds, "seconds": options.seconds}
    result.contenders = names
    progress = Progress(options.rounds * len(cells) * len(names))
    try:
        progress.show("building the guest's initramfs")
        with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
            image = guest_image.build(Path(folder))
            progress.show("booting the guest")
            guest = boot_guest(lab, initramfs=image, megabytes=_MEGABYTES)
            result.machine["guest"] = f"Linux {guest.release}, QEMU TCG, 2 CPUs, {_MEGABYTES} MB"
            result.machine["guest package"] = (guest_folder() / "version").read_text().strip()
            pairs = [GuestPair(guest, name, number) for number, name in enumerate(names)]
            for number in range(options.rounds):
                for cell in cells:
                    for pair in rotated(pairs, number):
                        progress.show(f"round {number + 1}: {cell}, {pair.name}")
                        take(result, pair, cell, _MTU, options.seconds)
                        progress.step()
    finally:
        progress.close()
    result.note("an emulated CPU without vector instructions: ratios within this guest only")
    result.note("CPU is that of the whole guest, iperf3 and ping included")
    result.note("mixed: wgpy on the left sends to the kernel on the right; in the reverse rows the kernel sends")
    return result


class GuestPair:
    """Two namespaces of the guest joined by veth, a WireGuard interface in each; the verbs of `load.Pair`."""

    def __init__(self, guest: Guest, name: str, number: int) -> None:
        """Make the namespaces and the interfaces and complete a handshake.

        Args:
            guest: where.
            name: of `PAIRS`.
            number: makes the names of this pair different from those of the others.
        """
        self.guest = guest
        self.name = name
        self._left, self._right = f"left{number}", f"right{number}"
        cable = f"a{number}", f"b{number}"
        guest.run(
            f"ip netns add {self._left}; ip netns add {self._right};"
            f"ip link add {cable[0]} netns {self._left} type veth peer {cable[1]} netns {self._right}"
        )
        keys = {}
        ends = ((self._left, cable[0], LEFT, PAIRS[name][0]), (self._right, cable[1], RIGHT, PAIRS[name][1]))
        for namespace, cable_end, own, implementation in ends:
            guest.run(
                f"ip -n {namespace} link set lo up; ip -n {namespace} link set {cable_end} up;"
                f"ip -n {namespace} address add {own.outer4}/24 dev {cable_end}"
            )
            keys[namespace] = self._start(namespace, f"wg{namespace}", implementation)
        for namespace, other, own, there in (
            (self._left, self._right, LEFT, RIGHT),
            (self._right, self._left, RIGHT, LEFT),
        ):
            self._connect(namespace, keys[other], own, there)
        self._wait(f"ip netns exec {self._left} ping -n -c 1 -W 5 {RIGHT.inner4}")
        guest.run(f"ip netns exec {self._right} iperf3 -s -D")

    def _start(self, namespace: str, interface: str, implementation: str) -> str:
        """Make an interface; its public key."""
        inside = f"ip netns exec {namespace}"
        if implementation == "kernel":
            self.guest.run(f"ip -n {namespace} link add {interface} type wireguard")
        elif implementation == "wireguard-go":
            self.guest.run(
                f"LOG_LEVEL=silent {inside} {guest_image.RIVAL} -f {interface} > /tmp/{interface}.log 2>&1 &"
            )
        else:
            program = f"{guest_image.PYTHON} -P -c {shlex.quote(_DAEMON)} -f {interface}"
            environment = f"PYTHONPATH={guest_image.WGPY_FOLDER} LOG_LEVEL=error"
            self.guest.run(f"{environment} {inside} {program} > /tmp/{interface}.log 2>&1 &")
        try:
            self._wait(f"{inside} wg show {interface}")
        except LoadFailed as failed:
            log = self.guest.run(f"tail -c 2000 /tmp/{interface}.log", check=False)
            raise LoadFailed(f"{failed}: {log.strip()}") from None
        return self.guest.run(
            f"umask 077; wg genkey > /tmp/{interface}.key; wg pubkey < /tmp/{interface}.key;"
            f"{inside} wg set {interface} listen-port 51820 private-key /tmp/{interface}.key"
        ).strip()

    def _connect(self, namespace: str, public_key: str, own: Addresses, there: Addresses) -> None:
        interface = f"wg{namespace}"
        self.guest.run(
            f"ip netns exec {namespace} wg set {interface} peer {public_key} allowed-ips {there.inner4}/32"
            f" endpoint {there.endpoint(4)};"
            f"ip -n {namespace} address add {own.inner4}/24 dev {interface};"
            f"ip -n {namespace} link set {interface} mtu {_MTU} up"
        )

    def _wait(self, probe: str) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                self.guest.run(probe)
                return
            except CommandFailed as failed:
                if time.monotonic() > end:
                    raise LoadFailed(f"{self.name}: still not so: {failed}") from None
                time.sleep(0.5)

    def _busy_seconds(self) -> float:
        """CPU seconds that the guest was not idle, since it was booted."""
        return busy_seconds(self.guest.run("head -1 /proc/stat"))

    def iperf(self, *options: str, seconds: float) -> Flow:
        """One iperf3 run from left to right.

        Raises:
            LoadFailed: it did not come to an end.
        """
        limit = int(seconds + 40)
        argv = f"timeout {limit} iperf3 -c {RIGHT.inner4} -t {seconds:g} -J {shlex.join(options)} 2>/dev/null"
        before = self._busy_seconds()
        out = self.guest.run(f"ip netns exec {self._left} {argv}", check=False)
        cpu = self._busy_seconds() - before
        try:
            return read_flow(json.loads(out), cpu)
        except (json.JSONDecodeError, LoadFailed) as error:
            raise LoadFailed(f"{self.name}: {error}") from None

    def ping(self, count: int) -> list[float]:
        """Round trip times in microseconds.

        Raises:
            LoadFailed: nothing was answered.
        """
        out = self.guest.run(f"ip netns exec {self._left} ping -n -c {count} -i 0.01 -W 5 {RIGHT.inner4}", check=False)
        trips = [float(text) * 1000 for text in re.findall(r"time=([\d.]+) ms", out)]
        if not trips:
            raise LoadFailed(f"{self.name}: no echo reply")
        return trips

    @contextlib.contextmanager
    def busy(self, seconds: float) -> Iterator[None]:
        """One TCP stream from left to right in the background."""
        self.guest.run(
            f"ip netns exec {self._left} iperf3 -c {RIGHT.inner4} -t {seconds:g} > /dev/null 2>&1 & echo $! > /tmp/load"
        )
        time.sleep(1)
        try:
            yield
        finally:
            self.guest.run("kill $(cat /tmp/load); sleep 1", check=False)


def busy_seconds(line: str) -> float:
    """CPU seconds that were not idle, of the first line of /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (int(word) for word in line.split()[1:])
    return (user + nice + system + irq + softirq) / 100
