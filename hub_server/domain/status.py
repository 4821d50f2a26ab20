"""The status machine of a row: what was seen, and silence, turn one status into the next.

Judged by the last authenticated packet only (D2); the age of a handshake is never a health rule. Time is handed in.

    invited --redeemed--> redeemed --packet--> connected --2 beats--> reconnecting --3 beats--> disconnected
                                                 ^  ^---- packet ---------'                          |
                                                 '------------------- packet ------------------------'
    connected, reconnecting --goodbye--> disconnected;  any --block--> blocked;  any --delete--> deleted

Source: product.md section 8, D2, D4, D17, D29.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from hub_server.domain.reasons import Reason

HEARTBEAT = 5.0  # seconds between beats, unless the chart's wg.heartbeat says otherwise
RECONNECTING_AFTER = 2  # beats of silence
DISCONNECTED_AFTER = 3
STALE_HANDSHAKE = 180.0  # WireGuard itself rejects keys of this age
FAREWELL = 2.0  # seconds in which packets sent before a goodbye may still come in behind it


class Phase(StrEnum):
    """Where a row stands."""

    INVITED = "invited"
    REDEEMED = "redeemed"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    DISCONNECTED = "disconnected"
    BLOCKED = "blocked"
    DELETED = "deleted"


UP = frozenset({Phase.CONNECTED})
SILENT = frozenset({Phase.RECONNECTING, Phase.DISCONNECTED})
WAITING = frozenset({Phase.INVITED, Phase.REDEEMED})
# From best to worst, for the bar of a timeline that covers several.
SEVERITY = (
    Phase.CONNECTED,
    Phase.INVITED,
    Phase.REDEEMED,
    Phase.RECONNECTING,
    Phase.DISCONNECTED,
    Phase.BLOCKED,
    Phase.DELETED,
)


@dataclass(frozen=True, slots=True)
class Status:
    """Where a row stands, and the clock readings that decide what comes next (Unix seconds).

    Attributes:
        phase: see the drawing above.
        reason: why it is not simply well.
        since: when this phase began; for an outage, when the last packet came.
        last_packet: when the last authenticated packet came.
        up_since: start of the connection that is on.
        down_since: last packet or goodbye of the outage that is on.
        excused: seconds of that outage in which the hub itself was not listening.
        left_at: when a goodbye came, until something newer is heard.
    """

    phase: Phase
    since: float
    reason: Reason | None = None
    last_packet: float | None = None
    up_since: float | None = None
    down_since: float | None = None
    excused: float = 0.0
    left_at: float | None = None


def worst(phases: list[Phase]) -> Phase | None:
    """The worst of several phases."""
    return max(phases, key=SEVERITY.index, default=None)


def after_redemption(status: Status, at: float) -> Status:
    """A token was redeemed; a row that was connected before (a re-join) stays as it is until a packet comes."""
    if status.phase is not Phase.INVITED:
        return status
    return replace(status, phase=Phase.REDEEMED, since=at, reason=Reason.NO_UDP_SEEN)


def after_packet(status: Status, at: float, *, is_new_session: bool = False) -> Status:
    """An authenticated packet came. `is_new_session`: it confirmed new keys, so it was sent after any goodbye."""
    if status.phase in (Phase.INVITED, Phase.BLOCKED, Phase.DELETED):
        return status
    if status.left_at is not None and not is_new_session and at <= status.left_at + FAREWELL:
        return status
    if status.last_packet is not None:
        at = max(at, status.last_packet)
    if status.phase is Phase.CONNECTED:
        return replace(status, last_packet=at)
    return Status(Phase.CONNECTED, since=at, last_packet=at, up_since=at)


def after_silence(status: Status, now: float, *, heartbeat: float = HEARTBEAT, listening_since: float = 0.0) -> Status:
    """Time passed. Silence is counted only while the hub was listening."""
    if status.last_packet is None or status.phase not in (Phase.CONNECTED, Phase.RECONNECTING):
        return status
    silence = now - max(status.last_packet, listening_since)
    if status.phase is Phase.CONNECTED and silence > RECONNECTING_AFTER * heartbeat:
        down = status.last_packet
        excused = max(0.0, listening_since - down)
        status = replace(
            status, phase=Phase.RECONNECTING, since=down, reason=None, up_since=None, down_since=down, excused=excused
        )
    if status.phase is Phase.RECONNECTING and silence > DISCONNECTED_AFTER * heartbeat:
        status = replace(status, phase=Phase.DISCONNECTED, reason=Reason.HEARTBEAT_LOST)
    return status


def after_goodbye(status: Status, at: float) -> Status:
    """The edge said that it leaves."""
    if status.phase not in (Phase.CONNECTED, Phase.RECONNECTING):
        return status
    return replace(
        status,
        phase=Phase.DISCONNECTED,
        reason=Reason.EDGE_SHUT_DOWN,
        since=at,
        up_since=None,
        down_since=at,
        excused=0.0,
        left_at=at,
    )


def after_hub_absence(status: Status, away_since: float, back_at: float) -> Status:
    """The hub was not listening for a while: that part of an outage is not the edge's fault."""
    if status.down_since is None or back_at <= away_since:
        return status
    return replace(status, excused=status.excused + back_at - max(away_since, status.down_since))


def after_block(status: Status, reason: Reason, at: float) -> Status:
    """Identity, clone or an admin's lock: handshakes are refused from now on."""
    if status.phase is Phase.DELETED:
        return status
    return replace(status, phase=Phase.BLOCKED, reason=reason, since=at, up_since=None, down_since=None, excused=0.0)


def after_acceptance(status: Status, at: float) -> Status:
    """An admin ended the block; the next packet connects."""
    if status.phase is not Phase.BLOCKED:
        return status
    if status.last_packet is None:
        return replace(status, phase=Phase.REDEEMED, reason=Reason.NO_UDP_SEEN, since=at)
    return replace(status, phase=Phase.DISCONNECTED, reason=Reason.HEARTBEAT_LOST, since=at, down_since=at)


def moved(status: Status, by: float, now: float) -> Status:
    """The hub's clock was set: readings of before move with it, so that durations stay; none lies in the future."""

    def reading(at: float) -> float:
        return min(at + by, now)

    def maybe(at: float | None) -> float | None:
        return None if at is None else reading(at)

    return replace(
        status,
        since=reading(status.since),
        last_packet=maybe(status.last_packet),
        up_since=maybe(status.up_since),
        down_since=maybe(status.down_since),
        left_at=maybe(status.left_at),
    )


def next_silence(status: Status, *, heartbeat: float = HEARTBEAT, listening_since: float = 0.0) -> float | None:
    """When silence would next change the status."""
    if status.last_packet is None:
        return None
    heard = max(status.last_packet, listening_since)
    if status.phase is Phase.CONNECTED:
        return heard + RECONNECTING_AFTER * heartbeat
    if status.phase is Phase.RECONNECTING:
        return heard + DISCONNECTED_AFTER * heartbeat
    return None


LABELS = {
    Phase.INVITED: "awaiting handshake",
    Phase.REDEEMED: "awaiting handshake",
    Phase.CONNECTED: "connected",
    Phase.RECONNECTING: "reconnecting",
    Phase.DISCONNECTED: "disconnected",
    Phase.BLOCKED: "blocked",
    Phase.DELETED: "deleted",
}
