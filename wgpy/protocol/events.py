"""What the engine tells its owner. Frozen values; the newest 4,096 are kept until `Engine.events` collects them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from wgpy.config import Endpoint
    from wgpy.keys import PublicKey

__all__ = [
    "EndpointChanged",
    "Event",
    "HandshakeCompleted",
    "HandshakeGaveUp",
    "InitiationReceived",
    "SessionExpired",
    "SilenceEnded",
    "UnknownPeer",
]


@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """Both ends hold the same new keys, and know it.

    Attributes:
        peer: whose handshake it was.
        endpoint: where the peer was seen last.
        is_initiator: whether we started it.

    Example:
        >>> peer = wgpy.PublicKey(bytes(32))
        >>> event = wgpy.HandshakeCompleted(peer, wgpy.Endpoint("192.0.2.1", 51820), is_initiator=True)
        >>> match event:
        ...     case wgpy.HandshakeCompleted(endpoint=endpoint):
        ...         print("connected by way of", endpoint)
        connected by way of 192.0.2.1:51820
    """

    peer: PublicKey
    endpoint: Endpoint
    is_initiator: bool


@dataclass(frozen=True, slots=True)
class HandshakeGaveUp:
    """No valid response came within REKEY_ATTEMPT_TIME; staged packets are gone (whitepaper 6.4).

    Example:
        >>> match wgpy.HandshakeGaveUp(wgpy.PublicKey(bytes(32))):
        ...     case wgpy.HandshakeGaveUp(peer=peer):
        ...         print("no answer from", peer)
        no answer from AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
    """

    peer: PublicKey


@dataclass(frozen=True, slots=True)
class InitiationReceived:
    """A peer that we know began a handshake and was answered; `HandshakeCompleted` follows if it hears the answer.

    An initiation is authentic, but may be a copy of one that was seen by an earlier run of this program; and it says
    nothing about the preshared key.

    Attributes:
        peer: whose initiation it was.
        endpoint: where it came from.

    Example:
        >>> event = wgpy.InitiationReceived(wgpy.PublicKey(bytes(32)), wgpy.Endpoint("192.0.2.1", 51820))
        >>> str(event.endpoint)
        '192.0.2.1:51820'
    """

    peer: PublicKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """The newest session reached REJECT_AFTER_TIME without a successor; the next packet starts a handshake.

    Example:
        >>> str(wgpy.SessionExpired(wgpy.PublicKey(bytes(32))).peer)[:4]
        'AAAA'
    """

    peer: PublicKey


@dataclass(frozen=True, slots=True)
class SilenceEnded:
    """Something authentic came from a peer that had left our packets or initiations unanswered (whitepaper 6.2).

    The way to it is open again, so whoever waits longer and longer between attempts may try at once.

    Example:
        >>> str(wgpy.SilenceEnded(wgpy.PublicKey(bytes(32))).peer)[:4]
        'AAAA'
    """

    peer: PublicKey


@dataclass(frozen=True, slots=True)
class EndpointChanged:
    """An authenticated datagram came from a new place: the peer roamed (whitepaper 2.1).

    Example:
        >>> event = wgpy.EndpointChanged(wgpy.PublicKey(bytes(32)), wgpy.Endpoint("2001:db8::1", 51820))
        >>> str(event.endpoint)
        '[2001:db8::1]:51820'
    """

    peer: PublicKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class UnknownPeer:
    """A well-formed initiation from a public key that is not configured. No state is kept and nothing is answered.

    Attributes:
        public_key: the key that the initiator claims. Its initiation proves knowledge of our public key only.
        endpoint: where it came from.

    Example:
        >>> event = wgpy.UnknownPeer(wgpy.PublicKey(bytes(32)), wgpy.Endpoint("192.0.2.9", 4000))
        >>> event.endpoint.host
        '192.0.2.9'
    """

    public_key: PublicKey
    endpoint: Endpoint


Event: TypeAlias = (
    HandshakeCompleted
    | HandshakeGaveUp
    | InitiationReceived
    | SessionExpired
    | SilenceEnded
    | EndpointChanged
    | UnknownPeer
)
