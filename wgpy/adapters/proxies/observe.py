"""`/ready` and `/metrics` for whoever looks after a proxy: systemd, a container runtime, Prometheus.

Ready means: every door is open, and the tunnel stands. A tunnel stands once a handshake has completed and none was
given up since. An idle tunnel does not shake hands by itself, so the question makes it: where a peer was not heard
lately, an echo request is sent to it.

Source: sd_notify(3); Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import trio

from wgpy import foreign
from wgpy.adapters.net import DIAL_ERRORS
from wgpy.adapters.proxies.gate import Refused
from wgpy.adapters.proxies.reading import BufferedStream
from wgpy.constants import REJECT_AFTER_TIME
from wgpy.protocol.events import HandshakeCompleted, HandshakeGaveUp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wgpy.adapters.net import Net
    from wgpy.adapters.proxies.gate import Gate
    from wgpy.config import InterfaceConfig, PeerConfig
    from wgpy.keys import PublicKey
    from wgpy.protocol.statistics import EngineStatistics
    from wgpy.runtime.device import Device

__all__ = ["Observer", "notify_systemd", "watch_systemd"]

_LONGEST_WATCHDOG: Final = 10**15
_LARGEST_HEAD: Final = 8192
_ECHO_TIMEOUT: Final = 5.0


def notify_systemd(message: str) -> None:
    """Tell the service manager, if there is one, `READY=1` and the like."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        door.sendto(message.encode(), address)


async def watch_systemd() -> None:
    """Be alive twice per WatchdogSec, if the service manager asks for it."""
    period = os.environ.get("WATCHDOG_USEC", "")
    if not period or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    microseconds = foreign.decimal(period, _LONGEST_WATCHDOG, least=1, field="WATCHDOG_USEC")
    while True:
        notify_systemd("WATCHDOG=1")
        await trio.sleep(microseconds / 2e6)


def _some_host(peer: PeerConfig, config: InterfaceConfig) -> str | None:
    """An address that the peer is asked at; never one of ours, which we would answer ourselves."""
    ours = {ipaddress.ip_interface(str(address)).ip for address in config.addresses}
    versions = {address.version for address in ours}
    prefixes = [ipaddress.ip_network(str(prefix)) for prefix in peer.allowed_ips]
    for prefix in sorted(prefixes, key=lambda prefix: prefix.version not in versions):
        # The first address of a network is nobody's, unless it has no more than two.
        first = 1 if prefix.num_addresses > 2 else 0
        # One more than are ours: one of them is not.
        for number in range(first, min(prefix.num_addresses, first + len(ours) + 1)):
            if prefix[number] not in ours:
                return str(prefix[number])
    return None


