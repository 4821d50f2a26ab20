"""Noise IKpsk2 in both roles: who is there, and which keys follow from it. Knows no peer table, no timer, no datagram.

    create_initiation   initiator -> 116 octets          e, es, s, ss, {timestamp}
    consume_initiation_untrusted                          responder learns the static key, then the timestamp
    create_response     responder -> 60 octets, keys     e, ee, se, psk, {nothing}
    consume_response_untrusted                            initiator -> keys

The two MACs behind each message are no part of Noise: see `cookie`.

Source: WireGuard whitepaper, sections 5.4.2 to 5.4.5; Noise Protocol Framework, revision 34.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wgpy.constants import CONSTRUCTION, IDENTIFIER
from wgpy.crypto import aead
from wgpy.crypto.kdf import blake2s_hash, kdf1, kdf2, kdf3
from wgpy.wire.messages import Initiation, Response

if TYPE_CHECKING:
    from wgpy.crypto.dh import Secret

__all__ = [
    "AuthenticInitiation",
    "InitiationState",
    "OpenedInitiation",
    "SessionKeys",
    "consume_initiation_untrusted",
    "consume_response_untrusted",
    "create_initiation",
    "create_response",
]

_CHAINING_KEY: Final = blake2s_hash(CONSTRUCTION)
_HASH: Final = blake2s_hash(_CHAINING_KEY, IDENTIFIER)


@dataclass(frozen=True, slots=True, repr=False)
class SessionKeys:
    """The two transport keys of a finished handshake, 32 octets each, as seen from one end."""

    sending: bytes
    receiving: bytes


@dataclass(frozen=True, slots=True, repr=False)
class InitiationState:
    """What an initiator keeps until the response comes.

    Attributes:
        sender_index: our index, which the response must name.
        ephemeral: our ephemeral secret.
        chaining_key: after the initiation.
        hash: of the transcript so far.
    """

    sender_index: int
    ephemeral: Secret
    chaining_key: bytes
    hash: bytes


@dataclass(frozen=True, slots=True, repr=False)
class OpenedInitiation:
    """An initiation whose static key has been decrypted. Anybody who knows our public key can make one.

    Attributes:
        remote_static: the public key that the initiator claims, 32 octets.
        sender_index: the initiator's index.
        ephemeral: the initiator's ephemeral public key.
        chaining_key: after the static key.
        hash: of the transcript so far.
        encrypted_timestamp: 28 octets.
    """

    remote_static: bytes
    sender_index: int
    ephemeral: bytes
    chaining_key: bytes
    hash: bytes
    encrypted_timestamp: bytes

    def authenticate_untrusted(self, static_static: bytes) -> AuthenticInitiation:
        """Prove with the shared secret of both static keys that the initiator holds the key it claims.

        Raises:
            BadPacket: it does not.
        """
        chaining_key, key = kdf2(self.chaining_key, static_static)
        timestamp = aead.open_untrusted(key, 0, self.encrypted_timestamp, self.hash)
        return AuthenticInitiation(
            timestamp=timestamp,
            remote_static=self.remote_static,
            sender_index=self.sender_index,
            ephemeral=self.ephemeral,
            chaining_key=chaining_key,
            hash=blake2s_hash(self.hash, self.encrypted_timestamp),
        )


@dataclass(frozen=True, slots=True, repr=False)
class AuthenticInitiation:
    """An initiation that its claimed sender made; perhaps long ago, as its timestamp tells.

    Attributes:
        timestamp: TAI64N, 12 octets.
        remote_static: the initiator's public key.
        sender_index: the initiator's index.
        ephemeral: the initiator's ephemeral public key.
        chaining_key: after the initiation.
        hash: of the transcript so far.
    """

    timestamp: bytes
    remote_static: bytes
    sender_index: int
    ephemeral: bytes
    chaining_key: bytes
    hash: bytes


def create_initiation(
    *,
    static: Secret,
    remote_static: bytes,
    static_static: bytes,
    ephemeral: Secret,
    timestamp: bytes,
    sender_index: int,
) -> tuple[InitiationState, bytes]:
    """First message: 116 octets, to which the MACs are added.

    Args:
        static: our private key.
        remote_static: the responder's public key.
        static_static: the shared secret of both static keys, computed once per peer.
        ephemeral: fresh.
        timestamp: TAI64N, greater than in any initiation before.
        sender_index: 32 bits, unique on our side.

    Raises:
        BadPacket: the responder's public key is of low order.

    Source: whitepaper 5.4.2.
    """
    chaining_key = kdf1(_CHAINING_KEY, ephemeral.public)
    transcript = blake2s_hash(blake2s_hash(_HASH, remote_static), ephemeral.public)
    chaining_key, key = kdf2(chaining_key, ephemeral.exchange(remote_static))
    encrypted_static = aead.seal(key, 0, static.public, transcript)
    transcript = blake2s_hash(transcript, encrypted_static)
    chaining_key, key = kdf2(chaining_key, static_static)
    encrypted_timestamp = aead.seal(key, 0, timestamp, transcript)
    transcript = blake2s_hash(transcript, encrypted_timestamp)
    message = Initiation(sender_index, ephemeral.public, encrypted_static, encrypted_timestamp)
    return InitiationState(sender_index, ephemeral, chaining_key, transcript), message.encode()


def consume_initiation_untrusted(message: bytes, *, static: Secret) -> OpenedInitiation:
    """Learn who claims to have sent an initiation.

    Args:
        message: 148 octets, its mac1 verified already.
        static: our private key.

    Raises:
        BadPacket: wrong length or type, low-order point, or not made for us.

    Source: whitepaper 5.4.2.
    """
    sender_index, ephemeral, encrypted_static, encrypted_timestamp = Initiation.decode_untrusted(message)
    chaining_key = kdf1(_CHAINING_KEY, ephemeral)
    transcript = blake2s_hash(blake2s_hash(_HASH, static.public), ephemeral)
    chaining_key, key = kdf2(chaining_key, static.exchange(ephemeral))
    remote_static = aead.open_untrusted(key, 0, encrypted_static, transcript)
    return OpenedInitiation(
        remote_static=remote_static,
        sender_index=sender_index,
        ephemeral=ephemeral,
        chaining_key=chaining_key,
        hash=blake2s_hash(transcript, encrypted_static),
        encrypted_timestamp=encrypted_timestamp,
    )


def create_response(
    initiation: AuthenticInitiation, *, preshared_key: bytes, ephemeral: Secret, sender_index: int
) -> tuple[bytes, SessionKeys]:
    """Second message: 60 octets, to which the MACs are added; and the keys that it completes.

    Args:
        initiation: what is answered.
        preshared_key: 32 octets, zeros for none: mixed in just the same.
        ephemeral: fresh.
        sender_index: 32 bits, unique on our side.

    Raises:
        BadPacket: a point of low order.

    Source: whitepaper 5.4.3 and 5.4.5.
    """
    chaining_key = kdf1(initiation.chaining_key, ephemeral.public)
    transcript = blake2s_hash(initiation.hash, ephemeral.public)
    chaining_key = kdf1(chaining_key, ephemeral.exchange(initiation.ephemeral))
    chaining_key = kdf1(chaining_key, ephemeral.exchange(initiation.remote_static))
    chaining_key, tau, key = kdf3(chaining_key, preshared_key)
    encrypted_nothing = aead.seal(key, 0, b"", blake2s_hash(transcript, tau))
    message = Response(sender_index, initiation.sender_index, ephemeral.public, encrypted_nothing)
    # Whitepaper 5.4.5: the initiator sends with the first key, so the responder receives with it (trap T11).
    receiving, sending = kdf2(chaining_key, b"")
    return message.encode(), SessionKeys(sending=sending, receiving=receiving)


def consume_response_untrusted(
    state: InitiationState, message: bytes, *, static: Secret, preshared_key: bytes
) -> tuple[int, SessionKeys]:
    """Verify the answer to our initiation.

    Args:
        state: of the initiation that it names.
        message: 92 octets, its mac1 verified already.
        static: our private key.
        preshared_key: 32 octets, zeros for none.

    Returns:
        The responder's index, and the keys.

    Raises:
        BadPacket: wrong length or type, low-order point, another preshared key, or forged.

    Source: whitepaper 5.4.3 and 5.4.5.
    """
    sender_index, _, ephemeral, encrypted_nothing = Response.decode_untrusted(message)
    chaining_key = kdf1(state.chaining_key, ephemeral)
    transcript = blake2s_hash(state.hash, ephemeral)
    chaining_key = kdf1(chaining_key, state.ephemeral.exchange(ephemeral))
    chaining_key = kdf1(chaining_key, static.exchange(ephemeral))
    chaining_key, tau, key = kdf3(chaining_key, preshared_key)
    aead.open_untrusted(key, 0, encrypted_nothing, blake2s_hash(transcript, tau))
    sending, receiving = kdf2(chaining_key, b"")
    return sender_index, SessionKeys(sending=sending, receiving=receiving)
