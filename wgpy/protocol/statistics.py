"""Frozen snapshots for people, pages and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wgpy.config import Endpoint
    from wgpy.errors import DropReason
    from wgpy.keys import PublicKey

__all__ = ["EngineStatistics", "PeerStatistics"]


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """One peer at one moment.

    Attributes:
        public_key: which peer.
        endpoint: where it was seen last, or was configured to be; None if neither.
        last_handshake_time: wall clock, Unix seconds; 0 if never.
        last_received_at: engine time of the last authenticated datagram, None if never. A better sign of life than the
            handshake: an idle tunnel shakes hands only when it sends.
        silent_for: seconds since then at the moment of the snapshot, None if never.
        tx_bytes: octets of UDP payload sent to it.
        rx_bytes: octets of UDP payload accepted from it.
        staged_packets: waiting for a session.
        handshake_attempts: initiations without an answer in a row, the first one left out.
        has_session: a keypair exists on which we may send.
        drops: packets refused from or for this peer, by reason.

    Example:
        >>> key = wgpy.PrivateKey.generate().public_key
        >>> config = wgpy.InterfaceConfig(peers=[wgpy.PeerConfig(key, allowed_ips=["10.0.0.2/32"])])
        >>> engine = wgpy.Engine(config, random=bytes, wall_clock=lambda: 0.0)
        >>> engine.statistics().peers[key].has_session
        False
    """

    public_key: PublicKey
    endpoint: Endpoint | None
    last_handshake_time: float
    last_received_at: float | None
    silent_for: float | None
    tx_bytes: int
    rx_bytes: int
    staged_packets: int
    handshake_attempts: int
    has_session: bool
    drops: Mapping[DropReason, int]


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """All peers at one moment.

    Attributes:
        peers: by public key, in order of creation.
        drops: packets refused, by reason, all peers and none.
        handshake_queue: handshake messages that wait for their turn.
        is_under_load: mac2 is demanded now.
        staged_packets: waiting for a session, all peers.
        sessions: receiver indices in use, handshakes in progress included.

    Example:
        >>> engine = wgpy.Engine(wgpy.InterfaceConfig(), random=bytes, wall_clock=lambda: 0.0)
        >>> engine.statistics().is_under_load
        False
    """

    peers: Mapping[PublicKey, PeerStatistics]
    drops: Mapping[DropReason, int]
    handshake_queue: int
    is_under_load: bool
    staged_packets: int
    sessions: int