class Observer:
    """Knows how the tunnel is, and says so over HTTP.

    Attributes:
        is_open: whether every door is open; its owner sets it.
    """

    def __init__(self, config: InterfaceConfig, device: Device, net: Net, gate: Gate) -> None:
        """Look after one tunnel and one gate; `run` keeps the knowledge fresh."""
        self.is_open = False
        self._config, self._device, self._net, self._gate = config, device, net, gate
        self._standing: set[PublicKey] = set()
        self._heard_at: dict[PublicKey, float] = {}
        self._asking: set[PublicKey] = set()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the events of the tunnel until it ends."""
        async with trio.open_nursery() as nursery, self._device.events() as events:
            self._nursery = nursery
            # What was over before we listened: a client may have been faster than we.
            for peer, one in self._device.statistics().peers.items():
                if one.has_session:
                    self._standing.add(peer)
                    self._heard_at[peer] = trio.current_time() - (one.silent_for or 0.0)
            self._ask_quiet_peers()
            task_status.started()
            async for event in events:
                match event:
                    case HandshakeCompleted(peer=peer):
                        self._standing.add(peer)
                        self._heard_at[peer] = trio.current_time()
                    case HandshakeGaveUp(peer=peer):
                        self._standing.discard(peer)

    @property
    def is_ready(self) -> bool:
        """Whether the doors are open and the tunnel stands."""
        return self.is_open and (
            bool(self._standing) or any(one.has_session for one in self._device.statistics().peers.values())
        )

    def _ask_quiet_peers(self) -> None:
        """Make peers answer that were not heard lately."""
        assert self._nursery is not None
        for peer in self._config.peers:
            quiet_for = trio.current_time() - self._heard_at.get(peer.public_key, -math.inf)
            if not peer.endpoint or quiet_for < REJECT_AFTER_TIME or peer.public_key in self._asking:
                continue
            some_host = _some_host(peer, self._config)
            if some_host is not None:
                self._nursery.start_soon(self._ask, peer, some_host)

    async def _ask(self, peer: PeerConfig, some_host: str) -> None:
        self._asking.add(peer.public_key)
        try:
            # Whether there is such a host does not matter: the handshake comes first.
            with contextlib.suppress(*DIAL_ERRORS):
                await self._net.ping(some_host, timeout=_ECHO_TIMEOUT)
                self._heard_at[peer.public_key] = trio.current_time()
        finally:
            self._asking.discard(peer.public_key)

    # --- HTTP --------------------------------------------------------------------------------------------------------

    async def serve_client(self, stream: Any) -> None:
        """Answer one request.

        Raises:
            Refused: it was none.
        """
        client = BufferedStream(stream)
        with trio.move_on_after(self._gate.limits.greeting_timeout):
            head = await client.read_until(b"\r\n\r\n", _LARGEST_HEAD)
            words = (head or b"").split(b"\r\n")[0].split(b" ")
            if len(words) != 3:
                raise Refused("malformed")
            status, kind, body = self._answer(words[0], words[1].partition(b"?")[0])
            octets = body.encode()
            answer = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(octets)}\r\nConnection: close\r\n\r\n"
            ).encode()
            await client.send_all(answer if words[0] == b"HEAD" else answer + octets)
            await client.send_eof()

    def _answer(self, method: bytes, path: bytes) -> tuple[HTTPStatus, str, str]:
        plain = "text/plain; charset=utf-8"
        if method not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, plain, "GET, please\n"
        if path == b"/metrics":
            return HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics()
        if path in (b"/ready", b"/"):
            self._ask_quiet_peers()
            if self.is_ready:
                return HTTPStatus.OK, plain, "ready\n"
            why = "no peer has answered" if self.is_open else "starting, or draining"
            return HTTPStatus.SERVICE_UNAVAILABLE, plain, f"not ready: {why}\n"
        return HTTPStatus.NOT_FOUND, plain, "there are /ready and /metrics\n"

    def metrics(self) -> str:
        """All counters."""
        return render_metrics(self._gate, self._device.statistics(), is_ready=self.is_ready)


def render_metrics(gate: Gate, statistics: EngineStatistics, *, is_ready: bool) -> str:
    """The counters of a proxy and its tunnel, as Prometheus reads them."""
    peers = statistics.peers.values()
    rows: list[tuple[str, str, str, Iterable[tuple[Mapping[str, str], float]]]] = [
        ("wgpy_ready", "gauge", "Whether the doors are open and the tunnel stands.", [({}, is_ready)]),
        ("wgpy_proxy_connections", "gauge", "Connections of clients now.", [({}, gate.open)]),
        ("wgpy_proxy_accepted_total", "counter", "Connections of clients ever.", [({}, gate.accepted)]),
        (
            "wgpy_proxy_refused_total",
            "counter",
            "Connections turned away or failed.",
            [({"reason": reason}, count) for reason, count in sorted(gate.refused.items())],
        ),
        (
            "wgpy_proxy_bytes_total",
            "counter",
            "Octets of connections into the tunnel (up) and back.",
            [({"direction": "up"}, gate.traffic.up), ({"direction": "down"}, gate.traffic.down)],
        ),
        (
            "wgpy_proxy_datagrams_total",
            "counter",
            "Datagrams of clients into the tunnel (up) and back.",
            [({"direction": "up"}, gate.datagrams.up), ({"direction": "down"}, gate.datagrams.down)],
        ),
        (
            "wgpy_peer_received_bytes_total",
            "counter",
            "Octets of UDP payload accepted from a peer.",
            [({"peer": str(one.public_key)}, one.rx_bytes) for one in peers],
        ),
        (
            "wgpy_peer_sent_bytes_total",
            "counter",
            "Octets of UDP payload sent to a peer.",
            [({"peer": str(one.public_key)}, one.tx_bytes) for one in peers],
        ),
        (
            "wgpy_peer_last_handshake_seconds",
            "gauge",
            "Unix time of the latest handshake, 0 for never.",
            [({"peer": str(one.public_key)}, one.last_handshake_time) for one in peers],
        ),
        (
            "wgpy_drops_total",
            "counter",
            "Packets refused.",
            [({"reason": reason.name.lower()}, count) for reason, count in statistics.drops.items()],
        ),
    ]
    lines = []
    for name, kind, about, samples in rows:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for labels, value in samples:
            shown = ",".join(f'{key}="{text}"' for key, text in labels.items())
            lines.append(f"{name}{{{shown}}} {float(value):.15g}" if shown else f"{name} {float(value):.15g}")
    return "\n".join(lines) + "\n"
