"""Reason codes: why a row is as it is. Stable; the same word in API, page, event, log and documentation.

Source: product.md section 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a row is not simply well."""

    INVITE_PENDING = "InvitePending"
    INVITE_EXPIRED = "InviteExpired"
    INVITE_REVOKED = "InviteRevoked"
    INVITE_USED = "InviteUsed"
    BOOTSTRAP_UNREACHABLE = "BootstrapUnreachable"
    NO_UDP_SEEN = "NoUdpSeen"
    HANDSHAKE_REJECTED = "HandshakeRejected"
    CLOCK_SKEW = "ClockSkew"
    TUNNEL_UP_API_UNREACHABLE = "TunnelUpApiUnreachable"
    API_FORBIDDEN = "ApiForbidden"
    EDGE_TOKEN_REFUSED = "EdgeTokenRefused"
    EDGE_SHUT_DOWN = "EdgeShutDown"
    HEARTBEAT_LOST = "HeartbeatLost"
    CLUSTER_IDENTITY_CHANGED = "ClusterIdentityChanged"
    CLONE_SUSPECTED = "CloneSuspected"
    VERSION_TOO_OLD = "VersionTooOld"
    NEEDS_NEW_INVITE = "NeedsNewInvite"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a reason means and what mends it, in words for the page."""

    means: str
    mends: str


EXPLANATIONS: dict[Reason, Explanation] = {
    Reason.INVITE_PENDING: Explanation("the token has not been used yet", "run the printed command in the cluster"),
    Reason.INVITE_EXPIRED: Explanation("the token was not used within its hour", "regenerate the invite"),
    Reason.INVITE_REVOKED: Explanation("the token was withdrawn", "regenerate the invite"),
    Reason.INVITE_USED: Explanation(
        "another key tried to use a token that was used already",
        "find out who holds the token: treat it as stolen until that is explained",
    ),
    Reason.BOOTSTRAP_UNREACHABLE: Explanation(
        "the bootstrap Job does not reach the hub over HTTPS", "allow egress to 443/tcp; check proxy and DNS"
    ),
    Reason.NO_UDP_SEEN: Explanation(
        "the token was redeemed, but no WireGuard packet has arrived",
        "allow egress to the hub's WireGuard port over UDP",
    ),
    Reason.HANDSHAKE_REJECTED: Explanation(
        "handshakes arrive but are never confirmed: the Secret holds another key than the hub knows",
        "run the bootstrap Job again and look at the Secret",
    ),
    Reason.CLOCK_SKEW: Explanation(
        "the clock of the node is off by more than ten minutes: handshakes may be refused", "set the node's clock (NTP)"
    ),
    Reason.TUNNEL_UP_API_UNREACHABLE: Explanation(
        "tunnel up, API server unreachable from the edge pod",
        "add a NetworkPolicy exception that lets the edge pod reach the API server",
    ),
    Reason.API_FORBIDDEN: Explanation("the API server refuses what was asked", "widen RBAC or narrow the request"),
    Reason.EDGE_TOKEN_REFUSED: Explanation(
        "the API server refuses the edge's own service-account token",
        "look at the ServiceAccount of the edge, and restart the edge's pod",
    ),
    Reason.EDGE_SHUT_DOWN: Explanation("the edge said goodbye", "nothing, if it was uninstalled on purpose"),
    Reason.HEARTBEAT_LOST: Explanation(
        "the edge fell silent without a goodbye",
        "look at the pod, its node and NAT; lower wg.keepalive behind short NATs",
    ),
    Reason.CLUSTER_IDENTITY_CHANGED: Explanation(
        "the key is used from another cluster than the one that joined", "accept the new identity, or delete the row"
    ),
    Reason.CLONE_SUSPECTED: Explanation(
        "one key is used from two places in turn", "find the copy of the Secret; accept, or delete the row"
    ),
    Reason.VERSION_TOO_OLD: Explanation("edge and hub do not speak a common protocol", "upgrade the edge"),
    Reason.NEEDS_NEW_INVITE: Explanation(
        "the Secret lost its data and its token is spent", "generate a new invite and run helm upgrade with it"
    ),
}
