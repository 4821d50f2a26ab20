"""Device: an engine, its UDP sockets and its packet device, in one nursery.

Three kinds of tasks wake up: a reader per UDP socket, the reader of the packet device, and the timer. Each hands what
it has to the engine and takes out what comes of it at once; nobody reads again before everything it read has left,
because slabs and batches are views into its buffers. The engine is only touched between two checkpoints.

    UDP reader    -> engine.receive_batches -> PacketDevice.write_batch, UdpSockets.send
    packet reader -> engine.send_slabs      -> UdpSockets.send
    timer         -> engine.handle_timer    -> UdpSockets.send
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from typing import TYPE_CHECKING, Final

import trio

from wgpy.errors import DropReason, TunnelClosed
from wgpy.protocol.events import EndpointChanged, Event, HandshakeCompleted, HandshakeGaveUp, UnknownPeer
from wgpy.runtime import world
from wgpy.runtime.udp import UdpSocket, UdpSockets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from wgpy.config import PeerConfig
    from wgpy.dataplane.slab import Slab
    from wgpy.keys import PublicKey
    from wgpy.protocol.engine import Engine
    from wgpy.protocol.statistics import EngineStatistics
    from wgpy.tun.base import PacketDevice
    from wgpy.uapi import DeviceState, DeviceUpdate

__all__ = ["Device"]

_log = logging.getLogger("wgpy.device")
_handshake_log = logging.getLogger("wgpy.handshake")

# A suspended machine stops trio's clock, not that of the protocol: look at the deadlines now and then.
_LONGEST_SLEEP: Final = 20.0
_EVENTS_BUFFERED: Final = 1024
# A peer that moves so often within a minute is probably two machines with one key (trap T22).
_FLAPS_PER_MINUTE: Final = 6


class Device:
    """One WireGuard interface at work.

    Attributes:
        engine: the protocol.
        packets: where inner packets come from and go to.
        udp: the sockets.
        look_at_link: sees whether the interface is up; asked when something arrives for one that seems to be down,
            because what arrives may be quicker than the news that it came up. None where nothing can be seen.
        last_packets: asked at the end for packets that say goodbye; None where nobody is to be told.

    Example:
        >>> async def main():
        ...     async with wgpy.open_device(wgpy.InterfaceConfig(), wgpy.MemoryDevice("demo")) as device:
        ...         device.add_peer(wgpy.PeerConfig(wgpy.PrivateKey.generate().public_key))
        ...         return len(device.statistics().peers)
        >>> trio.run(main)
        1
    """

    def __init__(self, engine: Engine, packets: PacketDevice, udp: UdpSockets) -> None:
        """Put the parts together; `run` makes them work."""
        self.engine = engine
        self.packets = packets
        self.udp = udp
        engine.listen_port = udp.port
        self.look_at_link: Callable[[], Awaitable[None]] | None = None
        self.last_packets: Callable[[], Sequence[Slab]] | None = None
        self._timer = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._subscribers: set[trio.MemorySendChannel[Event]] = set()
        self._moves: dict[PublicKey, list[float]] = {}

    # --- the nursery -------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled or until the packet device is gone; sockets and packet device are closed then.

        Raises:
            TunnelClosed: the packet device was deleted.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._start_readers()
                nursery.start_soon(self._read_packets)
                nursery.start_soon(self._run_timer)
                task_status.started()
        except* TunnelClosed as closed:
            raise TunnelClosed(str(closed.exceptions[0])) from None
        finally:
            self._nursery = None
            if self.last_packets is not None:
                self._send_nowait(self.last_packets())
            # Keys and staged packets go before the sockets do.
            self.engine.set_private_key(None, world.now())
            self.engine.set_up(False, world.now())
            self.udp.close()
            self.packets.close()
            for subscriber in self._subscribers:
                subscriber.close()
            self._subscribers.clear()

    def _start_readers(self) -> None:
        assert self._nursery is not None
        for one in self.udp:
            self._nursery.start_soon(self._read_datagrams, one)

    async def _read_datagrams(self, one: UdpSocket) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            while one.is_open:
                await trio.lowlevel.wait_readable(one.socket)
                if not self.engine.is_up:
                    await self._look_at_link()
                batches = one.receive()
                if batches:
                    self.engine.receive_batches(batches, self._now())
                    await self._flush()

    async def _read_packets(self) -> None:
        packets, engine = self.packets, self.engine
        while True:
            await packets.wait_readable()
            if not engine.is_up:
                await self._look_at_link()
            slabs = packets.read_batch()
            if slabs:
                engine.send_slabs(slabs, self._now())
            # Even asking for packets may have started a handshake (`Engine.may_send`).
            await self._flush()

    async def _look_at_link(self) -> None:
        if self.look_at_link is not None:
            await self.look_at_link()

    async def _run_timer(self) -> None:
        while True:
            self._timer = trio.CancelScope(deadline=self._next_wake())
            with self._timer:
                await trio.sleep_forever()
            self.engine.handle_timer(world.now())
            await self._flush()

    def _next_wake(self) -> float:
        deadline = self.engine.next_deadline()
        left = math.inf if deadline is None else deadline - world.now()
        return trio.current_time() + min(left, _LONGEST_SLEEP)

    def _now(self) -> float:
        """Engine time; what is due by then is done first."""
        now = world.now()
        deadline = self.engine.next_deadline()
        if deadline is not None and deadline <= now:
            self.engine.handle_timer(now)
        return now

    async def _flush(self) -> None:
        """Hand out everything that the engine has; wait for room in the sockets where there is none."""
        engine = self.engine
        slabs = engine.packets_to_deliver()
        if slabs:
            self.packets.write_batch(slabs)
        batches = engine.datagrams_to_send()
        position = 0
        while batches:
            position, full = self.udp.send(batches, position)
            self._note_failures()
            if full is None:
                break
            try:
                await trio.lowlevel.wait_writable(full.socket)
            except trio.ClosedResourceError:
                break
        self._publish()
        # The timer sleeps until a deadline that may have moved closer.
        deadline = engine.next_deadline()
        if deadline is not None:
            wake = trio.current_time() + deadline - world.now()
            if wake < self._timer.deadline:
                self._timer.deadline = wake

    def _send_nowait(self, slabs: Sequence[Slab]) -> None:
        """Seal and send what can be sent without waiting; the rest is lost."""
        self.engine.send_slabs(slabs, self._now())
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
        self._subscribers.add(sender)
        return receiver

    def _publish(self) -> None:
        for event in self.engine.events():
            self._log(event)
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
        now = world.now()
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
            self.engine.forget_sources(world.now())
        if update.listen_port is not None and update.listen_port != self.udp.port:
            try:
                fwmark = self.engine.fwmark if update.fwmark is None else update.fwmark
                self.rebind(update.listen_port, fwmark)
            except OSError:
                if update.fwmark is not None:
                    self.udp.set_fwmark(self.engine.fwmark)
                raise
        update = dataclasses.replace(update, listen_port=self.udp.port)
        self.engine.apply(update, self._now())
        self._flush_soon()

    def rebind(self, port: int, fwmark: int | None = None) -> None:
        """Move to another UDP port; sessions go on.

        Raises:
            DeviceError: the port is taken; the old one stays in use then.
        """
        old = self.udp
        settings = [(one.groups, one.coalesces) for one in old] or [(True, True)]
        self.udp = UdpSockets(
            port,
            fwmark=self.engine.fwmark if fwmark is None else fwmark,
            groups=settings[0][0],
            coalesces=settings[0][1],
        )
        self.engine.listen_port = self.udp.port
        self.engine.forget_sources(world.now())
        for one in old:
            trio.lowlevel.notify_closing(one.socket)
        old.close()
        if self._nursery is not None:
            self._start_readers()

    def add_peer(self, peer: PeerConfig) -> None:
        """Add a peer while traffic flows.

        Raises:
            LocalProtocolError: there is one with this key already.
            ConfigError: its endpoint is a name, or there are too many peers.
        """
        self.engine.add_peer(peer, self._now())
        self._flush_soon()

    def update_peer(self, peer: PeerConfig) -> None:
        """Bring a peer to this configuration; its session goes on.

        Raises:
            LocalProtocolError: there is no such peer.
            ConfigError: its endpoint is a name.
        """
        self.engine.update_peer(peer, self._now())
        self._flush_soon()

    def remove_peer(self, public_key: PublicKey) -> None:
        """Forget a peer.

        Raises:
            LocalProtocolError: there is no such peer.
        """
        self.engine.remove_peer(public_key, self._now())

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
            self._nursery.start_soon(self._flush)

    # --- for people --------------------------------------------------------------------------------------------------

    def statistics(self) -> EngineStatistics:
        """Peers, drops and queues at this moment."""
        statistics = self.engine.statistics()
        drops: dict[DropReason, int] = dict(statistics.drops)
        for reason, count in self.packets.drops.items():
            drops[reason] = drops.get(reason, 0) + count
        return dataclasses.replace(statistics, drops=drops)

    def state(self) -> DeviceState:
        """What `wg show` wants to know."""
        return self.engine.state()
