"""A tunnel under a flood of handshake messages: what is left of its throughput, and of its pings.

    iperf3 -c, ping ── left: daemon ═══ veth ═══ right: daemon ── iperf3 -s
                                                    ║
                                        flooder ── 15,000 initiations a second, right mac1, 500 addresses

Calm and flooded take turns within each round, and so do the contenders: the ratio of two neighbours is what counts.
"wgpy userspace" is the same with `open_tunnel` in place of the daemon on the right, as a hub has it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import wgpy
from benchmarks import contenders, host
from benchmarks.host import REPOSITORY
from benchmarks.load import LoadFailed, Pair
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result
from benchmarks.tunnel import find_all, require_machine, rotated
from tests.e2e.daemons import LEFT, RIGHT
from tests.e2e.lab import Lab, Namespace, eventually, open_lab

if TYPE_CHECKING:
    from tests.e2e.lab import Process

_USERSPACE: Final = f"{OURS} userspace"
_FLOODER: Final = ("198.19.0.2/24", "198.19.0.1/24")
_OCTETS_AT_MOST: Final = 2**33
_GRACE: Final = 30.0
_LOSS: Final = re.compile(r"(\d+) packets transmitted, (\d+) received")
_ENV: Final = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
_PYTHON: Final = (sys.executable, "-P", "-m")


class Target(Protocol):
    """A tunnel that can be loaded, and whose right end can be flooded."""

    name: str
    right_namespace: Namespace
    left_namespace: Namespace
    public_key: str

    def rate(self, seconds: float) -> float:
        """Gbit/s of one TCP stream to the right end."""
        ...


class Daemons:
    """A daemon on both ends."""

    def __init__(self, lab: Lab, name: str) -> None:
        """Start them."""
        self._pair = Pair(lab, contenders.find(name), mtu=1420)
        self.name = name
        self.left_namespace, self.right_namespace = self._pair.left.namespace, self._pair.right.namespace
        self.public_key = self._pair.right.keys.public

    def rate(self, seconds: float) -> float:
        """See `Target.rate`."""
        return self._pair.iperf(seconds=seconds).gigabits_per_second


class Userspace:
    """A daemon on the left, and a process with a tunnel of its own on the right, as `benchmarks.ends` is one."""

    def __init__(self, lab: Lab) -> None:
        """Start them."""
        self.name = _USERSPACE
        self.left_namespace, self.right_namespace = left, right = lab.namespace("left"), lab.namespace("right")
        ends = lab.cable(left, right)
        for namespace, cable_end, own in ((left, ends[0], LEFT), (right, ends[1], RIGHT)):
            namespace.address(cable_end, f"{own.outer4}/24")
        here, there = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate()
        self.public_key = str(there.public_key)
        to_left = wgpy.PeerConfig(here.public_key, allowed_ips=[f"{LEFT.inner4}/32"])
        config = wgpy.InterfaceConfig(there, addresses=[f"{RIGHT.inner4}/24"], listen_port=51820, peers=[to_left])
        file = lab.folder / "userspace.conf"
        file.write_text(config.to_ini())
        file.chmod(0o600)
        server = right.spawn(*_PYTHON, "benchmarks.ends", str(file), "serve", env=_ENV)
        eventually("the tunnel serves", lambda: "serving" in server.output)
        daemon = contenders.find(OURS).start(lab, left)
        daemon.keys.private, daemon.keys.public = here.to_base64(), str(here.public_key)
        daemon.configure()
        daemon.add_peer(self.public_key, *RIGHT.inner, endpoint=RIGHT.endpoint(4))
        daemon.up(f"{LEFT.inner4}/24", mtu=1420)
        eventually("it carries a ping", lambda: daemon.ping(RIGHT.inner4, limit=2))

    def rate(self, seconds: float) -> float:
        """See `Target.rate`. Octets, not seconds, are what `ends` takes: enough of them, and then some."""
        octets = _OCTETS_AT_MOST
        probe = self._upload(2**24)
        octets = min(octets, int(2**24 / probe * seconds))
        return octets * 8e-9 / self._upload(octets)

    def _upload(self, octets: int) -> float:
        argv = (*_PYTHON, "benchmarks.ends", "system", "upload", RIGHT.inner4, str(octets))
        done = subprocess.run(
            self.left_namespace.argv(*argv),
            capture_output=True,
            text=True,
            check=False,
            timeout=10 * _GRACE,
            cwd=REPOSITORY,
        )
        try:
            return float(json.loads(done.stdout)["seconds"])
        except (json.JSONDecodeError, KeyError):
            raise LoadFailed(f"{self.name}: {done.stderr[-300:]}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks flood`."""
    parser.add_argument("--against", default="wireguard-go", metavar="NAMES", help="rivals (wireguard-go); '' for none")
    parser.add_argument("--rate", type=float, default=15_000, metavar="N", help="initiations a second (15000)")
    parser.add_argument("--sources", type=int, default=500, metavar="N", help="addresses that they come from (500)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="length of one load (5)")


def run(options: argparse.Namespace) -> Result:
    """Measure.

    Raises:
        SystemExit: the machine cannot do it; says why.
    """
    require_machine()
    result = Result("flood", host.describe())
    result.options = {name: getattr(options, name) for name in ("rounds", "rate", "sources", "seconds")}
    names = [one.name for one in find_all(result, [OURS, *filter(None, options.against.split(","))])]
    result.contenders.append(_USERSPACE)
    progress = Progress(options.rounds * (len(names) + 1) * 4)
    try:
        with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
            progress.show("starting the daemons")
            targets: list[Target] = [*(Daemons(lab, name) for name in names), Userspace(lab)]
            flooders = {target.name: _flooder(lab, target) for target in targets}
            for number in range(options.rounds):
                for target in rotated(targets, number):
                    progress.show(f"round {number + 1}: {target.name}")
                    _compare(result, target, flooders[target.name], options, progress)
    finally:
        progress.close()
    return result


def _flooder(lab: Lab, target: Target) -> Namespace:
    """A namespace at the other end of a second cable, in which all source addresses are local."""
    flooder = lab.namespace("flooder")
    here, there = lab.cable(flooder, target.right_namespace)
    flooder.address(here, _FLOODER[0])
    target.right_namespace.address(there, _FLOODER[1])
    flooder.ip("route", "add", "local", "198.18.0.0/16", "dev", "lo")
    flooder.ip("route", "add", "default", "via", _FLOODER[1].partition("/")[0])
    target.right_namespace.ip("route", "add", "198.18.0.0/16", "via", _FLOODER[0].partition("/")[0])
    return flooder


def _compare(
    result: Result, target: Target, flooder: Namespace, options: argparse.Namespace, progress: Progress
) -> None:
    """One turn of a target: calm, flooded, and the ratio; then pings under the flood."""

    def flood(seconds: float) -> Process:
        where = _FLOODER[1].partition("/")[0]
        return flooder.spawn(
            *(*_PYTHON, "tests.e2e.flooder", target.public_key, where, "51820"),
            *(str(options.rate), str(seconds), str(options.sources)),
            env=_ENV,
        )

    values: dict[str, float | None] = dict.fromkeys(("calm", "flooded", "share", "loss", "replies"))
    try:
        values["calm"] = target.rate(options.seconds)
        progress.step()
        process = flood(options.seconds + 2)
        values["flooded"] = target.rate(options.seconds)
        process.wait(_GRACE)
        progress.step()
        values["share"] = 100 * values["flooded"] / values["calm"]
        values["replies"] = json.loads(process.output)["replies"].get("3", 0) / (options.seconds + 2)
        process = flood(options.seconds)
        values["loss"] = _lost(target, options.seconds)
        process.wait(_GRACE)
    except LoadFailed as failed:
        result.note(f"failed: {failed}")
    progress.step()
    for key, label, unit, is_more_better in (
        ("calm", "TCP, calm", "Gbit/s", True),
        ("flooded", "TCP, flooded", "Gbit/s", True),
        ("share", "what is left", "%", True),
        ("loss", "pings lost, flooded", "%", False),
        ("replies", "cookie replies", "1/s", True),
    ):
        group = f"{options.rate:,.0f} initiations a second from {options.sources} addresses"
        result.row(key, label, unit, is_more_better=is_more_better, group=group).add(target.name, values[key])
    progress.step()


def _lost(target: Target, seconds: float) -> float:
    count = int(seconds * 100)
    argv = target.left_namespace.argv("ping", "-n", "-q", "-c", str(count), "-i", "0.01", "-W", "2", RIGHT.inner4)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10 * seconds + _GRACE)
    found = _LOSS.search(done.stdout)
    if found is None:
        raise LoadFailed(f"{target.name}: {done.stdout[-200:]}{done.stderr[-200:]}")
    return 100 * (1 - int(found[2]) / int(found[1]))
