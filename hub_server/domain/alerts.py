"""When an alert opens and when it is resolved. Time is handed in; who stores it keeps one open per (cluster, kind).

Source: product.md section 9, D17.
"""

from __future__ import annotations

from enum import StrEnum

from hub_server.domain.status import Phase, Status

DOWN_AFTER = 900.0  # seconds without a packet
RESOLVED_AFTER = 60.0  # seconds of unbroken connection


class Kind(StrEnum):
    """What an alert is about."""

    CLUSTER_DOWN = "cluster_down"
    INVITE_USED = "invite_used"
    CLONE_SUSPECTED = "clone_suspected"
    IDENTITY_CHANGED = "identity_changed"
    AUDIT_BROKEN = "audit_broken"


# What nothing but a person's look ends: the others end with their cause.
ENDED_BY_ACKNOWLEDGEMENT = frozenset({Kind.INVITE_USED, Kind.AUDIT_BROKEN})

TITLES = {
    Kind.CLUSTER_DOWN: "Cluster down for more than 15 minutes",
    Kind.INVITE_USED: "A used token was tried with another key",
    Kind.CLONE_SUSPECTED: "One key is used from two places",
    Kind.IDENTITY_CHANGED: "The key is used from another cluster",
    Kind.AUDIT_BROKEN: "The audit log was altered",
}


def due_at(status: Status, muted_until: float | None = None) -> float | None:
    """When `cluster_down` opens, unless a packet comes before. None: no outage is on.

    Only rows that were connected can go down: an outage begins with a last packet or a goodbye.
    """
    if status.phase not in (Phase.RECONNECTING, Phase.DISCONNECTED) or status.down_since is None:
        return None
    due = status.down_since + DOWN_AFTER + status.excused
    return due if muted_until is None else max(due, muted_until)


def is_due(status: Status, now: float, muted_until: float | None = None) -> bool:
    """Whether `cluster_down` opens now, if none is open."""
    due = due_at(status, muted_until)
    return due is not None and now > due


def resolves_at(status: Status) -> float | None:
    """When an open `cluster_down` is resolved, unless the connection breaks before."""
    return None if status.up_since is None or status.phase is not Phase.CONNECTED else status.up_since + RESOLVED_AFTER


def is_resolved(status: Status, now: float) -> bool:
    """Whether an open `cluster_down` is resolved now."""
    at = resolves_at(status)
    return at is not None and now >= at
