"""Device: an engine, its UDP sockets and its packet device, in one nursery.

Three things happen: datagrams arrive, packets arrive, time passes. Each is one plain function, a step, that hands what
there is to the engine and takes out what comes of it at once; nobody reads again before everything it read has left,
because slabs and batches are views into its buffers. `runtime/loop` calls the steps; tasks here do the waiting.

    _take_datagrams -> engine.receive_batches -> _flush: PacketDevice.write_batch, UdpSockets.send
    _take_packets   -> engine.send_slabs      -> _flush: UdpSockets.send
    _take_time      -> engine.handle_timer    -> _flush: UdpSockets.send
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
from typing import TYPE_CHECKING, Final

import trio

from wgpy.errors import DropReason, TunnelClosed
from wgpy.protocol.events import EndpointChanged, Event, HandshakeCompleted, HandshakeGaveUp, UnknownPeer
from wgpy.runtime import world
from wgpy.runtime.groups import caught
from wgpy.runtime.loop import Loop, TrioLoop
from wgpy.runtime.pace import HandshakePace
from wgpy.runtime.paths import follow_paths
from wgpy.runtime.udp import UdpSocket, UdpSockets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from wgpy.config import Endpoint, PeerConfig
    from wgpy.dataplane.slab import Slab
    from wgpy.keys import PublicKey
    from wgpy.protocol.datagrams import DatagramBatch
    from wgpy.protocol.engine import Engine
    from wgpy.protocol.realm import Realm
    from wgpy.protocol.statistics import EngineStatistics, PeerStatistics
    from wgpy.runtime.mesh import Mesh
    from wgpy.runtime.netdevice import NetDevice
    from wgpy.tun.base import PacketDevice
    from wgpy.uapi import DeviceState, DeviceUpdate

__all__ = ["Device"]

_log = logging.getLogger("wgpy.device")
_handshake_log = logging.getLogger("wgpy.handshake")

# A suspended machine stops trio's clock, not that of the protocol: look at the deadlines now and then.
_LONGEST_SLEEP: Final = 20.0
_EVENTS_BUFFERED: Final = 1024
# Whoever found a way to make us log must not fill the disk with it, seconds.
_BETWEEN_DEFECTS: Final = 10.0
# A peer that moves so often within a minute is probably two machines with one key (trap T22).
_FLAPS_PER_MINUTE: Final = 6
# Handshake timestamps only grow (lesson S1): a wall clock that went back makes the other ends refuse ours.
_CLOCK_JUMP: Final = 60.0


class Device:
    """One WireGuard interface at work.

    Attributes:
        engine: the protocol.
        packets: where inner packets come from and go to.
        udp: the sockets.
        look_at_link: sees whether the interface is up; asked when something arrives for one that seems to be down,
            because what arrives may be quicker than the news that it came up. None where nothing can be seen.
        last_packets: asked at the end for packets that say goodbye; None where nobody is to be told.
        watchers: called with every event, at once; they may not wait.

    Example:
        >>> async def main():
        ...     async with wgpy.open_device(wgpy.InterfaceConfig(), wgpy.MemoryDevice("demo")) as device:
        ...         device.add_peer(wgpy.PeerConfig(wgpy.PrivateKey.generate().public_key))
        ...         return len(device.statistics().peers)
        >>> trio.run(main)
        1
    """

    def __init__(
        self,
        engine: Engine,
        packets: PacketDevice,
        udp: UdpSockets,
        *,
        loop: Loop | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        """Put the parts together; `run` makes them work.

        Args:
            engine: the protocol.
            packets: where inner packets come from and go to.
            udp: the sockets.
            loop: who calls the steps; trio's tasks without it.
            mesh: the other workers of this interface, if there are any.
        """
        self.engine = engine
        self.packets = packets
        self.udp = udp
        engine.listen_port = udp.port
        engine.holds_handshakes = True
        self.look_at_link: Callable[[], Awaitable[None]] | None = None
        self.last_packets: Callable[[], Sequence[Slab]] | None = None
        self.watchers: list[Callable[[Event], None]] = []
        self._doors: dict[Realm, NetDevice] = {}
        self._loop: Loop = loop or TrioLoop()
        self._mesh = mesh
        self._clock = world.boot_time
        self._nursery: trio.Nursery | None = None
        self._timer = trio.CancelScope()
        # When the timer wakes, in engine time.
        self._wakes_at = math.inf
        self._pace = HandshakePace()
        self._survived_at = -math.inf
        # What found no room in a socket, and which.
        self._unsent: list[DatagramBatch] = []
        self._full: UdpSocket | None = None
        self._subscribers: set[trio.MemorySendChannel[Event]] = set()
        self._is_over = False
        self._moves: dict[PublicKey, list[float]] = {}

    # --- the nursery -------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled or until the packet device is gone; sockets and packet device are closed then.

        Raises:
            TunnelClosed: the packet device was deleted.
        """
        self._clock = world.clock()
        try:
            with caught(TunnelClosed) as closed:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._start_readers()
                    nursery.start_soon(self._read_packets)
                    nursery.start_soon(self._run_timer)
                    nursery.start_soon(follow_paths, self)
                    if self._mesh is not None:
                        nursery.start_soon(self._read_mesh, self._mesh)
                    task_status.started()
            if closed:
                raise TunnelClosed(str(closed[0]))
        finally:
            self._nursery = None
            if self.last_packets is not None:
                self._send_nowait(self.last_packets())
            for realm, door in self._doors.items():
                self._send_nowait(door.last_batch(), realm)
            # Keys and staged packets go before the sockets do.
            self.engine.set_private_key(None, self._clock())
            self.engine.set_up(False, self._clock())
            self.udp.close()
            self.packets.close()
            for door in self._doors.values():
                door.close()
            self._is_over = True
            for subscriber in self._subscribers:
                subscriber.close()
            self._subscribers.clear()

    def _start_readers(self) -> None:
        assert self._nursery is not None
        for one in self.udp:
            self._nursery.start_soon(self._read_handshakes if one.is_door else self._read_datagrams, one)

    async def _read_datagrams(self, one: UdpSocket) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            while one.is_open:
                await self._loop.serve(one.socket.fileno(), functools.partial(self._take_datagrams, one))
                await self._catch_up()
                if not self.engine.is_up:
                    self._receive(one)  # and be refused: the interface is down indeed

    async def _read_handshakes(self, door: UdpSocket) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            while door.is_open:
                await self._loop.serve(door.socket.fileno(), functools.partial(self._take_handshakes, door))
                await self._catch_up()
                if not self.engine.is_up:
                    self._receive_handshakes(door)  # and be refused: the interface is down indeed
                await trio.sleep(max(0.0, self._pace.resumes_at - self._clock()))

    async def _read_packets(self) -> None:
        packets = self.packets
        while True:
            if packets.descriptor is None:
                await packets.wait_readable()
                self._take_packets()
            else:
                await self._loop.serve(packets.descriptor, self._take_packets)
            await self._catch_up()
            if not self.engine.is_up:
                self._send()  # and be refused: the interface is down indeed

    async def _read_mesh(self, mesh: Mesh) -> None:
        while True:
            await self._loop.serve(mesh.fileno(), functools.partial(self._take_forwards, mesh))
            # Another worker may have heard sooner that the link is up.
            await self._catch_up()
            if not self.engine.is_up:
                self._receive_forwards(mesh)  # and be refused: the interface is down indeed

    async def _run_timer(self) -> None:
        offset = world.wall_clock() - world.boot_time()
        while True:
            self._wakes_at = self._next_deadline()
            left = min(self._wakes_at - self._clock(), _LONGEST_SLEEP)
            self._timer = trio.CancelScope(deadline=trio.current_time() + left)
            with self._timer:
                await trio.sleep_forever()
            jump = world.wall_clock() - world.boot_time() - offset
            if abs(jump) > _CLOCK_JUMP:
                offset += jump
                _log.warning("the wall clock jumped by %+.0f s: peers may refuse handshakes until it is right", jump)
            now = self._clock()
            self.engine.handle_timer(now)
            self._work_off_handshakes(now)
            self._flush()
            await self._catch_up()

    async def _catch_up(self) -> None:
        """Do the waiting for a step that could not go on: until the link is looked at, until there is room."""
        if not self.engine.is_up and self.look_at_link is not None:
            await self.look_at_link()
        while self._full is not None:
            try:
                await trio.lowlevel.wait_writable(self._full.socket)
            except trio.ClosedResourceError:
                self._unsent, self._full = [], None
            self._flush()

    # --- the steps ---------------------------------------------------------------------------------------------------

    def _take_datagrams(self, one: UdpSocket) -> bool:
        """Take what a socket has; False when the task must wait before the next call."""
        return self.engine.is_up and self._receive(one)

    def _receive(self, one: UdpSocket) -> bool:
        while True:
            batches = one.receive()
            if not batches:
                return True
            now = self._now()
            try:
                self.engine.receive_batches(batches, now)
            except Exception:
                self._survive("datagrams")
            if self.engine.waiting_handshakes:  # there is no door, or they came in one group with data
                self._work_off_handshakes(now)
            if not self._flush() or not one.has_more:
                return self._full is None
            # A lone packet is often a question, and the kernel has answered it by now.
            if self.packets.descriptor is not None and not self._send():
                return False

    def _take_handshakes(self, door: UdpSocket) -> bool:
        """Take some of what waits at a door; False when the task must wait before the next call."""
        return self.engine.is_up and self._receive_handshakes(door)

    def _receive_handshakes(self, door: UdpSocket) -> bool:
        now = self._now()
        if now < self._pace.resumes_at:
            return False
        batches = door.receive()
        if batches:
            try:
                self.engine.receive_batches(batches, now)
            except Exception:
                self._survive("handshake messages")
            self._work_off_handshakes(now)
        return self._flush() and self._clock() >= self._pace.resumes_at

    def _work_off_handshakes(self, since: float) -> None:
        """Let handshakes in, if it is their turn; what was done for them since then counts."""
        if self.engine.waiting_handshakes and since >= self._pace.resumes_at:
            try:
                self.engine.work_off_handshakes(since)
            except Exception:
                self._survive("a handshake")
            now = self._clock()
            self._pace.spent(now - since, now, self.udp.octets)

    def _survive(self, what: str) -> None:
        """What comes from the network should raise nothing; if it does, it costs itself, and not the tunnel."""
        now = self._clock()
        if now - self._survived_at >= _BETWEEN_DEFECTS:
            self._survived_at = now
            _log.exception("%s ended in a defect and were dropped; please report this", what)

    def _next_deadline(self) -> float:
        """When the timer has something to do."""
        deadline = self.engine.next_deadline()
        if self.engine.waiting_handshakes:
            return min(self._pace.resumes_at, math.inf if deadline is None else deadline)
        return math.inf if deadline is None else deadline

    def _take_packets(self) -> bool:
        """Take what the packet device has; False when the task must wait before the next call."""
        return self.engine.is_up and self._send()

    def _send(self) -> bool:
        packets = self.packets
        while True:
            slabs = packets.read_batch()
            if slabs:
                self.engine.send_slabs(slabs, self._now())
            # Even asking for packets may have started a handshake (`Engine.may_send`).
            if not self._flush() or not slabs or not packets.has_more:
                return self._full is None

    def _take_forwards(self, mesh: Mesh) -> bool:
        """Take what came to other workers; False when the task must wait before the next call."""
        return self.engine.is_up and self._receive_forwards(mesh)

    def _receive_forwards(self, mesh: Mesh) -> bool:
        now = self._now()
        for forward in mesh.receive():
            self.engine.take_forward(forward, now)
        return self._flush()

    def _now(self) -> float:
        """Engine time; what is due by then is done first."""
        now = self._clock()
        if self._wakes_at <= now:
            self.engine.handle_timer(now)
            self._work_off_handshakes(now)
        return now

    def _flush(self) -> bool:
        """Hand out everything that the engine has; False when a socket has no room for it."""
        engine = self.engine
        slabs = engine.packets_to_deliver()
        if slabs:
            self.packets.write_batch(slabs)
        for realm in engine.realms_to_deliver():
            self._doors[realm].write_batch(engine.packets_to_deliver(realm))
        batches = engine.datagrams_to_send()
        if self._unsent:
            batches = self._unsent + batches
        if batches:
            sent, self._full = self.udp.send(batches)
            self._unsent = batches[sent:] if self._full is not None else []
            self._note_failures()
        if self._mesh is not None:
            lost = self._mesh.send(engine.forwards())
            if lost:
                engine.count_drop(DropReason.NO_ROOM_AT_WORKER, lost)
        events = engine.events()
        if events:
            self._loop.in_trio(self._publish, events)
        # The timer sleeps until a deadline that may have moved closer.
        deadline = self._next_deadline()
        if deadline < self._wakes_at:
            self._wakes_at = deadline
            self._loop.in_trio(self._timer.cancel)
        return self._full is None

    def _send_nowait(self, slabs: Sequence[Slab], realm: Realm | None = None) -> None:
        """Seal and send what can be sent without waiting; the rest is lost."""
        self.engine.send_slabs(slabs, self._now(), realm)
        self.udp.send(self.engine.datagrams_to_send())
        self._note_failures()

    def _note_failures(self) -> None:
        udp, engine = self.udp, self.engine
        if udp.stale:
            for batch in udp.stale:
                engine.source_failed(batch)
            udp.stale.clear()
        if udp.failures:
            for failure in udp.failures:
                engine.send_failed(failure.batch, failure.reason)
            udp.failures.clear()

    # --- events ------------------------------------------------------------------------------------------------------

    def events(self) -> trio.MemoryReceiveChannel[Event]:
        """What happens from now on, to iterate over; ends with the device. Who reads too slowly loses the newest."""
        sender, receiver = trio.open_memory_channel[Event](_EVENTS_BUFFERED)
        if self._is_over:
            sender.close()  # nothing happens any more, and whoever iterates is told so at once
        else:
            self._subscribers.add(sender)
        return receiver

    def _publish(self, events: Sequence[Event]) -> None:
        for event in events:
            self._log(event)
            for watch in self.watchers:
                watch(event)
            for subscriber in list(self._subscribers):
                try:
                    subscriber.send_nowait(event)
                except trio.WouldBlock:
                    pass
                except trio.BrokenResourceError:
                    self._subscribers.discard(subscriber)

    def _log(self, event: Event) -> None:
        match event:
            case HandshakeCompleted(peer=peer, endpoint=endpoint, is_initiator=is_initiator):
                role = "initiator" if is_initiator else "responder"
                _handshake_log.info("handshake completed with %r at %s as %s", peer, endpoint, role)
            case HandshakeGaveUp(peer=peer):
                _handshake_log.warning("no answer from %r: gave up", peer)
            case UnknownPeer(public_key=public_key, endpoint=endpoint):
                _handshake_log.debug("initiation of an unknown peer %r from %s", public_key, endpoint)
            case EndpointChanged(peer=peer, endpoint=endpoint):
                _log.info("%r is at %s", peer, endpoint)
                self._watch_moves(peer)
            case _:
                _handshake_log.debug("%r", event)

    def _watch_moves(self, peer: PublicKey) -> None:
        now = self._clock()
        moves = [moment for moment in self._moves.get(peer, []) if now - moment < 60] + [now]
        if len(moves) >= _FLAPS_PER_MINUTE:
            _log.warning("%r moves to and fro: two machines with one private key?", peer)
            moves = []
        self._moves[peer] = moves

    # --- live reconfiguration ----------------------------------------------------------------------------------------

    def apply(self, update: DeviceUpdate) -> None:
        """Change what the update names. Port and mark come first: if they fail, nothing has changed.

        Raises:
            DeviceError: the port is taken or the mark not allowed.
            ConfigError: there would be too many peers, or an endpoint is a name.
        """
        self.engine.check(update)
        if update.fwmark is not None and update.fwmark != self.engine.fwmark:
            self.udp.set_fwmark(update.fwmark)
            self.engine.forget_sources(self._clock())
        if update.listen_port is not None and update.listen_port != self.udp.port:
            try:
                fwmark = self.engine.fwmark if update.fwmark is None else update.fwmark
                self.rebind(update.listen_port, fwmark)
            except OSError:
                if update.fwmark is not None:
                    self.udp.set_fwmark(self.engine.fwmark)
                raise
        self.apply_to_engine(dataclasses.replace(update, listen_port=self.udp.port))

    def apply_to_engine(self, update: DeviceUpdate) -> None:
        """`apply` without the sockets, which somebody else sees to.

        Raises:
            ConfigError: there would be too many peers, or an endpoint is a name.
        """
        self.engine.apply(update, self._now())
        self._flush_soon()

    def rebind(self, port: int, fwmark: int | None = None) -> None:
        """Move to another UDP port; sessions go on.

        Raises:
            DeviceError: the port is taken; the old one stays in use then.
        """
        settings = [(one.groups, one.coalesces) for one in self.udp] or [(True, True)]
        self.use_sockets(
            UdpSockets(
                port,
                fwmark=self.engine.fwmark if fwmark is None else fwmark,
                interface=self.udp.interface,
                groups=settings[0][0],
                coalesces=settings[0][1],
            )
        )

    def use_sockets(self, udp: UdpSockets) -> None:
        """Go on with other sockets; those in use until now are closed."""
        old, self.udp = self.udp, udp
        self.engine.listen_port = self.udp.port
        self.engine.forget_sources(self._clock())
        for one in old:
            self._loop.forget(one.socket.fileno())
        old.close()
        if self._nursery is not None:
            self._start_readers()

    def add_peer(self, peer: PeerConfig, realm: Realm | None = None) -> None:
        """Add a peer while traffic flows, to a realm or to that of the interface itself.

        Raises:
            LocalProtocolError: there is one with this key already.
            ConfigError: its endpoint is a name, or there are too many peers.
        """
        self.engine.add_peer(peer, self._now(), realm)
        self._flush_soon()

    def update_peer(self, peer: PeerConfig) -> None:
        """Bring a peer to this configuration; its session goes on.

        Raises:
            LocalProtocolError: there is no such peer.
            ConfigError: its endpoint is a name.
        """
        self.engine.update_peer(peer, self._now())
        self._flush_soon()

    def remove_peer(self, public_key: PublicKey | str) -> None:
        """Forget a peer.

        Raises:
            LocalProtocolError: there is no such peer.
        """
        self.engine.remove_peer(public_key, self._now())

    def start_handshake(self, public_key: PublicKey | str, *, at: Endpoint | str | None = None) -> None:
        """Shake hands with a peer now, however fresh its session is; at most once per REKEY_TIMEOUT and place.

        Args:
            public_key: of the peer.
            at: look for it there from now on; see `Engine.start_handshake`.

        Raises:
            LocalProtocolError: there is no such peer.
            ConfigError: `at` is a name.
        """
        self.engine.start_handshake(public_key, self._now(), at=at)
        self._flush_soon()

    def add_realm(self, realm: Realm, door: NetDevice) -> None:
        """Let packets of a realm come from and go to a door of their own; who asks it for packets calls `send_from`."""
        self._doors[realm] = door

    def remove_realm(self, realm: Realm) -> None:
        """Forget a realm with its peers, and close its door."""
        self._send_nowait(self._doors[realm].last_batch(), realm)
        self.engine.remove_realm(realm, self._now())
        self._doors.pop(realm).close()

    async def send_from(self, realm: Realm) -> None:
        """Send what the door of a realm has, and wait until there was room for it."""
        slabs = self._doors[realm].read_batch()
        if slabs:
            self.engine.send_slabs(slabs, self._now(), realm)
        # Even asking for packets may have started a handshake (`Engine.may_send`).
        self._flush()
        await self._catch_up()

    def set_up(self, is_up: bool) -> None:
        """Follow the state of the interface."""
        self.engine.set_up(is_up, self._now())
        self._flush_soon()

    def set_mtu(self, mtu: int) -> None:
        """Follow the MTU of the interface."""
        self.packets.mtu = mtu
        self.engine.set_mtu(mtu)

    def _flush_soon(self) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._flush_and_catch_up)

    async def _flush_and_catch_up(self) -> None:
        self._flush()
        await self._catch_up()

    # --- for people --------------------------------------------------------------------------------------------------

    def statistics(self) -> EngineStatistics:
        """Peers, drops and queues at this moment."""
        statistics = self.engine.statistics()
        drops: dict[DropReason, int] = dict(statistics.drops)
        for reason, count in self.packets.drops.items():
            drops[reason] = drops.get(reason, 0) + count
        return dataclasses.replace(statistics, drops=drops)

    def peer_statistics(self, public_key: PublicKey | str) -> PeerStatistics:
        """One peer at this moment, for whoever has too many to look at all.

        Raises:
            LocalProtocolError: there is no such peer.
        """
        return self.engine.peer_statistics(public_key, self._now())

    def state(self) -> DeviceState:
        """What `wg show` wants to know."""
        return self.engine.state()
