"""What the services hand to pages and API: frozen values, ready to show, without a rule in them.

Times are Unix seconds (float), addresses are text, octets are int. Whatever came from an edge is untrusted text.
Nothing here knows the database, HTTP or HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from hub_server.domain.reasons import Reason
from hub_server.domain.roles import Right, Role, allows
from hub_server.domain.status import Phase

T = TypeVar("T")


# -- who asks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: a person with a session, or a program with a token. Made by `services.auth`, given to every service."""

    kind: Literal["user", "token", "system"]
    id: str  # user id, token id, or "system"
    email: str
    name: str
    roles: Mapping[str, Role] = field(default_factory=dict)  # tenant id -> role
    grants: Mapping[str, frozenset[str]] = field(default_factory=dict)  # tenant id -> extra rights
    hub_admin: bool = False
    scopes: frozenset[str] | None = None  # None: a person, not bounded by scopes
    session_id: str | None = None
    csrf: str = ""  # goes into every form as field `csrf` (or header X-CSRF-Token)
    reauthenticated_at: float | None = None
    must_change_password: bool = False
    remote: str = ""
    request_id: str = ""

    def may(self, tenant_id: str, right: Right) -> bool:
        """Whether role and scopes allow it: what services decide by, and pages hide by."""
        role = self.roles.get(tenant_id)
        if role is None or (self.scopes is not None and right not in self.scopes):
            return False
        return allows(role, right, self.grants.get(tenant_id, frozenset()))


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The outcome of a sign-in: set both with `hub_server.auth.cookies`, `set_session` and `set_device`."""

    actor: Actor
    cookie: str
    device: str


@dataclass(frozen=True, slots=True)
class SessionView:
    """One browser session of a person."""

    id: str
    created_at: float
    last_used_at: float
    remote: str
    user_agent: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class TenantView:
    """One tenant, as seen by a member."""

    id: str
    slug: str
    name: str
    role: Role
    ipv6: bool


@dataclass(frozen=True, slots=True)
class MemberView:
    """A person in a tenant."""

    user_id: str
    email: str
    name: str
    role: Role
    stream: bool
    active: bool
    joined_at: float


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account of the hub, as its administrators see it."""

    id: str
    email: str
    name: str
    hub_admin: bool
    active: bool
    created_at: float
    last_used_at: float | None  # of the session used last; None without one


@dataclass(frozen=True, slots=True)
class NewMember:
    """A member just added; `password` is set (and shown once) only when the account was made now."""

    member: MemberView
    password: str | None


@dataclass(frozen=True, slots=True)
class SubnetView:
    """One allocation of a tenant; clusters get addresses from it."""

    id: str
    cidr: str
    cidr6: str | None
    is_default: bool
    leased: int
    free: int
    hub_address: str


# -- clusters --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UpdateView:
    """A newer release than the one the edge runs."""

    version: str
    notes_url: str | None
    command: str


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A row of the list; also the head of the cluster's page."""

    id: str
    tenant_id: str
    name: str
    phase: Phase
    reason: Reason | None
    label: str  # the status in one or two words: "connected", "awaiting handshake"
    detail: str  # one more line, where there is something to say; may be empty
    since: float
    address: str | None
    address6: str | None
    last_seen: float | None
    last_handshake: float | None
    is_handshake_stale: bool
    nodes_ready: int | None  # None: the edge has not told yet
    nodes_total: int | None
    kube_version: str | None
    agent_version: str | None
    chart_version: str | None
    update: UpdateView | None
    path: Literal["udp", "relay"] | None
    open_alerts: int
    alert_due_at: float | None  # when the 15 minutes are over, while down and not alerted yet
    muted_until: float | None
    invite_expires_at: float | None  # of the unused invite
    needs_attention: bool
    revision: int  # for If-Match / ETag


