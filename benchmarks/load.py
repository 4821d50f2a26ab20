"""The loads: iperf3 and ping between two namespaces, and what they cost the daemons in between.

client side ── BenchEnd ═ veth ═ BenchEnd ── server side
iperf3 -c, ping                 iperf3 -s
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from tests.e2e.daemons import LEFT, RIGHT, connect
from tests.e2e.lab import Lab, Process, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from benchmarks.contenders import Contender

# What a run may take beyond its own length: iperf3 waits for its last words across a full queue.
_GRACE: Final = 30.0
_ECHO: Final = re.compile(r"time=([\d.]+) ms")


class LoadFailed(Exception):
    """A load did not come to its end; the round has no value."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What an iperf3 run reached.

    Attributes:
        octets: payload that arrived.
        seconds: how long it took.
        packets: datagrams that arrived; 0 for TCP.
        lost: datagrams that were sent and did not arrive; 0 for TCP.
        cpu: user and system seconds of both daemons meanwhile; None for the kernel.
    """

    octets: int
    seconds: float
    packets: int
    lost: int
    cpu: float | None

    @property
    def gigabits_per_second(self) -> float:
        """Payload rate."""
        return self.octets * 8e-9 / self.seconds

    @property
    def cpu_per_gigabyte(self) -> float | None:
        """CPU seconds per 1e9 octets of payload."""
        return None if self.cpu is None or not self.octets else self.cpu / self.octets * 1e9

    @property
    def cpu_per_packet_us(self) -> float | None:
        """CPU microseconds per datagram that arrived."""
        return None if self.cpu is None or not self.packets else self.cpu / self.packets * 1e6


def read_flow(report: dict[str, Any], cpu: float | None) -> Flow:
    """Turn iperf3's JSON report into a `Flow`.

    Raises:
        LoadFailed: iperf3 reports an error.
    """
    if problem := report.get("error"):
        raise LoadFailed(f"iperf3: {problem}")
    end = report["end"]
    if report["start"]["test_start"]["protocol"] == "TCP":
        received = end["sum_received"]
        return Flow(received["bytes"], received["seconds"], 0, 0, cpu)
    total = end["sum"]
    arrived = total["packets"] - total["lost_packets"]
    return Flow(
        arrived * report["start"]["test_start"]["blksize"], total["seconds"], arrived, total["lost_packets"], cpu
    )


def percentile(values: list[float], fraction: float) -> float:
    """The value below which that fraction of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


class Loadable(Protocol):
    """Two connected ends, wherever they are, and the loads that they take."""

    @property
    def name(self) -> str:
        """The contender, as in tables."""

    def iperf(self, *options: str, seconds: float) -> Flow:
        """See `Pair.iperf`."""
        ...

    def ping(self, count: int) -> list[float]:
        """See `Pair.ping`."""
        ...

    def busy(self, seconds: float) -> AbstractContextManager[None]:
        """See `Pair.busy`."""
        ...


class Pair:
    """Two ends of one contender, cabled and connected, with an iperf3 server behind the right one."""

    def __init__(self, lab: Lab, contender: Contender, *, mtu: int, env: dict[str, str] | None = None) -> None:
        """Start the daemons and complete a handshake.

        Args:
            lab: takes everything down again.
            contender: whose daemon, on both ends.
            mtu: inner; the cable carries as much more as it needs.
            env: more environment for the daemons.
        """
        self.lab = lab
        self.name = contender.name
        self.mtu = mtu
        left, right = lab.namespace("left"), lab.namespace("right")
        ends = lab.cable(left, right)
        for namespace, cable_end, own in ((left, ends[0], LEFT), (right, ends[1], RIGHT)):
            namespace.address(cable_end, f"{own.outer4}/24", f"{own.outer6}/64")
            namespace.ip("link", "set", cable_end, "mtu", str(max(1500, mtu + 80)))
        self.left = contender.start(lab, left, env)
        self.right = contender.start(lab, right, env)
        connect(self.left, self.right, mtu=mtu)
        eventually(f"{contender.name} carries a ping", lambda: self.left.ping(RIGHT.inner4, limit=2))
        self._server = self._serve()

    def _serve(self) -> Process:
        server = self.right.namespace.spawn("iperf3", "-s", "--forceflush")
        eventually("iperf3 listens", lambda: "listening" in server.output)
        return server

    def cpu_seconds(self) -> float | None:
        """User and system seconds of both daemons so far."""
        here, there = self.left.cpu_seconds(), self.right.cpu_seconds()
        return None if here is None or there is None else here + there

    def peak_octets(self) -> float | None:
        """The greater of the two peaks of resident memory."""
        here, there = self.left.peak_octets(), self.right.peak_octets()
        return None if here is None or there is None else max(here, there)

    def iperf(self, *options: str, seconds: float) -> Flow:
        """One iperf3 run from left to right.

        Raises:
            LoadFailed: it did not come to an end.
        """
        before = self.cpu_seconds()
        argv = self.left.namespace.argv(
            *("iperf3", "-c", RIGHT.inner4, "-t", f"{seconds:g}", "-J", "--connect-timeout", "5000", *options)
        )
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=seconds + _GRACE
            )
            after = self.cpu_seconds()
            cpu = None if before is None or after is None else after - before
            return read_flow(json.loads(done.stdout), cpu)
        except (subprocess.TimeoutExpired, json.JSONDecodeError, LoadFailed) as error:
            # The server may still be busy with the run that failed.
            self._server.stop()
            self._server = self._serve()
            raise LoadFailed(f"{self.name}: {error}") from None

    def ping(self, count: int) -> list[float]:
        """Round trip times in microseconds.

        Raises:
            LoadFailed: nothing was answered.
        """
        argv = self.left.namespace.argv("ping", "-n", "-c", str(count), "-i", "0.01", "-W", "2", RIGHT.inner4)
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=count * 0.05 + _GRACE)
        trips = [float(text) * 1000 for text in _ECHO.findall(done.stdout)]
        if not trips:
            raise LoadFailed(f"{self.name}: no echo reply: {done.stdout[-200:]}{done.stderr[-200:]}")
        return trips

    @contextlib.contextmanager
    def busy(self, seconds: float) -> Iterator[None]:
        """One TCP stream from left to right in the background."""
        process = self.left.namespace.spawn("iperf3", "-c", RIGHT.inner4, "-t", f"{seconds:g}", "--forceflush")
        eventually("the stream runs", lambda: "sec" in process.output, limit=10)
        try:
            yield
        finally:
            process.stop()
            eventually("the server is free", lambda: self._server.output.rstrip().endswith("-"), limit=10)
