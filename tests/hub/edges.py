"""A hub's wire, a sink that writes down, and small edges over the real `wgpy`: everything but the database.

hub 100.64.0.1 of every tenant  ---  edges 100.64.0.2, .3, ... by tenant, over loopback UDP
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import trio

import wgpy
from hub_server.control import BEAT_PORT, CONTROL_PORT, Control, serve_control
from hub_server.domain.messages import Beat, BeatType
from hub_server.domain.records import Hello, NodeSummary, PeerRecord, RealmRecord
from hub_server.wire import Wire, open_wire

HUB4, HUB6 = IPv4Address("100.64.0.1"), IPv6Address("fd00::1")
HELLO = {
    "type": "hello", "protocol": 1, "agent_version": "1.0.0", "chart_version": "1.0.0", "kube_version": "v1.36.3",
    "cluster_uid": "uid-1", "mode": "userspace", "mode_reason": None, "mtu": 1420,
    "impersonation": {"enabled": False, "users": [], "groups": []}, "config_revision": 1, "boot_id": "boot-1",
    "service_account": "system:serviceaccount:daalu-edge:daalu-edge", "namespace": "daalu-edge", "job": None,
}  # fmt: skip
NODE = {
    "name": "n1", "ready": True, "schedulable": True, "roles": ["control-plane"], "version": "v1.36.3",
    "created": 1_750_000_000, "conditions": [],
}  # fmt: skip


class Notes:
    """A sink that writes down what it is told, in order; refuses and configures as it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, Any]] = []
        self.refusal: str | None = None
        self.config: dict[str, Any] = {
            "revision": 1, "keepalive": 25, "mtu": 1420, "heartbeat": 5, "endpoints": [], "relay_url": None,
        }  # fmt: skip
        self._waiting: dict[str, trio.Event] = defaultdict(trio.Event)

    def _note(self, kind: str, cluster_id: str, value: Any) -> None:
        self.heard.append((kind, cluster_id, value))
        self._waiting.pop(kind, trio.Event()).set()

    def of(self, kind: str, cluster_id: str | None = None) -> list[Any]:
        """What was told under this name."""
        return [value for what, who, value in self.heard if what == kind and cluster_id in (None, who)]

    async def until(self, kind: str, count: int = 1) -> list[Any]:
        """Wait until it was told so often."""
        with trio.fail_after(20):
            while len(self.of(kind)) < count:
                await self._waiting[kind].wait()
        return self.of(kind)

    def initiation_seen(self, cluster_id: str, remote: str, at: float) -> None:
        self._note("initiation", cluster_id, remote)

    def handshake_confirmed(self, cluster_id: str, remote: str, at: float) -> None:
        self._note("confirmed", cluster_id, remote)

    def beat(self, cluster_id: str, at: float, rtt: float | None, remote: str | None) -> None:
        self._note("beat", cluster_id, rtt)

    def goodbye(self, cluster_id: str, at: float, reason: str) -> None:
        self._note("goodbye", cluster_id, reason)

    def hello(self, cluster_id: str, hello: Hello) -> str | None:
        self._note("hello", cluster_id, hello)
        return self.refusal

    def nodes(self, cluster_id: str, nodes: Sequence[NodeSummary]) -> None:
        self._note("nodes", cluster_id, list(nodes))

    def api_state(self, cluster_id: str, state: str, errno: str | None, detail: str) -> None:
        self._note("api", cluster_id, (state, errno, detail))

    def key_replaced(self, cluster_id: str, public_key: bytes, at: float) -> None:
        self._note("key", cluster_id, public_key)

    def misbehaved(self, cluster_id: str, what: str) -> None:
        self._note("misbehaved", cluster_id, what)

    def config_for(self, cluster_id: str) -> Mapping[str, Any]:
        return self.config

    def config_acknowledged(self, cluster_id: str, revision: int, error: str | None) -> None:
        self._note("acknowledged", cluster_id, (revision, error))