@dataclass(frozen=True, slots=True)
class ClusterCounts:
    """The line above the list."""

    total: int
    connected: int
    needs_attention: int
    by_phase: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ClusterQuery:
    """What a list shows. Sort keys: attention (default), name, status, seen, created; "-" before it turns it round."""

    search: str = ""
    phase: Phase | None = None
    reason: Reason | None = None
    label: str = ""  # the status in the words of the rows, which may be that of several phases
    sort: str = "attention"
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a list and the cursor of the rest."""

    items: tuple[T, ...]
    next_cursor: str | None
    total: int | None = None
    offset: int = 0  # how many come before it, where that is known
    previous_cursor: str | None = None  # of the page before; empty for the first one, None where there is none


@dataclass(frozen=True, slots=True)
class ClusterDetail:
    """Everything the cluster's page shows besides lists."""

    row: ClusterRow
    created_at: float
    created_by: str
    invited_by: str | None
    invited_at: float | None
    redeemed_at: float | None
    redeemed_from: str | None
    connected_at: float | None
    endpoint: str | None
    rtt: float | None  # seconds
    rx: int
    tx: int
    keepalive: int
    mtu: int | None
    mode: str | None  # "userspace" | "tun"
    mode_reason: str | None
    identity_mode: Literal["service-account", "per-user"]
    impersonation_enabled: bool
    cluster_uid: str | None
    offered_cluster_uid: str | None  # while blocked by ClusterIdentityChanged: what came instead
    public_key: str | None
    config_revision: int
    config_acknowledged: int | None
    config_error: str | None
    namespace: str | None
    job: str | None
    service_account: str | None
    api_state: str | None  # "ok" | "unreachable" | "forbidden"
    api_errno: str | None
    api_detail: str | None
    subnet: str | None


@dataclass(frozen=True, slots=True)
class LadderStep:
    """One hop of "awaiting handshake"."""

    key: Literal["invited", "redeemed", "key", "packet", "handshake", "api"]
    title: str
    state: Literal["done", "current", "waiting", "failed"]
    at: float | None  # when it was done
    took: float | None  # seconds since the step before
    since: float | None  # for the current one: waiting since
    detail: str  # may be empty


@dataclass(frozen=True, slots=True)
class Cause:
    """A thing to look at, with the command that shows it."""

    title: str
    text: str
    command: str | None


@dataclass(frozen=True, slots=True)
class Ladder:
    """The hops from invite to connected, what the hub knows, and what to try."""

    steps: tuple[LadderStep, ...]
    is_finished: bool  # connected, API answered
    phase: Phase
    reason: Reason | None
    known: str  # what the hub itself knows, one sentence
    waited: float  # seconds in the current hop
    reassurance: str  # from 30 s on, else empty
    hint: str  # from 2 min on, else empty
    causes: tuple[Cause, ...]  # from 5 min on: the three causes of the handbook, in its order
    invite_expires_at: float | None


@dataclass(frozen=True, slots=True)
class InviteCreated:
    """A fresh invite. The token exists in this value only: show it once."""

    id: str
    cluster_id: str
    token: str
    command: str  # the printed command, one line per argument, ready to paste
    expires_at: float
    undo_command: str
    egress_check: str


