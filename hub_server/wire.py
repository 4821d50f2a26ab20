"""The hub's end of every tunnel: one `wgpy` device with one identity, one realm for each tenant, one peer per cluster.

    store's rows -> put_realm, put_peer -> wgpy          what the wire should look like
    kubeproxy    -> dial(cluster_id)    -> a stream in the tenant's realm, to the edge's own address
    wgpy events  -> Sink                initiation seen, handshake confirmed

It knows no HTTP, no user and no page. A tenant is known by the peer's key alone: packets of a peer enter only the realm
that the peer was put into, and only from the peer's own addresses.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Final

import trio

import wgpy
from hub_server import supervise
from hub_server.domain.records import PeerFacts, PeerRecord, RealmRecord, Sink

__all__ = ["ALIVE", "EDGE_PORT", "Wire", "open_wire"]

# Where every edge serves the API server of its cluster, inside the tunnel.
EDGE_PORT: Final = 7443
CONNECT_TIMEOUT: Final = 10.0
# The wire has no network of its own: this is the dummy address of RFC 7600 section 4.8, which no peer is ever given.
_NOBODY: Final = "192.0.0.8/32"
# Handshakes that the hub starts after a restart: a thousand clusters are called within ten seconds, below 200 a second.
_CALLS_PER_SECOND: Final = 100
# An edge that died without a word must end its streams within 15 s.
ALIVE: Final = wgpy.Keepalive(idle=5, interval=3, probes=3)
_LOST: Final = "the connection to the edge was lost"


@contextlib.asynccontextmanager
async def open_wire(
    private_key: bytes,
    port: int,
    realms: Iterable[RealmRecord],
    peers: Iterable[PeerRecord],
    sink: Sink,
    *,
    wall_clock: Callable[[], float] = time.time,
) -> AsyncIterator[Wire]:
    """Listen on a UDP port with what the store knows, and call the clusters whose last place is known.

    Args:
        private_key: of the hub, 32 octets.
        port: UDP, 0 for any.
        realms: of all tenants.
        peers: of all clusters that may connect.
        sink: is told what happens.
        wall_clock: Unix seconds.

    Raises:
        OSError: the port is taken.
        PortLost: the device ended while it was used.
    """
    config = wgpy.InterfaceConfig(wgpy.PrivateKey(private_key), listen_port=port, addresses=[_NOBODY])
    port_now: int | None = None
    from_above: list[BaseException] = []
    try:
        async with wgpy.open_tunnel(config) as tunnel:
            wire = Wire(tunnel, sink, wall_clock)
            port_now = wire.port
            for realm in realms:
                wire.put_realm(realm)
            for peer in peers:
                wire.put_peer(peer)
            async with trio.open_nursery() as nursery:
                supervise.start_once(nursery, "calls after a start", wire.call_known_places)
                try:
                    yield wire
                except BaseException as problem:
                    from_above += supervise.leaves(problem)
                    raise
                nursery.cancel_scope.cancel()
    except BaseException as problem:
        # What neither the hub above raised nor a cancellation did is the device's own end, and all tunnels end with it.
        own = [one for one in supervise.leaves(problem) if isinstance(one, Exception) and one not in from_above]
        if port_now is None or not own:
            raise
        raise supervise.PortLost(
            f"UDP port {port_now} of WireGuard ended: {own[0]!r}; start the hub again"
        ) from problem


class Wire:
    """Every tunnel of this hub.

    Attributes:
        public_key: of the hub, 32 octets.
        port: UDP.
        new_realms: tenant and network of each realm as it appears, those of the beginning included; for the one who
            listens in all of them.
    """

    def __init__(self, tunnel: wgpy.Tunnel, sink: Sink, wall_clock: Callable[[], float]) -> None:
        """Use `open_wire`."""
        private_key = tunnel.device.engine.private_key
        assert private_key is not None, "the wire was opened with one"
        self.public_key = bytes(private_key.public_key)
        self.port = tunnel.device.udp.port
        self._tunnel = tunnel
        self._sink = sink
        self._wall_clock = wall_clock
        self._realms: dict[str, tuple[RealmRecord, wgpy.Tunnel]] = {}
        self._peers: dict[str, PeerRecord] = {}
        self._by_key: dict[wgpy.PublicKey, str] = {}
        self._newcomers: dict[str, PeerRecord] = {}  # keys that wait for their first use
        self._waiting: dict[wgpy.PublicKey, str] = {}
        self._by_address: dict[tuple[str, str], str] = {}
        # Keys that may shake hands for a while, and nothing more: of those who ask whether UDP reaches us.
        self._probes: set[wgpy.PublicKey] = set()
        # When each stream was opened, and why those that were cut were cut.
        self._streams: dict[str, weakref.WeakKeyDictionary[trio.abc.HalfCloseableStream, float]] = {}
        self._reasons: weakref.WeakKeyDictionary[trio.abc.HalfCloseableStream, str] = weakref.WeakKeyDictionary()
        self._shaken_at: dict[str, float] = {}
        self._announce, self.new_realms = trio.open_memory_channel[tuple[str, wgpy.Tunnel]](math.inf)
        tunnel.device.watchers.append(self._happened)

    # --- what the wire should look like ------------------------------------------------------------------------------

    def put_realm(self, record: RealmRecord) -> None:
        """Add a tenant's network; one whose addresses changed is made anew, and its clusters shake hands again."""
        known = self._realms.get(record.tenant_id)
        if known is not None and known[0] == record:
            return
        moved = [peer for peer in self._peers.values() if peer.tenant_id == record.tenant_id]
        if known is not None:
            self.drop_realm(record.tenant_id)
        addresses = [str(one) for one in (record.address, record.address6) if one is not None]
        realm = self._tunnel.add_realm(addresses, mtu=record.mtu)
        self._realms[record.tenant_id] = record, realm
        self._announce.send_nowait((record.tenant_id, realm))
        for peer in moved:
            self.put_peer(peer)

    def drop_realm(self, tenant_id: str) -> None:
        """Forget a tenant's network with all its peers."""
        for peer in [peer for peer in self._peers.values() if peer.tenant_id == tenant_id]:
            self.drop_peer(peer.cluster_id)
        known = self._realms.pop(tenant_id, None)
        if known is not None:
            self._tunnel.remove_realm(known[1])

    def has_realm(self, tenant_id: str, realm: wgpy.Tunnel) -> bool:
        """Whether this is a tenant's network now, neither removed nor made anew."""
        known = self._realms.get(tenant_id)
        return known is not None and known[1] is realm

    def put_peer(self, record: PeerRecord) -> None:
        """Add or replace a cluster; with another key, address or tenant it is another peer, else its session goes on.

        Raises:
            KeyError: its realm is not there.
        """
        _, realm = self._realms[record.tenant_id]
        before = self._peers.get(record.cluster_id)
        if record.pending_until is not None and before is not None and before.public_key != record.public_key:
            self._put_newcomer(realm, record)
            return
        record = replace(record, pending_until=None)
        if before == record:
            return
        is_same_peer = before is not None and replace(
            before, keepalive=None, endpoint=None, preshared_key=b""
        ) == replace(record, keepalive=None, endpoint=None, preshared_key=b"")
        if before is not None and not is_same_peer:
            self.drop_peer(record.cluster_id)
        self.drop_probe(record.public_key)
        addresses = [str(one) for one in (record.address, record.address6) if one is not None]
        config = _config(record, addresses, keeps_endpoint=is_same_peer)
        if is_same_peer:
            self._tunnel.device.update_peer(config)
        else:
            realm.add_peer(config)
        self._enter(record, addresses)

    def _put_newcomer(self, realm: wgpy.Tunnel, record: PeerRecord) -> None:
        """Answer handshakes of a key that waits for its first use; until then no packet of it comes in."""
        if self._newcomers.get(record.cluster_id) == record:
            return
        self._drop_newcomer(record.cluster_id)
        public_key, preshared_key = wgpy.PublicKey(record.public_key), wgpy.PresharedKey(record.preshared_key)
        realm.add_peer(wgpy.PeerConfig(public_key, allowed_ips=[], preshared_key=preshared_key))
        self._newcomers[record.cluster_id] = record
        self._waiting[public_key] = record.cluster_id

    def _drop_newcomer(self, cluster_id: str) -> None:
        record = self._newcomers.pop(cluster_id, None)
        if record is not None:
            public_key = wgpy.PublicKey(record.public_key)
            del self._waiting[public_key]
            self._tunnel.device.remove_peer(public_key)

    def _admit(self, cluster_id: str) -> bool:
        """A key that waited was used: it takes the place of the one before, if it did not wait too long."""
        record = self._newcomers[cluster_id]
        if record.pending_until is None or self._wall_clock() > record.pending_until:
            self._drop_newcomer(cluster_id)
            return False
        del self._newcomers[cluster_id], self._waiting[wgpy.PublicKey(record.public_key)]
        self.drop_peer(cluster_id)
        record = replace(record, pending_until=None)
        addresses = [str(one) for one in (record.address, record.address6) if one is not None]
        self._tunnel.device.update_peer(_config(record, addresses, keeps_endpoint=True))
        self._enter(record, addresses)
        return True

    def _enter(self, record: PeerRecord, addresses: list[str]) -> None:
        self._by_key[wgpy.PublicKey(record.public_key)] = record.cluster_id
        for address in addresses:
            self._by_address[record.tenant_id, address] = record.cluster_id
        self._peers[record.cluster_id] = record

    def drop_peer(self, cluster_id: str) -> None:
        """Forget a cluster: its streams end, its packets are refused, its handshakes get no answer."""
        self._drop_newcomer(cluster_id)
        record = self._peers.pop(cluster_id, None)
        if record is None:
            return
        self.cut(cluster_id, "the cluster was taken off the wire")
        self._streams.pop(cluster_id, None)
        self._shaken_at.pop(cluster_id, None)
        public_key = wgpy.PublicKey(record.public_key)
        del self._by_key[public_key]
        for address in (record.address, record.address6):
            self._by_address.pop((record.tenant_id, str(address)), None)
        self._tunnel.device.remove_peer(public_key)

    def put_probe(self, public_key: bytes) -> bool:
        """Let a key shake hands, without any address: no packet of it is taken. False for one that is known already."""
        key = wgpy.PublicKey(public_key)
        if key in self._by_key or key in self._probes or key == wgpy.PublicKey(self.public_key):
            return False
        self._tunnel.add_peer(wgpy.PeerConfig(key))
        self._probes.add(key)
        return True

    def drop_probe(self, public_key: bytes) -> None:
        """Forget such a key; nothing happens to another one."""
        key = wgpy.PublicKey(public_key)
        if key in self._probes:
            self._probes.discard(key)
            self._tunnel.device.remove_peer(key)

    # --- through the tunnel ------------------------------------------------------------------------------------------

    async def dial(
        self,
        cluster_id: str,
        port: int = EDGE_PORT,
        *,
        timeout: float = CONNECT_TIMEOUT,  # noqa: ASYNC109 # an errno
    ) -> trio.abc.HalfCloseableStream:
        """Connect to a port of an edge.

        Raises:
            OSError: EHOSTUNREACH for a cluster that is not there, ETIMEDOUT, ECONNREFUSED, as a kernel would say it.
        """
        record = self._peers.get(cluster_id)
        if record is None:
            raise _os_error(errno.EHOSTUNREACH, cluster_id)
        _, realm = self._realms[record.tenant_id]
        with trio.move_on_after(timeout):
            stream = await realm.net.open_tcp_stream(
                str(record.address), port, keepalive=ALIVE, user_timeout=ALIVE.dead_after
            )
            now = self._peers.get(cluster_id)
            if now is None or now.public_key != record.public_key:
                stream.abort()
                raise _os_error(errno.EHOSTUNREACH, cluster_id)
            self._streams.setdefault(cluster_id, weakref.WeakKeyDictionary())[stream] = trio.current_time()
            return stream
        raise _os_error(errno.ETIMEDOUT, cluster_id)

    def cut(self, cluster_id: str, why: str, *, is_restart: bool = False) -> None:
        """End streams that `dial` gave for a cluster; whoever uses one gets trio's ClosedResourceError.

        Args:
            cluster_id: whose.
            why: for `why_lost`.
            is_restart: the edge was started anew. What was opened after the last handshake is with the new one, for
                which nothing of an earlier session is good; it stays.
        """
        streams = self._streams.setdefault(cluster_id, weakref.WeakKeyDictionary())
        since = self._shaken_at.get(cluster_id, math.inf) if is_restart else math.inf
        for stream in [stream for stream, opened_at in streams.items() if opened_at < since]:
            del streams[stream]
            self._reasons[stream] = why
            stream.abort()  # type: ignore[attr-defined] # wgpy's streams have it

    def is_at_rest(self, stream: trio.abc.HalfCloseableStream) -> bool:
        """Whether a stream that nobody uses is still open at both ends, and nothing was said on it."""
        info = stream.tcp_info()  # type: ignore[attr-defined] # wgpy's streams have it
        return bool(info.state.name == "ESTABLISHED" and not info.receive_buffered)

    def why_lost(self, stream: trio.abc.HalfCloseableStream) -> str:
        """Why a stream that broke was cut, for people; that it was lost where nobody cut it."""
        return self._reasons.get(stream, _LOST)

    def cluster_at(self, tenant_id: str, address: str) -> str | None:
        """Whose inner address it is; what arrives from it was sent by the holder of that cluster's key."""
        return self._by_address.get((tenant_id, address))

    # --- what is known -----------------------------------------------------------------------------------------------

    def facts(self, cluster_id: str) -> PeerFacts | None:
        """What the wire knows of a cluster now; None for one that is not there."""
        record = self._peers.get(cluster_id)
        if record is None:
            return None
        peer = self._tunnel.device.peer_statistics(wgpy.PublicKey(record.public_key))
        return PeerFacts(
            last_authenticated=None if peer.silent_for is None else self._wall_clock() - peer.silent_for,
            last_handshake=peer.last_handshake_time or None,
            endpoint=None if peer.endpoint is None else str(peer.endpoint),
            rx=peer.rx_bytes,
            tx=peer.tx_bytes,
        )

    def has_session(self, cluster_id: str) -> bool:
        """Whether a packet for a cluster would leave at once."""
        record = self._peers.get(cluster_id)
        if record is None:
            return False
        return self._tunnel.device.peer_statistics(wgpy.PublicKey(record.public_key)).has_session

    def endpoint(self, cluster_id: str) -> str | None:
        """Where a cluster is, `host:port`."""
        facts = self.facts(cluster_id)
        return None if facts is None else facts.endpoint

    # --- what happens ------------------------------------------------------------------------------------------------

    async def call_known_places(self) -> None:
        """Start a handshake with every cluster whose last place is known, so that a restart of the hub is short."""
        for record in list(self._peers.values()):
            if record.endpoint is None or self._peers.get(record.cluster_id) != record:
                continue
            with supervise.confined("call after a start", record.cluster_id):
                if not self.has_session(record.cluster_id):
                    self._tunnel.device.start_handshake(wgpy.PublicKey(record.public_key))
                    await trio.sleep(1 / _CALLS_PER_SECOND)

    def _happened(self, event: object) -> None:
        if not isinstance(event, wgpy.InitiationReceived | wgpy.HandshakeCompleted):
            return
        if (waiting := self._waiting.get(event.peer)) is not None and isinstance(event, wgpy.HandshakeCompleted):
            with supervise.confined("a new key", waiting):
                if self._admit(waiting):
                    self._sink.key_replaced(waiting, bytes(event.peer), self._wall_clock())
        cluster_id = self._by_key.get(event.peer)
        if cluster_id is None:
            return
        if isinstance(event, wgpy.HandshakeCompleted):
            self._shaken_at[cluster_id] = trio.current_time()
        tell = (
            self._sink.initiation_seen if isinstance(event, wgpy.InitiationReceived) else self._sink.handshake_confirmed
        )
        # The device calls this between two packets: a fault up there must not end every tunnel.
        with supervise.confined("news of a handshake", cluster_id):
            tell(cluster_id, str(event.endpoint), self._wall_clock())


def _config(record: PeerRecord, addresses: list[str], *, keeps_endpoint: bool) -> wgpy.PeerConfig:
    return wgpy.PeerConfig(
        wgpy.PublicKey(record.public_key),
        allowed_ips=addresses,
        preshared_key=wgpy.PresharedKey(record.preshared_key),
        persistent_keepalive=record.keepalive or 0,
        # Once it is connected it says itself where it is.
        endpoint=None if record.endpoint is None or keeps_endpoint else wgpy.Endpoint(*record.endpoint),
    )


def _os_error(number: int, cluster_id: str) -> OSError:
    return OSError(number, f"{os.strerror(number)}: {cluster_id}")