class Edge:
    """One edge: a key, a tunnel, and the words of the protocol."""

    def __init__(self, cluster_id: str, tenant_id: str = "t1", number: int = 2) -> None:
        self.cluster_id = cluster_id
        self.key = wgpy.PrivateKey.generate()
        self.psk = wgpy.PresharedKey.generate()
        self.tenant_id = tenant_id
        self.address = HUB4 - 1 + number
        self.address6 = HUB6 - 1 + number
        self.seq = 0
        self.echo = 0
        self.tunnel: wgpy.Tunnel
        self.hub_key: wgpy.PublicKey
        self.udp: Any

    @property
    def record(self) -> PeerRecord:
        return PeerRecord(
            self.cluster_id,
            self.tenant_id,
            bytes(self.key.public_key),
            bytes(self.psk),
            self.address,
            self.address6,
        )

    @contextlib.asynccontextmanager
    async def connected(self, wire: Wire, *, psk: wgpy.PresharedKey | None = None) -> AsyncIterator[Edge]:
        """Bring the tunnel up; the first packet shakes hands."""
        self.hub_key = wgpy.PublicKey(wire.public_key)
        hub = wgpy.PeerConfig(
            self.hub_key,
            allowed_ips=[f"{HUB4}/32", f"{HUB6}/128"],
            endpoint=f"127.0.0.1:{wire.port}",
            preshared_key=psk or self.psk,
        )
        config = wgpy.InterfaceConfig(self.key, addresses=[f"{self.address}/32", f"{self.address6}/128"], peers=[hub])
        async with wgpy.open_tunnel(config) as tunnel, await tunnel.net.open_udp(remote=(str(HUB4), BEAT_PORT)) as udp:
            self.tunnel, self.udp = tunnel, udp
            yield self

    async def send_beat(self, kind: int = BeatType.BEAT, padding: bytes = b"") -> None:
        self.seq += 1
        now = int(trio.current_time() * 1e6) + 7
        await self.udp.send(Beat(kind, self.seq, now, self.echo, 0, padding).encode())

    async def beat(self, padding: bytes = b"") -> Beat:
        """A beat and its answer."""
        await self.send_beat(padding=padding)
        with trio.fail_after(10):
            while True:
                answer = Beat.decode_untrusted(await self.udp.receive())
                if answer.type == BeatType.ANSWER and answer.seq == self.seq:
                    self.echo = answer.sent
                    return answer

    @contextlib.asynccontextmanager
    async def control(self, hello: Mapping[str, Any] | None = HELLO) -> AsyncIterator[Talk]:
        """The control connection, hello said."""
        async with await self.tunnel.net.open_tcp_stream(str(HUB4), CONTROL_PORT) as stream:
            talk = Talk(stream)
            if hello is not None:
                await talk.send(hello)
            yield talk


class Talk:
    """JSON lines."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, message: Mapping[str, Any]) -> None:
        await self.stream.send_all(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message, None at the end however it comes."""
        with trio.fail_after(300):
            while b"\n" not in self._buffer:
                try:
                    data = await self.stream.receive_some()
                except trio.BrokenResourceError:
                    return None
                if not data:
                    return None
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


@contextlib.asynccontextmanager
async def open_hub(
    *edges: Edge, notes: Notes | None = None, key: bytes | None = None, port: int = 0
) -> AsyncIterator[tuple[Wire, Notes, Control]]:
    """A wire and its control, with the realms and peers of these edges."""
    notes = notes or Notes()
    realms = [RealmRecord(tenant, HUB4, HUB6) for tenant in dict.fromkeys(edge.tenant_id for edge in edges)]
    peers = [edge.record for edge in edges]
    private_key = key or bytes(wgpy.PrivateKey.generate())
    async with open_wire(private_key, port, realms, peers, notes) as wire, trio.open_nursery() as nursery:
        control: Control = await nursery.start(serve_control, wire, notes)
        yield wire, notes, control
        nursery.cancel_scope.cancel()