@dataclass(frozen=True, slots=True)
class InviteView:
    """An invite without its token."""

    id: str
    cluster_id: str
    state: Literal["pending", "expired", "revoked", "used"]
    created_at: float
    created_by: str
    expires_at: float
    used_at: float | None
    used_from: str | None
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node of a cluster, as its edge tells: untrusted text."""

    name: str
    ready: bool
    schedulable: bool
    roles: tuple[str, ...]
    version: str
    created_at: float
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeTable:
    """All nodes of a cluster and when they were told."""

    nodes: tuple[NodeRow, ...]
    told_at: float | None


@dataclass(frozen=True, slots=True)
class EventView:
    """Something that happened to a cluster."""

    id: int
    cluster_id: str | None
    cluster_name: str
    kind: str  # "tunnel.lost", "tunnel.restored", "invite.redeemed", ...
    reason: str | None
    detail: str
    at: float


@dataclass(frozen=True, slots=True)
class TimelineBar:
    """A quarter of an hour of the last 24."""

    start: float
    end: float
    phase: Phase | None  # the worst of the quarter; None: before the row existed
    reason: Reason | None
    down: float  # seconds not connected
    rtt: float | None  # mean, seconds
    rx: int
    tx: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch without connection."""

    start: float
    end: float | None
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The last 24 hours: 96 bars, oldest first, and what they say in numbers."""

    bars: tuple[TimelineBar, ...]
    gaps: tuple[Gap, ...]
    rtt: float | None
    rtt_p95: float | None
    rx: int
    tx: int


@dataclass(frozen=True, slots=True)
class AlertView:
    """One alert; open while `resolved_at` is None."""

    id: str
    cluster_id: str
    cluster_name: str
    kind: str  # "cluster_down", "invite_used", "clone_suspected", "identity_changed", "audit_broken"
    severity: Literal["critical", "warning"]
    title: str
    detail: str
    opened_at: float
    down_since: float | None
    resolved_at: float | None
    acknowledged_at: float | None
    acknowledged_by: str | None


# -- RBAC --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PresetView:
    """A preset of the patch generator."""

    key: str
    title: str
    text: str
    needs_namespaces: bool
    rules: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class DiffLine:
    """A difference in plain words: "+ read replicasets in all namespaces"."""

    sign: Literal["+", "-", " "]
    text: str


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """One wanted permission and whether the API server grants it now (None: not asked, or no answer)."""

    key: str
    text: str
    granted: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class RbacView:
    """The page: what is granted now, what was wanted, and the difference."""

    presets: tuple[PresetView, ...]
    wanted_presets: tuple[str, ...]
    wanted_namespaces: tuple[str, ...]
    custom: tuple[Mapping[str, Any], ...]
    granted: tuple[str, ...]  # in plain words
    wanted: tuple[str, ...]
    diff: tuple[DiffLine, ...]
    checked_at: float | None
    error: str | None  # why the API server could not be asked


@dataclass(frozen=True, slots=True)
class RbacPatch:
    """What to apply, in both forms, and how to take it back. The hub never applies it."""

    yaml: str
    values: str
    apply_command: str
    narrow_command: str
    diff: tuple[DiffLine, ...]
    warnings: tuple[str, ...]


# -- kubectl ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KubeconfigView:
    """An issued kubeconfig; its token is not kept."""

    id: str
    cluster_id: str
    user_id: str
    email: str
    created_at: float
    expires_at: float
    last_used_at: float | None
    revoked_at: float | None
    stream: bool


@dataclass(frozen=True, slots=True)
class IssuedKubeconfig:
    """A fresh kubeconfig: `yaml` holds the token, and exists in this value only."""

    id: str
    yaml: str
    filename: str
    context: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class PanelAnswer:
    """What the panel prints."""

    output: str
    exit_code: int
    refused: str | None  # why nothing was sent
    rbac_link: Mapping[str, str] | None  # the missing rule: verb, group, resource, namespace


# -- notification, tokens, audit -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A webhook of a tenant."""

    id: str
    name: str
    url: str
    kinds: tuple[str, ...]  # empty: everything
    created_at: float
    last_delivery_at: float | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class NewChannel:
    """A channel just made; its signing secret is shown once."""

    channel: ChannelView
    secret: str


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """One message to one channel."""

    id: str
    kind: str
    created_at: float
    attempts: int
    delivered_at: float | None
    next_attempt_at: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class TokenView:
    """An API token without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    role: Role
    created_at: float
    created_by: str
    expires_at: float | None
    last_used_at: float | None
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class NewToken:
    """An API token just made; `secret` is shown once."""

    token: TokenView
    secret: str


@dataclass(frozen=True, slots=True)
class AuditView:
    """One entry of the audit log."""

    seq: int
    at: float
    actor: str
    action: str
    cluster_id: str | None
    target: str
    result: str
    remote: str
    request_id: str
    detail: Mapping[str, Any]
    hash: str


# -- live ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """Something changed: what a page must fetch again. `id` goes into Last-Event-ID."""

    id: int
    kind: Literal["cluster", "nodes", "event", "alert", "list", "reset"]  # reset: too much was missed, load again
    cluster_id: str | None
    at: float
