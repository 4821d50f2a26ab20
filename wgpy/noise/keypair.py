"""A pair of transport keys, its counters and limits; and the three slots that a peer keeps such pairs in.

A handshake ends here: `SessionKeys` become a `Keypair`, the keypair takes a slot, and transport data is sealed and
opened with it until REJECT_AFTER_TIME. This file knows no peer, no timer and no datagram.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wgpy.constants import REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME
from wgpy.crypto.aead import TransportCipher
from wgpy.errors import LocalProtocolError
from wgpy.noise.replay import ReplayWindow

if TYPE_CHECKING:
    from wgpy.noise.handshake import SessionKeys

__all__ = ["Keypair", "KeypairSlots"]


class Keypair:
    """Two transport keys with the indices both ends chose for them.

    Attributes:
        local_index: the index that the other end writes into its datagrams, 32 bits.
        remote_index: the index that we write into ours.
        is_initiator: we sent the initiation that made this keypair, so keeping it fresh is our duty (whitepaper 6.2).
        created_at: engine time.
        is_receive_only: nothing may be sent on it any more, as after a change of our private key.
        was_refreshed: a datagram received late in its life has already asked for its successor (whitepaper 6.2).
        receiving: opens what arrives.
        window: the counters already seen.
    """

    __slots__ = (
        "_next_counter",
        "_sending",
        "created_at",
        "is_initiator",
        "is_receive_only",
        "local_index",
        "receiving",
        "remote_index",
        "was_refreshed",
        "window",
    )

    def __init__(
        self, keys: SessionKeys, *, local_index: int, remote_index: int, is_initiator: bool, created_at: float
    ) -> None:
        """Take over the keys of a finished handshake."""
        self._sending: TransportCipher | None = TransportCipher(keys.sending)
        self.receiving: TransportCipher | None = TransportCipher(keys.receiving)
        self.local_index = local_index
        self.remote_index = remote_index
        self.is_initiator = is_initiator
        self.created_at = created_at
        self.is_receive_only = False
        self.was_refreshed = False
        self.window = ReplayWindow()
        self._next_counter = 0

    def is_expired(self, now: float) -> bool:
        """Whether the keypair is REJECT_AFTER_TIME old and good for nothing (whitepaper 6.1)."""
        return now - self.created_at >= REJECT_AFTER_TIME

    def may_send(self, now: float, count: int) -> bool:
        """Whether `count` more datagrams may leave on this keypair now."""
        return (
            not self.is_receive_only
            and self._sending is not None
            and now - self.created_at < REJECT_AFTER_TIME
            and self._next_counter + count <= REJECT_AFTER_MESSAGES
        )

    def wants_successor(self, now: float) -> bool:
        """Whether sending on this keypair should start a new handshake (whitepaper 6.2)."""
        return self._next_counter > REKEY_AFTER_MESSAGES or (
            self.is_initiator and now - self.created_at >= REKEY_AFTER_TIME
        )

    def reserve(self, count: int) -> tuple[TransportCipher, int]:
        """Hand out `count` counters, to be used once each.

        Returns:
            The sending cipher, and the first counter.

        Raises:
            LocalProtocolError: `may_send` was not asked, or said no.
        """
        if self._sending is None or self._next_counter + count > REJECT_AFTER_MESSAGES:
            raise LocalProtocolError("counters reserved on a keypair that may not send")
        first = self._next_counter
        self._next_counter = first + count
        return self._sending, first

    def wipe(self) -> None:
        """Drop both keys at once.

        Python promises no overwriting of `bytes`; letting go early is what it can do (S18).
        """
        self._sending = None
        self.receiving = None

    def __repr__(self) -> str:
        """Indices only: a repr ends in logs."""
        return f"<Keypair local_index={self.local_index:#010x} remote_index={self.remote_index:#010x}>"


class KeypairSlots:
    """The previous, current and next keypair of one peer (whitepaper 6.3; slot moves as in the Linux driver).

    Sending uses `current` only, receiving accepts all three. Every method that pushes keypairs out wipes and returns
    them, so that the caller can release their indices.
    """

    __slots__ = ("current", "next", "previous")

    def __init__(self) -> None:
        """Start empty."""
        self.previous: Keypair | None = None
        self.current: Keypair | None = None
        self.next: Keypair | None = None

    def install_as_initiator(self, new: Keypair) -> list[Keypair]:
        """Put a keypair that we initiated into use at once: the response has proved that the other end holds it."""
        if self.next is not None:
            # A session we answered waits for its first datagram; the other end may already send on it. It is newer than
            # our current one, so that is the one to give up.
            pushed_out = [self.previous, self.current]
            self.previous, self.next = self.next, None
        else:
            pushed_out = [self.previous]
            self.previous = self.current
        self.current = new
        return _wiped(pushed_out)

    def install_as_responder(self, new: Keypair) -> list[Keypair]:
        """Keep a keypair that we answered in `next`: nothing may be sent on it before the initiator used it (T25)."""
        pushed_out = [self.next, self.previous]
        self.next = new
        self.previous = None
        return _wiped(pushed_out)

    def confirm(self, keypair: Keypair) -> list[Keypair]:
        """The first valid datagram on `next`, which is this keypair, arrived: start to send on it."""
        pushed_out = [self.previous]
        self.previous, self.current, self.next = self.current, keypair, None
        return _wiped(pushed_out)

    def clear(self) -> list[Keypair]:
        """Empty all three slots."""
        pushed_out = [self.previous, self.current, self.next]
        self.previous = self.current = self.next = None
        return _wiped(pushed_out)

    def stop_sending(self) -> None:
        """Make every keypair receive-only, as a change of our private key demands."""
        for keypair in (self.previous, self.current, self.next):
            if keypair is not None:
                keypair.is_receive_only = True

    @property
    def is_empty(self) -> bool:
        """Whether no slot is taken."""
        return self.previous is None and self.current is None and self.next is None


def _wiped(keypairs: list[Keypair | None]) -> list[Keypair]:
    gone = [keypair for keypair in keypairs if keypair is not None]
    for keypair in gone:
        keypair.wipe()
    return gone
