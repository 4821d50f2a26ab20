"""One peer: what goes to it, what comes from it, and what its timers ask for.

In packet order: packets for it arrive in `send`, are staged or sealed, and leave through the shared outbox. Its
handshakes are made by `initiate`, `answer` and `complete`. Datagrams for one of its keypairs arrive in `receive`. Facts
go to `timers`; what they ask for comes back through `expire`. The engine owns the peer table; nothing here knows other
peers.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from wgpy.constants import (
    HANDSHAKE_TOS,
    INITIATION_INTERVAL,
    INITIATION_SIZE,
    REFRESH_ON_RECEIVE_AFTER,
    REJECT_AFTER_MESSAGES,
    REKEY_TIMEOUT,
    REKEY_TIMEOUT_JITTER,
    RESPONSE_SIZE,
)
from wgpy.crypto import dh
from wgpy.dataplane import transport
from wgpy.dataplane.nesting import NO_HOPS_LEFT, hop_limit_of_nested
from wgpy.dataplane.slab import Slab
from wgpy.errors import BadPacket, DropReason
from wgpy.noise import handshake
from wgpy.noise.cookie import CookieMaker
from wgpy.noise.keypair import Keypair, KeypairSlots
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.protocol.events import (
    EndpointChanged,
    HandshakeCompleted,
    HandshakeGaveUp,
    InitiationReceived,
    SessionExpired,
    SilenceEnded,
)
from wgpy.protocol.shared import largest_datagram
from wgpy.protocol.staging import StagedPackets
from wgpy.protocol.statistics import PeerStatistics
from wgpy.protocol.timers import Due, PeerTimers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wgpy.config import Endpoint
    from wgpy.keys import PrivateKey, PublicKey
    from wgpy.protocol.realm import Realm
    from wgpy.protocol.shared import Shared

__all__ = ["Peer"]

_NO_PSK = bytes(32)
# Two initiations "20 ms apart" by a clock of binary fractions may be a hair less.
_ROUNDING = 1e-9


class Peer:
    """State of one peer.

    Attributes:
        public_key: its name.
        worker: that holds it, None if that is this one; see `shard`.
        realm: that it belongs to.
        preshared_key: 32 octets, zeros for none; read when a response is made or consumed (trap T27).
        endpoint: where it is, None if not known yet.
        local: the local address and interface that it last reached us on, None to let the system choose.
        pins_endpoint: its endpoint never moves once it is known (library option).
        staged: packets that wait for a session.
        timers: its deadlines.
        slots: its keypairs.
    """

    __slots__ = (
        "_cookies",
        "_drops",
        "_greatest_timestamp",
        "_handshake_gate",
        "_initiation",
        "_initiation_accepted_at",
        "_is_unanswered",
        "_jitter",
        "_last_handshake_time",
        "_last_received_at",
        "_sent_timestamp",
        "_shared",
        "_static_static",
        "endpoint",
        "local",
        "pins_endpoint",
        "preshared_key",
        "public_key",
        "realm",
        "rx_bytes",
        "slots",
        "staged",
        "timers",
        "tx_bytes",
        "worker",
    )

    def __init__(self, shared: Shared, public_key: PublicKey, realm: Realm) -> None:
        """Start without endpoint, session or packets."""
        self._shared = shared
        self.public_key = public_key
        self.realm = realm
        worker = shared.shard.worker_of(public_key)
        self.worker = None if worker == shared.shard.number else worker
        self.preshared_key = _NO_PSK
        self.endpoint: Endpoint | None = None
        self.local: object | None = None
        self.pins_endpoint = False
        self.staged = StagedPackets(shared.staging, self.drop)
        self.timers = PeerTimers()
        self.slots = KeypairSlots()
        self.tx_bytes = 0
        self.rx_bytes = 0
        self._cookies = CookieMaker(bytes(public_key))
        self._drops: dict[DropReason, int] | None = None
        self._initiation: handshake.InitiationState | None = None
        self._initiation_accepted_at = float("-inf")
        self._greatest_timestamp = b""
        self._sent_timestamp = b""
        self._handshake_gate = float("-inf")
        self._jitter = 0.0
        self._last_handshake_time = 0.0
        self._last_received_at: float | None = None
        self._is_unanswered = False
        self._static_static: bytes | None = None
        self.identity_changed(shared.private_key)

    def drop(self, reason: DropReason, count: int = 1) -> None:
        """Count packets refused, here and for the whole device."""
        if self._drops is None:
            self._drops = {}
        self._drops[reason] = self._drops.get(reason, 0) + count
        self._shared.drop(reason, count)

    # --- packets for this peer ---------------------------------------------------------------------------------------

    def send(self, slabs: Sequence[Slab], count: int, now: float) -> None:
        """Seal and queue every row of the slabs, or stage them and ask for a handshake.

        Args:
            slabs: unsealed, in order.
            count: rows of all slabs together.
            now: engine time.
        """
        keypair = self.slots.current
        if keypair is not None and not self.staged.count and keypair.may_send(now, count):
            self._seal(slabs, keypair, count, now)
            self.timers.data_sent(now, self._jitter)
            return
        for slab in slabs:
            self.staged.append(slab)
        self.initiate(now)

    def may_send(self, now: float) -> bool:
        """Whether a packet would leave at once."""
        keypair = self.slots.current
        return keypair is not None and not self.staged.count and keypair.may_send(now, 1)

    def send_staged(self, now: float) -> bool:
        """Send what was staged, if the current keypair may carry it all.

        Returns:
            Whether anything was sent.
        """
        keypair = self.slots.current
        count = self.staged.count
        if not count or self.endpoint is None or keypair is None or not keypair.may_send(now, count):
            return False
        self._seal(self.staged.take(), keypair, count, now)
        self.timers.data_sent(now, self._jitter)
        return True

    def send_keepalive(self, now: float) -> None:
        """Send an empty packet, or what is staged instead; with no session to send on, ask for one (trap T21)."""
        if self.send_staged(now):
            return
        keypair = self.slots.current
        if keypair is None or not keypair.may_send(now, 1):
            self.initiate(now)
        elif self.endpoint is not None:
            self._seal([Slab.of_packet(b"", self._shared.mtu)], keypair, 1, now)

    def _seal(self, slabs: Sequence[Slab], keypair: Keypair, count: int, now: float) -> None:
        endpoint, local = self.endpoint, self.local
        assert endpoint is not None, "the engine asks for an endpoint before it sends"
        largest = largest_datagram(endpoint)
        copies_ecn = self._shared.copies_ecn
        batches: list[DatagramBatch] = []
        octets = 0
        for slab in slabs:
            hop_limit = hop_limit_of_nested(slab)
            if slab.stride > largest or hop_limit == NO_HOPS_LEFT:
                self._seal_what_may(slabs, largest, keypair, now)
                return
            # RFC 6040 section 4.1: the outer header carries the inner congestion bits, and no DSCP (it would tell).
            tos = slab.traffic_class & 0b11 if copies_ecn else 0
            size = slab.size
            octets += size
            batches.append(
                DatagramBatch(
                    slab.arena,
                    slab.stride,
                    endpoint,
                    start=slab.start,
                    length=size,
                    local=local,
                    tos=tos,
                    hop_limit=hop_limit,
                    owner=self,
                )
            )
        cipher, first_counter = keypair.reserve(count)
        index = keypair.remote_index
        if count == 1:
            transport.seal_lone(slabs[0], cipher, receiver_index=index, counter=first_counter)
        else:
            transport.seal_slabs(slabs, cipher, receiver_index=index, first_counter=first_counter)
        self._shared.outbox += batches
        self.tx_bytes += octets
        self.timers.authenticated_sent(now)
        # Whitepaper 6.2: whoever initiated a session replaces it in time, when it has something to send.
        if keypair.wants_successor(now):
            self.initiate(now)

    def _seal_what_may(self, slabs: Sequence[Slab], largest: int, keypair: Keypair, now: float) -> None:
        kept: list[Slab] = []
        for slab in slabs:
            if slab.stride > largest:
                self.drop(DropReason.DATAGRAM_TOO_LARGE, slab.count)
            elif hop_limit_of_nested(slab) == NO_HOPS_LEFT:
                self.drop(DropReason.ROUTING_LOOP, slab.count)
            else:
                kept.append(slab)
        if kept:
            self._seal(kept, keypair, sum(slab.count for slab in kept), now)

    # --- handshakes --------------------------------------------------------------------------------------------------

    def initiate(self, now: float, *, is_retry: bool = False) -> None:
        """Send a new initiation, unless one left within REKEY_TIMEOUT or there is nobody to send it as or to.

        Every one is new: ephemeral key, index and timestamp; the responder refuses a copy (trap T24). Whoever asks for
        one that is no retry still wants the peer, so the count towards giving up starts again, sent or not.
        """
        if not is_retry:
            self.timers.attempts = 0
        shared = self._shared
        private_key, endpoint, static_static = shared.private_key, self.endpoint, self._static_static
        if private_key is None or endpoint is None or static_static is None or not shared.is_up:
            return
        if now < self._handshake_gate:
            if is_retry:
                self.timers.postpone_retry(self._handshake_gate)
            return
        self._forget_initiation()
        ephemeral = dh.Secret(shared.random(32))
        self._sent_timestamp = shared.next_timestamp(self._sent_timestamp)
        self._initiation, body = handshake.create_initiation(
            static=private_key.secret,
            remote_static=bytes(self.public_key),
            static_static=static_static,
            ephemeral=ephemeral,
            timestamp=self._sent_timestamp,
            sender_index=shared.indices.allocate(),
        )
        shared.indices.put(self._initiation.sender_index, (self, None))
        self._log_keys(private_key, ephemeral)
        self._handshake_gate = now + REKEY_TIMEOUT
        self._jitter = shared.unit() * REKEY_TIMEOUT_JITTER
        self._send_handshake(self._cookies.add_macs(body, now), endpoint, self.local)
        self.timers.handshake_initiated(now, self._jitter, is_retry=is_retry)
        self.timers.authenticated_sent(now)

    def answer(self, opened: handshake.OpenedInitiation, remote: Endpoint, local: object | None, now: float) -> None:
        """Answer an initiation whose static key is this peer's.

        Raises:
            BadPacket: it is forged, not newer than the last, or too soon after it; nothing has changed then.
        """
        if self._static_static is None:
            raise BadPacket(DropReason.LOW_ORDER_POINT)
        initiation = opened.authenticate_untrusted(self._static_static)
        if initiation.timestamp <= self._greatest_timestamp:
            raise BadPacket(DropReason.REPLAYED_TIMESTAMP)
        if now - self._initiation_accepted_at < INITIATION_INTERVAL - _ROUNDING:
            raise BadPacket(DropReason.INITIATION_FLOOD)
        shared = self._shared
        private_key = shared.private_key
        assert private_key is not None, "the engine admits no handshake without a private key"
        ephemeral = dh.Secret(shared.random(32))
        index = shared.indices.allocate()
        body, keys = handshake.create_response(
            initiation, preshared_key=self.preshared_key, ephemeral=ephemeral, sender_index=index
        )
        # The initiation is authentic: from here on state changes.
        self._greatest_timestamp = initiation.timestamp
        self._initiation_accepted_at = now
        self._authenticated(remote, local, INITIATION_SIZE, now)
        shared.events.append(InitiationReceived(self.public_key, remote))
        keypair = Keypair(
            keys, local_index=index, remote_index=initiation.sender_index, is_initiator=False, created_at=now
        )
        shared.indices.put(index, (self, keypair))
        self._release(self.slots.install_as_responder(keypair))
        self._log_keys(private_key, ephemeral)
        # Trap T15: an answer counts as our own attempt, so that two ends do not shake hands twice.
        self._handshake_gate = now + REKEY_TIMEOUT
        # Trap T16: to where the initiation came from, whatever roaming makes of it.
        self._send_handshake(self._cookies.add_macs(body, now), remote, local)
        self.timers.session_created(now)
        self.timers.authenticated_sent(now)

    def complete(self, message: bytes, remote: Endpoint, local: object | None, now: float) -> None:
        """Take the response to our initiation.

        Raises:
            BadPacket: it does not authenticate; nothing has changed then.
        """
        state, private_key = self._initiation, self._shared.private_key
        if state is None or private_key is None:
            raise BadPacket(DropReason.NO_SUCH_HANDSHAKE)
        remote_index, keys = handshake.consume_response_untrusted(
            state, message, static=private_key.secret, preshared_key=self.preshared_key
        )
        self._initiation = None
        self._authenticated(remote, local, RESPONSE_SIZE, now)
        keypair = Keypair(
            keys, local_index=state.sender_index, remote_index=remote_index, is_initiator=True, created_at=now
        )
        # The keypair inherits the index of the handshake, so that a datagram in flight finds it.
        self._shared.indices.put(state.sender_index, (self, keypair))
        self._release(self.slots.install_as_initiator(keypair))
        self.timers.session_created(now)
        self._handshake_completed(is_initiator=True)
        # The other end may send only after our first packet (trap T25).
        self.send_keepalive(now)

    def take_cookie_untrusted(self, message: bytes, now: float) -> None:
        """Take a cookie reply. It changes the next mac2 and nothing else (trap T7).

        Raises:
            BadPacket: it answers nothing that we sent last, or does not authenticate.
        """
        self._cookies.consume_reply_untrusted(message, now)

    def _send_handshake(self, message: bytes, remote: Endpoint, local: object | None) -> None:
        tos = HANDSHAKE_TOS if self._shared.copies_ecn else 0
        self._shared.send_message(message, remote, local, tos, self)
        self.tx_bytes += len(message)

    def _handshake_completed(self, *, is_initiator: bool) -> None:
        self.timers.handshake_completed()
        self._last_handshake_time = self._shared.wall_clock()
        assert self.endpoint is not None, "an authenticated datagram came from somewhere"
        self._shared.events.append(HandshakeCompleted(self.public_key, self.endpoint, is_initiator))

    def _log_keys(self, private_key: PrivateKey, ephemeral: dh.Secret) -> None:
        # The order is part of the format: Wireshark links a preshared key to the ephemeral key before it.
        log = self._shared.keylog
        if log is None:
            return
        log(f"LOCAL_STATIC_PRIVATE_KEY = {private_key.to_base64()}")
        log(f"REMOTE_STATIC_PUBLIC_KEY = {self.public_key}")
        log(f"LOCAL_EPHEMERAL_PRIVATE_KEY = {base64.b64encode(ephemeral.octets).decode()}")
        if self.preshared_key != _NO_PSK:
            log(f"PRESHARED_KEY = {base64.b64encode(self.preshared_key).decode()}")

    # --- datagrams for one of its keypairs ---------------------------------------------------------------------------

    def receive(
        self, keypair: Keypair, slabs: Sequence[Slab], arrivals: Sequence[DatagramBatch], now: float
    ) -> list[int] | None:
        """Open the rows of transport data for one keypair, in place, and do everything that authentic ones allow.

        Args:
            keypair: in one of the slots.
            slabs: rows as received, in order of arrival.
            arrivals: the batch that each slab came in.
            now: engine time.

        Returns:
            The rows that must not be looked at, numbered on from slab to slab; None when no row is authentic and new.
        """
        cipher = keypair.receiving
        if cipher is None or keypair.is_expired(now):
            self.drop(DropReason.SESSION_EXPIRED, sum(slab.count for slab in slabs))
            return None
        counters, failed = transport.open_slabs(slabs, cipher)
        refused = keypair.window.accept_rows(counters, failed)
        if failed or refused:
            if failed:
                self.drop(DropReason.INVALID_TAG, len(failed))
            for row in refused:
                is_end = counters[row] >= REJECT_AFTER_MESSAGES
                self.drop(DropReason.COUNTER_EXHAUSTED if is_end else DropReason.REPLAYED_COUNTER)
            refused = sorted({*failed, *refused})
            if len(refused) == len(counters):
                return None
            arrival = _arrival_of_last(slabs, arrivals, refused, len(counters))
        else:
            arrival = arrivals[-1]
        self._accepted(keypair, arrival, now)
        return refused

    def receive_lone(self, keypair: Keypair, batch: DatagramBatch, now: float) -> bool:
        """`receive` with one datagram: whether it is authentic and new, and so may be looked at."""
        cipher = keypair.receiving
        if cipher is None or keypair.is_expired(now):
            self.drop(DropReason.SESSION_EXPIRED)
            return False
        counter = transport.open_lone(batch.arena.view, batch.start, batch.length, cipher)
        if counter is None:
            self.drop(DropReason.INVALID_TAG)
            return False
        if not keypair.window.accept(counter):
            is_end = counter >= REJECT_AFTER_MESSAGES
            self.drop(DropReason.COUNTER_EXHAUSTED if is_end else DropReason.REPLAYED_COUNTER)
            return False
        self._accepted(keypair, batch, now)
        return True

    def _accepted(self, keypair: Keypair, arrival: DatagramBatch, now: float) -> None:
        """An authentic and new datagram of this keypair came."""
        self._authenticated(arrival.remote, arrival.local, 0, now)
        if keypair is self.slots.next:
            self._release(self.slots.confirm(keypair))
            self._handshake_completed(is_initiator=False)
            self.send_staged(now)
        # Whitepaper 6.2: an initiator that only receives must renew the session too, once.
        if (
            keypair.is_initiator
            and not keypair.was_refreshed
            and keypair is self.slots.current
            and now - keypair.created_at >= REFRESH_ON_RECEIVE_AFTER
        ):
            keypair.was_refreshed = True
            self.initiate(now)

    def _authenticated(self, remote: Endpoint, local: object | None, octets: int, now: float) -> None:
        self.rx_bytes += octets
        self._last_received_at = now
        if not self.pins_endpoint or self.endpoint is None:
            # Identity first: the sockets hand out one object per address.
            if remote is not self.endpoint and remote != self.endpoint:
                self.endpoint = remote
                self._shared.events.append(EndpointChanged(self.public_key, remote))
            self.local = local
        if self._is_unanswered:
            self._is_unanswered = False
            self._shared.events.append(SilenceEnded(self.public_key))
        self.timers.authenticated_received(now)

    # --- timers ------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Do what the timers that ran out ask for."""
        for due in self.timers.expire(now):
            match due:
                case Due.SESSION_EXPIRED:
                    self._shared.events.append(SessionExpired(self.public_key))
                case Due.ZERO_KEYS:
                    self._forget_sessions()
                case Due.RETRY_HANDSHAKE:
                    # The path may have died with the address that we send from.
                    self.local = None
                    self.initiate(now, is_retry=True)
                case Due.GIVE_UP:
                    self._is_unanswered = True
                    self.staged.flush()
                    self._shared.events.append(HandshakeGaveUp(self.public_key))
                case Due.NEW_HANDSHAKE:
                    self._is_unanswered = True
                    self.local = None
                    self.initiate(now)
                case Due.KEEPALIVE | Due.PERSISTENT_KEEPALIVE:
                    self.send_keepalive(now)
                case Due.KEEPALIVE_AGAIN:
                    self.send_keepalive(now)  # which stops the timer, as everything that is sent does
                    self.timers.keepalive_again(now)

    # --- reconfiguration ---------------------------------------------------------------------------------------------

    def identity_changed(self, private_key: PrivateKey | None) -> None:
        """Our private key is another one: what was agreed with the old one may finish, nothing more is sent on it.

        An all-zero shared secret leaves a peer that is shown and can do no handshake (trap T10).
        """
        self._static_static = None
        if private_key is not None and self.worker is None:
            try:
                self._static_static = private_key.secret.exchange(bytes(self.public_key))
            except BadPacket:
                self._static_static = None
        self.slots.stop_sending()
        self._forget_initiation()
        self._handshake_gate = float("-inf")

    def set_endpoint(self, endpoint: Endpoint | None) -> None:
        """Move the peer by configuration; the cached source address goes with the old place."""
        self.endpoint = endpoint
        self.local = None

    def try_endpoint(self, endpoint: Endpoint) -> None:
        """Look for the peer at one of its places; at another one than before the first initiation need not wait."""
        if endpoint != self.endpoint:
            self.set_endpoint(endpoint)
            self._handshake_gate = float("-inf")

    def set_persistent_keepalive(self, seconds: int, now: float) -> None:
        """Send a packet every so many seconds; switching it on sends one at once when the interface is up."""
        was_off = not self.timers.persistent_interval
        self.timers.set_persistent_interval(seconds, now if self._shared.is_up else float("inf"))
        # Before the first moment there is nobody to send it: the timer, due at once, does.
        if seconds and was_off and self._shared.is_up and now > float("-inf"):
            self.send_keepalive(now)

    def go_up(self, now: float) -> None:
        """The interface came up: the first handshake need not wait for the gate."""
        self._handshake_gate = float("-inf")
        self.timers.set_persistent_interval(self.timers.persistent_interval, now)
        if self.timers.persistent_interval:
            self.send_keepalive(now)

    def go_down(self) -> None:
        """The interface went down: nothing is kept that could be sent later."""
        self.staged.flush()
        self.timers.stop()
        self._forget_sessions()
        self._handshake_gate = float("-inf")

    def _forget_sessions(self) -> None:
        self._forget_initiation()
        self._release(self.slots.clear())

    def _forget_initiation(self) -> None:
        if self._initiation is not None:
            self._shared.indices.release(self._initiation.sender_index)
            self._initiation = None

    def _release(self, keypairs: list[Keypair]) -> None:
        for keypair in keypairs:
            self._shared.indices.release(keypair.local_index)

    # --- for people --------------------------------------------------------------------------------------------------

    @property
    def last_handshake_time(self) -> float:
        """Wall clock of the last completed handshake, Unix seconds; 0 if never."""
        return self._last_handshake_time

    def statistics(self, now: float) -> PeerStatistics:
        """A frozen snapshot."""
        current = self.slots.current
        return PeerStatistics(
            public_key=self.public_key,
            endpoint=self.endpoint,
            last_handshake_time=self._last_handshake_time,
            last_received_at=self._last_received_at,
            silent_for=None if self._last_received_at is None else now - self._last_received_at,
            tx_bytes=self.tx_bytes,
            rx_bytes=self.rx_bytes,
            staged_packets=self.staged.count,
            handshake_attempts=max(0, self.timers.unanswered - 1),
            has_session=current is not None and current.may_send(now, 1),
            drops=dict(self._drops or {}),
        )

    def __repr__(self) -> str:
        """The public key only."""
        return f"<Peer {self.public_key!r} at {self.endpoint}>"


def _arrival_of_last(
    slabs: Sequence[Slab], arrivals: Sequence[DatagramBatch], refused: list[int], total: int
) -> DatagramBatch:
    """The batch of the last row that was accepted: the last authenticated datagram decides where a peer is."""
    bad = set(refused)
    last = next(row for row in range(total - 1, -1, -1) if row not in bad)
    for slab, arrival in zip(slabs, arrivals, strict=True):
        if last < slab.count:
            return arrival
        last -= slab.count
    raise AssertionError("a row beyond the last slab")
