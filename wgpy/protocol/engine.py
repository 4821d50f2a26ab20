"""The engine: many peers behind one port. Datagrams, packets and the time in; datagrams, packets and events out.

    packets   -> send_slabs       -> AllowedIPs of the destination -> Peer.send      -> datagrams_to_send
    datagrams -> receive_batches  -> receiver index -> Peer.receive -> AllowedIPs of the source -> packets_to_deliver
                                                                       (both in the peer's realm)
              -> (handshake)      -> HandshakeDoor  -> Peer.answer, Peer.complete    -> datagrams_to_send
    time      -> handle_timer     -> Peer.expire                                     -> datagrams_to_send

It opens no socket, asks no clock and draws no randomness by itself: the same calls give the same bytes. Data from the
network never raises; whatever is refused is counted under a `DropReason`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wgpy.config import Endpoint
from wgpy.constants import (
    COOKIE_REPLY_SIZE,
    DEFAULT_MTU,
    HANDSHAKES_PER_CALL,
    ICMP_ERRORS_PER_SECOND,
    INITIATION_SIZE,
    MAX_MTU,
    MAX_PEERS,
    MESSAGE_COOKIE_REPLY,
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    MESSAGE_TRANSPORT,
    RESPONSE_SIZE,
    TAG_SIZE,
    TRANSPORT_HEADER_SIZE,
    TRANSPORT_OVERHEAD,
)
from wgpy.dataplane import ecn, inner, transport
from wgpy.dataplane.slab import Slab
from wgpy.errors import BadPacket, ConfigError, DropReason, LocalProtocolError
from wgpy.keys import PresharedKey, PublicKey
from wgpy.noise import handshake
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.protocol.deadlines import DeadlineHeap
from wgpy.protocol.door import HandshakeDoor
from wgpy.protocol.events import UnknownPeer
from wgpy.protocol.peer import Peer
from wgpy.protocol.realm import Realm
from wgpy.protocol.shard import Forward, Shard
from wgpy.protocol.shared import Shared
from wgpy.protocol.statistics import EngineStatistics, PeerStatistics
from wgpy.protocol.timers import NEVER
from wgpy.uapi import DeviceState, DeviceUpdate, PeerState, PeerUpdate
from wgpy.wire import icmp, ip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wgpy.config import InterfaceConfig, PeerConfig
    from wgpy.keys import PrivateKey
    from wgpy.noise.keypair import Keypair
    from wgpy.protocol.events import Event

__all__ = ["Engine"]

_TRANSPORT_HEAD: Final = MESSAGE_TRANSPORT.to_bytes(4, "little")
# Handshake messages: type as it stands in the datagram, reserved bytes included (trap T1), to the one size it may have.
_SIZE_OF: Final = {
    MESSAGE_INITIATION.to_bytes(4, "little"): INITIATION_SIZE,
    MESSAGE_RESPONSE.to_bytes(4, "little"): RESPONSE_SIZE,
    MESSAGE_COOKIE_REPLY.to_bytes(4, "little"): COOKIE_REPLY_SIZE,
}
# Peers woken per call: ten thousand that shake hands at the same moment must not stall transport for a second.
_PEERS_PER_CALL: Final = 64
# RFC 3168: congestion experienced, and the two marks that say a packet can carry it.
_ECN_OF_INTEREST: Final = (0b01, 0b11)


class Engine:
    """One WireGuard interface without I/O.

    Every verb that takes `now` wants it to grow. Slabs and batches that come out are views into the buffers that went
    in: use them before the buffers are used again.

    Attributes:
        listen_port: for the owner of the sockets; the engine only reports it.
        fwmark: likewise.
        holds_handshakes: the owner calls `work_off_handshakes` when it is their turn; otherwise every call that takes
            datagrams or the time works off some.

    Example:
        >>> a_key, b_key = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate()
        >>> a_at, b_at = wgpy.Endpoint("192.0.2.1", 51820), wgpy.Endpoint("192.0.2.2", 51820)
        >>> to_b = wgpy.PeerConfig(b_key.public_key, allowed_ips=["10.0.0.2/32"], endpoint=b_at)
        >>> to_a = wgpy.PeerConfig(a_key.public_key, allowed_ips=["10.0.0.1/32"])
        >>> world = {"random": secrets.token_bytes, "wall_clock": time.time}
        >>> a = wgpy.Engine(wgpy.InterfaceConfig(a_key, peers=[to_b]), **world)
        >>> b = wgpy.Engine(wgpy.InterfaceConfig(b_key, peers=[to_a]), **world)
        >>> packet = bytes.fromhex("4500001c00004000401126cf0a0000010a000002000700070008ebcd")
        >>> a.send_packet(packet, now=0.0)  # no session yet: it waits, and an initiation leaves
        >>> for now in (0.00, 0.02):
        ...     for batch in a.datagrams_to_send():
        ...         b.receive_datagrams(batch.arriving_from(a_at), now)
        ...     for batch in b.datagrams_to_send():
        ...         a.receive_datagrams(batch.arriving_from(b_at), now)
        >>> [bytes(row) for slab in b.packets_to_deliver() for row in slab] == [packet]
        True
    """

    def __init__(
        self,
        config: InterfaceConfig,
        *,
        random: Callable[[int], bytes],
        wall_clock: Callable[[], float],
        keylog: Callable[[str], None] | None = None,
        mtu: int = DEFAULT_MTU,
        is_up: bool = True,
        copies_ecn: bool = True,
        last_timestamp: bytes = b"",
        shard: Shard = Shard(),  # noqa: B008 - immutable
    ) -> None:
        """Take a configuration and the world.

        Args:
            config: keys and peers; endpoints must be addresses, not names.
            random: returns that many unpredictable octets, such as `secrets.token_bytes`.
            wall_clock: Unix seconds; for handshake timestamps and `last_handshake_time` only.
            keylog: called with one line per handshake secret, in Wireshark's format.
            mtu: of the interface.
            is_up: whether the interface is up; a persistent keepalive leaves at the first `handle_timer` then.
            copies_ecn: mark handshakes AF41 and let congestion marks cross the tunnel (RFC 6040).
            last_timestamp: the `greatest_timestamp` of an earlier run: handshakes succeed even if the clock went back.

            shard: which peers are held here, where several processes share the interface.

        Raises:
            ConfigError: an endpoint is a name, or there are too many peers.
        """
        self._shared = Shared(
            random=random,
            wall_clock=wall_clock,
            keylog=keylog,
            mtu=min(mtu, MAX_MTU),
            is_up=is_up,
            copies_ecn=copies_ecn,
            last_timestamp=last_timestamp,
            shard=shard,
        )
        self._forwards: list[Forward] = []
        self._shared.private_key = config.private_key
        self._peers: dict[PublicKey, Peer] = {}
        # The one that every peer is in unless somebody says otherwise, and the others that have packets to deliver.
        self._realm = Realm()
        self._ready_realms: dict[Realm, None] = {}
        self._deadlines: DeadlineHeap[Peer] = DeadlineHeap()
        self._door = HandshakeDoor(self._shared)
        self._now = -NEVER
        self._icmp_credit = float(ICMP_ERRORS_PER_SECOND)
        self._icmp_credited_at = -NEVER
        self.listen_port = config.listen_port
        self.fwmark = config.fwmark
        self.holds_handshakes = False
        for peer_config in config.peers:
            self.add_peer(peer_config, self._now)

    # --- packets in --------------------------------------------------------------------------------------------------

    def send_slabs(self, slabs: Sequence[Slab], now: float, realm: Realm | None = None) -> None:
        """Seal packets for whoever owns their destination, or stage them until there is a session.

        Args:
            slabs: unsealed; the rows of one slab share their destination.
            now: engine time.
            realm: whose door they came through; None for that of the interface itself.
        """
        realm = realm or self._realm
        self._advance(now)
        if not self._shared.is_up or self._shared.private_key is None:
            self._shared.drop(DropReason.INTERFACE_DOWN, sum(slab.count for slab in slabs))
            return
        lookup = realm.allowed_ips.lookup
        if len(slabs) == 1:
            self._send_run(lookup(slabs[0].destination), slabs, slabs[0].count, now, realm)
            return
        peer: Peer | None = None
        run: list[Slab] = []
        count = 0
        # Neighbours for one peer are sealed together: numpy and the cipher are paid per run.
        for slab in slabs:
            owner = lookup(slab.destination)
            if owner is not peer or (owner is None and run):
                self._send_run(peer, run, count, now, realm)
                run, count = [], 0
                peer = owner
            run.append(slab)
            count += slab.count
        self._send_run(peer, run, count, now, realm)

    def send_slab(self, slab: Slab, now: float) -> None:
        """`send_slabs` with one."""
        self.send_slabs((slab,), now)

    def send_packet(self, packet: bytes | bytearray | memoryview, now: float) -> None:
        """`send_slabs` with one IP packet, which is copied and padded."""
        length = ip.true_length_untrusted(packet)
        if not length:
            self._advance(now)
            self._shared.drop(DropReason.INNER_MALFORMED)
            return
        self.send_slabs((Slab.of_packet(memoryview(packet)[:length], self._shared.mtu),), now)

    def _send_run(self, peer: Peer | None, run: Sequence[Slab], count: int, now: float, realm: Realm) -> None:
        if not run:
            return
        if peer is None:
            self._shared.drop(DropReason.NO_PEER_FOR_DESTINATION, count)
        elif peer.worker is not None:
            self._forwards += [Forward(peer.worker, slab.copy()) for slab in run]
            return
        elif peer.endpoint is None:
            peer.drop(DropReason.NO_ENDPOINT, count)
        else:
            peer.send(run, count, now)
            self._schedule(peer)
            return
        for slab in run:
            self._answer_unreachable(slab, now, realm)

    def _answer_unreachable(self, slab: Slab, now: float, realm: Realm) -> None:
        """Tell the sender at once that nobody is there, instead of letting it wait (RFC 1122 3.2.2, RFC 4443 2.4)."""
        self._icmp_credit = min(
            float(ICMP_ERRORS_PER_SECOND),
            self._icmp_credit + max(0.0, now - self._icmp_credited_at) * ICMP_ERRORS_PER_SECOND,
        )
        self._icmp_credited_at = now
        if self._icmp_credit < 1:
            return
        answer = icmp.host_unreachable(bytes(next(iter(slab))))
        if answer is not None:
            self._icmp_credit -= 1
            self._deliver(Slab.of_packet(answer, len(answer)), realm)  # nobody seals it: no padding

    def refusal(self, destination: bytes, realm: Realm | None = None) -> DropReason | None:
        """Why a packet for an address would be refused whatever the session; None when it would not.

        Args:
            destination: 4 or 16 octets.
            realm: in which; None for that of the interface itself.
        """
        if not self._shared.is_up or self._shared.private_key is None:
            return DropReason.INTERFACE_DOWN
        peer = (realm or self._realm).allowed_ips.lookup(destination)
        if peer is None:
            return DropReason.NO_PEER_FOR_DESTINATION
        return DropReason.NO_ENDPOINT if peer.endpoint is None else None

    def owner_of(self, address: bytes, realm: Realm | None = None) -> PublicKey | None:
        """The peer whose AllowedIPs hold an address, 4 or 16 octets; None when nobody's do."""
        peer = (realm or self._realm).allowed_ips.lookup(address)
        return None if peer is None else peer.public_key

    def may_send(self, destination: bytes, now: float, realm: Realm | None = None) -> bool:
        """Whether a packet for an address would leave at once; if not, a handshake is under way now.

        This is back-pressure: a sender that can wait keeps its packets until `HandshakeCompleted`, instead of having
        the oldest of them dropped. A packet that would be refused need not wait.

        Args:
            destination: 4 or 16 octets.
            now: engine time.
            realm: in which; None for that of the interface itself.
        """
        realm = realm or self._realm
        if self.refusal(destination, realm) is not None:
            return True
        self._advance(now)
        peer = realm.allowed_ips.lookup(destination)
        assert peer is not None, "a destination without a peer is refused"
        if peer.may_send(now):
            return True
        peer.initiate(now)
        self._schedule(peer)
        return False

    # --- datagrams in ------------------------------------------------------------------------------------------------

    def receive_batches(self, batches: Sequence[DatagramBatch], now: float) -> None:
        """Take what the sockets had; transport data is opened in place.

        Args:
            batches: in order of arrival, in writable buffers.
            now: engine time.
        """
        self._advance(now)
        if not self._shared.is_up or self._shared.private_key is None:
            self._shared.drop(DropReason.INTERFACE_DOWN, sum(batch.count for batch in batches))
            return
        if len(batches) == 1 and self._receive_lone(batches[0], now):
            return
        lookup = self._shared.indices.lookup
        owner: tuple[Peer, Keypair | None] | None = None
        outer_ecn = 0
        slabs: list[Slab] = []
        arrivals: list[DatagramBatch] = []
        for batch in batches:
            for run in transport.runs_untrusted(batch.arena, batch.start, batch.length, batch.segment_size):
                slab = run.slab
                if slab is None:
                    for message in run:
                        self._receive_message(bytes(message), batch, now)
                    continue
                found = lookup(run.head[4:])
                if found is not owner or batch.tos & 0b11 != outer_ecn:
                    if slabs:
                        self._receive_transport(owner, slabs, arrivals, outer_ecn, now)
                        slabs, arrivals = [], []
                    owner = found
                    outer_ecn = batch.tos & 0b11
                slabs.append(slab)
                arrivals.append(batch)
        if slabs:
            self._receive_transport(owner, slabs, arrivals, outer_ecn, now)
        if not self.holds_handshakes:
            self.work_off_handshakes(now)

    def receive_datagrams(self, batch: DatagramBatch, now: float) -> None:
        """`receive_batches` with one."""
        self.receive_batches((batch,), now)

    def receive_datagram(
        self, data: bytes | bytearray | memoryview, remote: Endpoint, now: float, *, local: object | None = None
    ) -> None:
        """`receive_batches` with one datagram, which is copied."""
        self.receive_batches((DatagramBatch(bytearray(data), len(data), remote, local=local),), now)

    def _receive_lone(self, batch: DatagramBatch, now: float) -> bool:
        """Take one datagram of a session, as it comes on a quiet line; False if it is something else."""
        length = batch.length
        if not TRANSPORT_OVERHEAD < length <= batch.segment_size or batch.tos & 0b11:
            return False
        view, start = batch.arena.view, batch.start
        if view[start : start + 4] != _TRANSPORT_HEAD:
            return False
        owner = self._shared.indices.lookup(bytes(view[start + 4 : start + 8]))
        if owner is None:
            return False
        peer, keypair = owner
        if keypair is None:
            return False
        if not peer.receive_lone(keypair, batch, now):
            return True
        peer.timers.data_received(now)
        self._schedule(peer)
        at = start + TRANSPORT_HEADER_SIZE
        packet = view[at : start + length - TAG_SIZE]
        true_length = ip.true_length_untrusted(packet)
        if not true_length:
            peer.drop(DropReason.INNER_MALFORMED)
        elif peer.realm.allowed_ips.lookup(ip.source(packet)) is not peer:
            peer.drop(DropReason.DISALLOWED_SOURCE)
        else:
            peer.rx_bytes += length
            self._deliver(Slab(batch.arena, start, length, 1, true_length), peer.realm)
        return True

    def _receive_transport(
        self,
        owner: tuple[Peer, Keypair | None] | None,
        slabs: list[Slab],
        arrivals: list[DatagramBatch],
        outer_ecn: int,
        now: float,
    ) -> None:
        if owner is None or owner[1] is None:
            self._shared.drop(DropReason.UNKNOWN_INDEX, sum(slab.count for slab in slabs))
            return
        peer, keypair = owner[0], owner[1]
        refused = peer.receive(keypair, slabs, arrivals, now)
        if refused is None:
            return
        rows = inner.sort_rows(slabs, refused)
        if rows.keepalives:
            peer.rx_bytes += rows.keepalives * TRANSPORT_OVERHEAD
        if rows.groups or rows.malformed:
            peer.timers.data_received(now)
        self._schedule(peer)
        if rows.malformed:
            peer.drop(DropReason.INNER_MALFORMED, rows.malformed)
        realm = peer.realm
        for group in rows.groups:
            # Whitepaper section 2: the owner of the longest prefix that holds the source must be this very peer (S10).
            if realm.allowed_ips.lookup(group.source) is not peer:
                peer.drop(DropReason.DISALLOWED_SOURCE, group.slab.count)
                continue
            peer.rx_bytes += group.octets
            if outer_ecn in _ECN_OF_INTEREST and self._shared.copies_ecn:
                ecn.decapsulate(group.slab, outer_ecn)
            self._deliver(group.slab, realm)

    def _deliver(self, slab: Slab, realm: Realm) -> None:
        realm.inbox.append(slab)
        if realm is not self._realm:
            self._ready_realms[realm] = None

    # --- handshakes --------------------------------------------------------------------------------------------------

    def _receive_message(self, message: bytes, batch: DatagramBatch, now: float) -> None:
        size = _SIZE_OF.get(message[:4])
        if size is None:
            is_short_transport = message[:4] == _TRANSPORT_HEAD
            self._shared.drop(DropReason.WRONG_LENGTH if is_short_transport else DropReason.UNKNOWN_TYPE)
        elif len(message) != size:
            self._shared.drop(DropReason.WRONG_LENGTH)
        elif size == COOKIE_REPLY_SIZE:
            # Trap T6: it names the message it answers by our index, of a handshake or of a session.
            owner = self._shared.indices.lookup(message[4:8])
            if owner is None:
                self._shared.drop(DropReason.COOKIE_UNEXPECTED)
                return
            try:
                owner[0].take_cookie_untrusted(message, now)
            except BadPacket as bad:
                owner[0].drop(bad.reason)
        else:
            self._door.knock(message, batch.remote, batch.local)

    @property
    def waiting_handshakes(self) -> int:
        """How many handshake messages wait for `work_off_handshakes`."""
        return self._door.waiting

    def work_off_handshakes(self, now: float) -> None:
        """Let some of those in that wait at the door: one or two milliseconds of work."""
        for _ in range(HANDSHAKES_PER_CALL):
            knock = self._door.admit(now)
            if knock is None:
                return
            try:
                if len(knock.message) == INITIATION_SIZE:
                    self._receive_initiation(knock.message, knock.remote, knock.local, now)
                else:
                    self._receive_response(knock.message, knock.remote, knock.local, now)
            except BadPacket as bad:
                self._shared.drop(bad.reason)

    def _receive_initiation(self, message: bytes, remote: Endpoint, local: object | None, now: float) -> None:
        private_key = self._shared.private_key
        assert private_key is not None, "the door admits nobody without a private key"
        opened = handshake.consume_initiation_untrusted(message, static=private_key.secret)
        public_key = PublicKey(opened.remote_static)
        peer = self._peers.get(public_key)
        if peer is None:
            self._shared.events.append(UnknownPeer(public_key, remote))
            raise BadPacket(DropReason.UNKNOWN_PEER)
        if peer.worker is not None:
            self._forwards.append(Forward(peer.worker, None, message, remote, local))
            return
        peer.answer(opened, remote, local, now)
        self._schedule(peer)

    def _receive_response(self, message: bytes, remote: Endpoint, local: object | None, now: float) -> None:
        owner = self._shared.indices.lookup(message[8:12])
        if owner is None or owner[1] is not None:
            raise BadPacket(DropReason.NO_SUCH_HANDSHAKE)
        owner[0].complete(message, remote, local, now)
        self._schedule(owner[0])

    # --- time --------------------------------------------------------------------------------------------------------

    def handle_timer(self, now: float) -> None:
        """Do what is due. A great many peers due at once are spread over several calls: ask `next_deadline` again."""
        self._advance(now)
        for _ in range(_PEERS_PER_CALL):
            peer = self._deadlines.pop_due(now)
            if peer is None:
                break
            peer.expire(now)
            self._schedule(peer)
        self._door.sweep(now)
        if not self.holds_handshakes:
            self.work_off_handshakes(now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do; in the past when it has something to do already, None if never."""
        if self._door.waiting and not self.holds_handshakes:
            return self._now
        deadline = self._deadlines.next_deadline()
        sweep = self._door.sweep_deadline()
        if sweep is not None and sweep < deadline:
            deadline = sweep
        return None if deadline == NEVER else deadline

    def _advance(self, now: float) -> None:
        if now < self._now:
            raise LocalProtocolError(f"time runs backwards: {now} after {self._now}")
        self._now = now

    def _schedule(self, peer: Peer) -> None:
        self._deadlines.wake_by(peer, peer.timers.next_deadline())

    # --- out ---------------------------------------------------------------------------------------------------------

    def datagrams_to_send(self) -> list[DatagramBatch]:
        """Everything that waits to be sent, in order; handed out once."""
        outbox = self._shared.outbox
        if outbox:
            self._shared.outbox = []
        return outbox

    def packets_to_deliver(self, realm: Realm | None = None) -> list[Slab]:
        """Everything that waits for the door of a realm, None for that of the interface; in order, handed out once."""
        realm = realm or self._realm
        inbox = realm.inbox
        if inbox:
            realm.inbox = []
        return inbox

    def realms_to_deliver(self) -> list[Realm]:
        """The realms, that of the interface left out, for which `packets_to_deliver` has something; handed out once."""
        if not self._ready_realms:
            return []
        ready = list(self._ready_realms)
        self._ready_realms.clear()
        return ready

    def events(self) -> list[Event]:
        """What happened since the last call."""
        if not self._shared.events:
            return []
        events = list(self._shared.events)
        self._shared.events.clear()
        return events

    def forwards(self) -> list[Forward]:
        """What came here and belongs to another worker; handed out once."""
        forwards = self._forwards
        if forwards:
            self._forwards = []
        return forwards

    def take_forward(self, forward: Forward, now: float) -> None:
        """Take what came to another worker and belongs to this one."""
        if forward.slab is not None:
            self.send_slabs((forward.slab,), now)
        elif forward.remote is not None and self._shared.is_up and self._shared.private_key is not None:
            self._advance(now)
            try:
                self._receive_initiation(forward.initiation, forward.remote, forward.local, now)
            except BadPacket as bad:
                self._shared.drop(bad.reason)

    def send_failed(self, batch: DatagramBatch, reason: DropReason = DropReason.SEND_FAILED) -> None:
        """A batch of `datagrams_to_send` could not be sent: take its octets off the counters again."""
        if isinstance(batch.owner, Peer):
            batch.owner.tx_bytes -= batch.length
            batch.owner.drop(reason, batch.count)
        else:
            self._shared.drop(reason, batch.count)

    def source_failed(self, batch: DatagramBatch) -> None:
        """A batch could not be sent from its `local` address: let the system choose from now on."""
        if isinstance(batch.owner, Peer):
            batch.owner.local = None

    def count_drop(self, reason: DropReason, count: int = 1) -> None:
        """Count packets that the owner of the sockets or of the TUN device had to refuse."""
        self._shared.drop(reason, count)

    # --- reconfiguration ---------------------------------------------------------------------------------------------

    def apply(self, update: DeviceUpdate, now: float) -> None:
        """Change what the update names and nothing else; sessions that it does not concern go on.

        Raises:
            ConfigError: there would be too many peers; nothing has changed then.
        """
        self._advance(now)
        self.check(update)
        if update.clear_private_key:
            self.set_private_key(None, now)
        elif update.private_key is not None:
            self.set_private_key(update.private_key, now)
        if update.listen_port is not None:
            self.listen_port = update.listen_port
        if update.fwmark is not None:
            self.fwmark = update.fwmark
        if update.replace_peers:
            for public_key in list(self._peers):
                self.remove_peer(public_key, now)
        for peer_update in update.peers:
            self._apply_peer(peer_update, now, self._realm)

    def add_peer(self, config: PeerConfig, now: float, realm: Realm | None = None) -> None:
        """Add a peer.

        Args:
            config: its public key may not be in use in any realm.
            now: engine time.
            realm: that it belongs to for good; None for that of the interface itself.

        Raises:
            LocalProtocolError: there is one with this key already.
            ConfigError: its endpoint is a name, or there are too many peers.
        """
        if config.public_key in self._peers:
            raise LocalProtocolError(f"there is a peer {config.public_key} already: use update_peer")
        self._advance(now)
        update = _update_from(config)
        self.check(update)
        self._apply_peer(update.peers[0], now, realm or self._realm)
        self._pin(config)

    def update_peer(self, config: PeerConfig, now: float) -> None:
        """Bring a peer to this configuration; its session goes on. An endpoint of None leaves the known one.

        Raises:
            LocalProtocolError: there is no such peer.
            ConfigError: its endpoint is a name.
        """
        if config.public_key not in self._peers:
            raise LocalProtocolError(f"there is no peer {config.public_key}: use add_peer")
        self.apply(_update_from(config), now)
        self._pin(config)

    def _pin(self, config: PeerConfig) -> None:
        peer = self._peers.get(config.public_key)
        if peer is not None:
            peer.pins_endpoint = config.pin_endpoint

    def remove_peer(self, public_key: PublicKey | str, now: float) -> None:
        """Forget a peer, its sessions, prefixes and timers.

        Raises:
            LocalProtocolError: there is no such peer.
        """
        self._advance(now)
        peer = self._known(public_key)
        del self._peers[peer.public_key]
        peer.go_down()
        self._shared.peer_removed()
        peer.realm.allowed_ips.remove_owner(peer)
        self._deadlines.discard(peer)

    def remove_realm(self, realm: Realm, now: float) -> None:
        """Forget the peers of a realm and what waits for its door."""
        for peer in [peer for peer in self._peers.values() if peer.realm is realm]:
            self.remove_peer(peer.public_key, now)
        realm.inbox.clear()
        self._ready_realms.pop(realm, None)

    def realm_of(self, public_key: PublicKey | str) -> Realm | None:
        """The realm of a peer; None for that of the interface itself, and for a stranger."""
        peer = self._peers.get(PublicKey.of(public_key))
        return None if peer is None or peer.realm is self._realm else peer.realm

    def start_handshake(self, public_key: PublicKey | str, now: float, *, at: Endpoint | str | None = None) -> None:
        """Shake hands with a peer now, however fresh its session is; at most once per REKEY_TIMEOUT and place.

        Whoever wants sessions younger than the protocol asks for calls this on a timer of its own; and so does a server
        that was restarted and remembers where its peers were.

        Args:
            public_key: of the peer.
            now: engine time.
            at: look for it there from now on; another place than the last one need not wait for REKEY_TIMEOUT. Whoever
                has several addresses of one peer tries them so, one soon after the other.

        Raises:
            LocalProtocolError: there is no such peer.
            ConfigError: `at` is a name.
        """
        self._advance(now)
        peer = self._known(public_key)
        if at is not None:
            at = at if isinstance(at, Endpoint) else Endpoint.parse(at)
            if at.is_name:
                raise ConfigError(f"{at} is a name: resolve it first", field="Endpoint")
            peer.try_endpoint(at)
        peer.initiate(now)
        self._schedule(peer)

    def _known(self, public_key: PublicKey | str) -> Peer:
        """By what the constructor of a peer takes too, or a key in its text would name nobody."""
        peer = self._peers.get(PublicKey.of(public_key))
        if peer is None:
            raise LocalProtocolError(f"there is no peer {public_key}")
        return peer

    def set_private_key(self, private_key: PrivateKey | None, now: float) -> None:
        """Become somebody else, or nobody.

        A peer that is then ourselves is removed; setting the same key does nothing.
        """
        self._advance(now)
        if private_key == self._shared.private_key:
            return
        self._shared.private_key = private_key
        if private_key is not None and private_key.public_key in self._peers:
            self.remove_peer(private_key.public_key, now)
        self._door.identity_changed()
        for peer in self._peers.values():
            peer.identity_changed(private_key)

    def set_mtu(self, mtu: int) -> None:
        """Follow the MTU of the interface."""
        self._shared.mtu = min(mtu, MAX_MTU)

    def set_up(self, is_up: bool, now: float) -> None:
        """Follow the state of the interface.

        Down forgets sessions and staged packets, up starts persistent keepalives.
        """
        self._advance(now)
        if is_up == self._shared.is_up:
            return
        self._shared.is_up = is_up
        if not is_up:
            self._door.clear()
        for peer in self._peers.values():
            if is_up:
                peer.go_up(now)
            else:
                peer.go_down()
                self._deadlines.discard(peer)
            self._schedule(peer)

    def suspend(self, now: float) -> None:
        """Forget every session and be silent.

        A machine about to be saved or cloned must not send on them twice (S19).
        """
        self.set_up(False, now)

    def resume(self, now: float) -> None:
        """End of `suspend`: shake hands anew."""
        self.set_up(True, now)

    def forget_sources(self, now: float) -> None:
        """Forget the local addresses that peers were reached from: the port, the mark or the routes changed."""
        self._advance(now)
        for peer in self._peers.values():
            peer.local = None

    def sources(self) -> list[tuple[PublicKey, Endpoint, object]]:
        """Every peer that is answered from an address that it reached, where it is, and that address."""
        return [
            (public_key, peer.endpoint, peer.local)
            for public_key, peer in self._peers.items()
            if peer.local is not None and peer.endpoint is not None
        ]

    def source_of(self, public_key: PublicKey) -> tuple[Endpoint, object] | None:
        """Where a peer is, and the address of ours that it is answered from; None if the system chooses that."""
        peer = self._peers.get(public_key)
        return None if peer is None or peer.local is None or peer.endpoint is None else (peer.endpoint, peer.local)

    def forget_source(self, public_key: PublicKey, local: object) -> None:
        """Let the system choose the address that a peer is answered from, if it is still this one."""
        peer = self._peers.get(public_key)
        if peer is not None and peer.local is local:
            peer.local = None

    def _apply_peer(self, update: PeerUpdate, now: float, realm: Realm) -> None:
        private_key = self._shared.private_key
        if private_key is not None and update.public_key == private_key.public_key:
            return
        peer = self._peers.get(update.public_key)
        if update.remove:
            if peer is not None:
                self.remove_peer(update.public_key, now)
            return
        if peer is None:
            if update.update_only:
                return
            peer = self._peers[update.public_key] = Peer(self._shared, update.public_key, realm)
        allowed_ips = peer.realm.allowed_ips
        if update.replace_allowed_ips:
            allowed_ips.remove_owner(peer)
        for is_added, prefix in update.allowed_ips:
            if is_added:
                allowed_ips.insert(prefix, peer)
            else:
                allowed_ips.remove(prefix, peer)
        if peer.worker is not None:
            return
        if update.preshared_key is not None:
            peer.preshared_key = bytes(update.preshared_key)
        if update.endpoint is not None:
            peer.set_endpoint(update.endpoint)
        if update.persistent_keepalive is not None:
            peer.set_persistent_keepalive(update.persistent_keepalive, now)
        if self._shared.is_up and peer.staged.count and not peer.send_staged(now):
            peer.initiate(now)
        self._schedule(peer)

    def check(self, update: DeviceUpdate) -> None:
        """Whether `apply` would take the update.

        Raises:
            ConfigError: there would be too many peers, or an endpoint is a name.
        """
        for peer in update.peers:
            if peer.endpoint is not None and peer.endpoint.is_name:
                raise ConfigError(f"{peer.endpoint} is a name: resolve it first", field="Endpoint")
        known: set[PublicKey] = set() if update.replace_peers else set(self._peers)
        if len(known) + len(update.peers) <= MAX_PEERS:
            return
        known.update(peer.public_key for peer in update.peers if not peer.remove and not peer.update_only)
        if len(known) > MAX_PEERS:
            raise ConfigError(f"{len(known)} peers are more than the {MAX_PEERS} one interface can hold", field="Peer")

    # --- for people --------------------------------------------------------------------------------------------------

    @property
    def mtu(self) -> int:
        """The MTU of the interface."""
        return self._shared.mtu

    @property
    def is_up(self) -> bool:
        """Whether the interface is up."""
        return self._shared.is_up

    @property
    def private_key(self) -> PrivateKey | None:
        """Who we are, None when cleared."""
        return self._shared.private_key

    @property
    def greatest_timestamp(self) -> bytes:
        """The greatest handshake timestamp ever sent, 12 octets of TAI64N, or empty; see `last_timestamp`."""
        return self._shared.greatest_timestamp

    def statistics(self) -> EngineStatistics:
        """A frozen snapshot."""
        return EngineStatistics(
            peers={public_key: peer.statistics(self._now) for public_key, peer in self._peers.items()},
            drops=dict(self._shared.drops),
            handshake_queue=self._door.waiting,
            is_under_load=self._door.is_under_load(self._now),
            staged_packets=self._shared.staging.count,
            sessions=len(self._shared.indices),
        )

    def peer_statistics(self, public_key: PublicKey | str, now: float) -> PeerStatistics:
        """The snapshot of one peer, for whoever has too many to look at all.

        Raises:
            LocalProtocolError: there is no such peer.
        """
        return self._known(public_key).statistics(now)

    def state(self) -> DeviceState:
        """What `wg show` wants to know."""
        return DeviceState(
            private_key=self._shared.private_key,
            listen_port=self.listen_port,
            fwmark=self.fwmark,
            peers=[self._peer_state(peer) for peer in self._peers.values()],
        )

    def _peer_state(self, peer: Peer) -> PeerState:
        return PeerState(
            public_key=peer.public_key,
            preshared_key=PresharedKey(peer.preshared_key),
            endpoint=peer.endpoint,
            last_handshake_time=peer.last_handshake_time,
            tx_bytes=peer.tx_bytes,
            rx_bytes=peer.rx_bytes,
            persistent_keepalive=peer.timers.persistent_interval,
            allowed_ips=tuple(peer.realm.allowed_ips.of(peer)),
        )


def _update_from(config: PeerConfig) -> DeviceUpdate:
    return DeviceUpdate(
        peers=(
            PeerUpdate(
                public_key=config.public_key,
                preshared_key=PresharedKey(bytes(32)) if config.preshared_key is None else config.preshared_key,
                endpoint=config.endpoint,
                persistent_keepalive=config.persistent_keepalive,
                replace_allowed_ips=True,
                allowed_ips=tuple((True, prefix) for prefix in config.allowed_ips),
            ),
        )
    )
