"""What crosses the borders inside the hub: values and one protocol, no behaviour.

`store` makes realms and peers from its rows, `wire` serves them; `control` turns what an edge says into values and
tells them to a `Sink`; `kubeproxy` and `panel` are given a `ProxyGrant` and leave a `ProxyRecord` behind. Nothing here
may import more than the standard library, and nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, Protocol

__all__ = [
    "ApiState",
    "GoodbyeReason",
    "Hello",
    "IdentityMode",
    "Impersonation",
    "NodeSummary",
    "PanelResult",
    "PeerFacts",
    "PeerRecord",
    "ProxyGrant",
    "ProxyRecord",
    "RealmRecord",
    "Sink",
]

IdentityMode = Literal["service-account", "per-user"]
ApiState = Literal["ok", "unreachable", "forbidden"]
GoodbyeReason = Literal["unknown", "uninstalled", "restarting"]


# --- what the store tells the wire -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RealmRecord:
    """One tenant's address space inside the hub.

    Attributes:
        tenant_id: its name; peers refer to it.
        address: the hub's own in it, the first of the subnet.
        address6: likewise; None where the tenant has no IPv6.
        mtu: greatest inner packet.
    """

    tenant_id: str
    address: IPv4Address
    address6: IPv6Address | None = None
    mtu: int = 1420


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """One cluster as WireGuard sees it.

    Attributes:
        cluster_id: its name everywhere in the hub.
        tenant_id: its realm.
        public_key: of the edge, 32 octets.
        preshared_key: 32 octets.
        address: the one inner address that it may use.
        address6: likewise; None where the tenant has no IPv6.
        endpoint: where it was seen last, so that a restarted hub can call it; None if never.
        keepalive: seconds between the hub's own keepalives; None for none, since the edge sends them.
        pending_until: of a key that takes the place of the one in use with its first handshake, if that comes by then
            (Unix seconds); None for the key in use.
    """

    cluster_id: str
    tenant_id: str
    public_key: bytes
    preshared_key: bytes = field(repr=False)
    address: IPv4Address
    address6: IPv6Address | None = None
    endpoint: tuple[str, int] | None = None
    keepalive: int | None = None
    pending_until: float | None = None


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """What the wire knows of a cluster at this moment; times are Unix seconds.

    Attributes:
        last_authenticated: when the last authentic packet came; None if none came since the hub started.
        last_handshake: when the last handshake completed; likewise.
        endpoint: `host:port` where it is, IPv6 in brackets; None if unknown.
        rx: octets received since the hub started.
        tx: octets sent.
    """

    last_authenticated: float | None
    last_handshake: float | None
    endpoint: str | None
    rx: int
    tx: int


# --- what an edge tells the hub --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Whether the edge may act as somebody else, and as whom."""

    enabled: bool = False
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hello:
    """The first thing that an edge says on its control connection. Every string is the edge's word, untrusted text."""

    protocol: int
    agent_version: str
    chart_version: str
    kube_version: str
    cluster_uid: str | None
    mode: str
    mode_reason: str | None
    mtu: int
    impersonation: Impersonation
    config_revision: int
    boot_id: str
    service_account: str
    namespace: str
    job: str | None = None
    clock_skew: int | None = None  # seconds that its clock is ahead of ours, where that is too much


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """One node of a cluster. Every string is the edge's word, untrusted text."""

    name: str
    ready: bool
    schedulable: bool
    roles: tuple[str, ...]
    version: str
    created: float
    conditions: tuple[str, ...] = ()


class Sink(Protocol):
    """Who is told what happens on the wire and on the control connections.

    All methods are quick, wait for nothing and do no I/O: they are called in the middle of other work. `at` is Unix
    seconds. `remote` is `host:port`, IPv6 in brackets.
    """

    def initiation_seen(self, cluster_id: str, remote: str, at: float) -> None:
        """A known key began a handshake, which may never be confirmed."""

    def handshake_confirmed(self, cluster_id: str, remote: str, at: float) -> None:
        """The first packet under new keys: the other side really has them."""

    def key_replaced(self, cluster_id: str, public_key: bytes, at: float) -> None:
        """A key that was waiting was used for the first time: the one before it is not served any more."""

    def beat(self, cluster_id: str, at: float, rtt: float | None, remote: str | None) -> None:
        """A heartbeat came; round trip in seconds, None before the first echo."""

    def goodbye(self, cluster_id: str, at: float, reason: GoodbyeReason) -> None:
        """The edge is leaving. Up to three times for one leave."""

    def hello(self, cluster_id: str, hello: Hello) -> str | None:
        """A control connection began. Returns the detail of its refusal (`VersionTooOld`), None to go on."""

    def nodes(self, cluster_id: str, nodes: Sequence[NodeSummary]) -> None:
        """The whole node table, in place of the last."""

    def api_state(self, cluster_id: str, state: ApiState, errno: str | None, detail: str) -> None:
        """Whether the edge reaches its API server."""

    def misbehaved(self, cluster_id: str, what: str) -> None:
        """Something that an edge sent was refused, or it sends more than it may; told at most once in a while."""

    def config_for(self, cluster_id: str) -> Mapping[str, Any]:
        """The configuration that the edge should have: revision, keepalive, mtu, heartbeat, endpoints, relay_url."""

    def config_acknowledged(self, cluster_id: str, revision: int, error: str | None) -> None:
        """The edge took a revision, or said why not."""


# --- requests through the tunnel -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProxyGrant:
    """Who asks, for which cluster, and what they may.

    Attributes:
        user_id: whose token it is.
        email: shown and, in `per-user` mode, sent as `daalu:<email>`.
        tenant_id: of the cluster.
        tenant_slug: for the group `daalu:tenant:<slug>`.
        cluster_id: as in the path.
        role: of the user in the tenant.
        stream: whether exec, attach, port-forward and the proxy subresources are allowed.
        identity_mode: as whom the request runs at the API server.
        groups: of the user's identity provider, sent as `daalu:group:<name>`.
        kubeconfig_id: whose token it is; empty for a line of the panel.
    """

    user_id: str
    email: str
    tenant_id: str
    tenant_slug: str
    cluster_id: str
    role: str
    stream: bool = False
    identity_mode: IdentityMode = "service-account"
    groups: tuple[str, ...] = ()
    kubeconfig_id: str = ""


@dataclass(frozen=True, slots=True)
class ProxyRecord:
    """One request through the tunnel, for the audit: what was asked, as whom, and how it ended. Never a body.

    Attributes:
        request_id: also in the answer and at the edge.
        user_id: empty when nobody was recognised.
        tenant_id: likewise.
        cluster_id: as in the path.
        method: HTTP.
        path: below `/k8s/clusters/<id>`, without the query.
        query: as sent.
        verb: Kubernetes': get, list, watch, create, update, patch, delete, deletecollection; `non-resource` otherwise.
        resource: with subresource after a slash; empty where there is none.
        namespace: likewise.
        name: likewise.
        identity: really sent: `service-account` or `daalu:<email>`.
        status: of the answer; 0 when there was none.
        reason: of a refusal by the hub, or why an answer broke off; None when the API server's came to its end.
        octets_in: of the request's body.
        octets_out: of the answer's body.
        started: Unix seconds.
        seconds: until the last octet.
        remote: address it came from.
        phase: `open` for the record made when a stream starts, `close` for the one at the end of any request.
    """

    request_id: str
    user_id: str
    tenant_id: str
    cluster_id: str
    method: str
    path: str
    query: str
    verb: str
    resource: str
    namespace: str
    name: str
    identity: str
    status: int
    reason: str | None
    octets_in: int
    octets_out: int
    started: float
    seconds: float
    remote: str = ""
    phase: Literal["open", "close"] = "close"


@dataclass(frozen=True, slots=True)
class PanelResult:
    """What a command of the panel printed.

    Attributes:
        output: as kubectl prints it, standard output and standard error together.
        exit_code: kubectl's.
        refused: why the line was not run at all; no request was sent then.
        forbidden: the API server's 403 taken apart (verb, resource, group, namespace, name, message), for the link to
            the generator of permissions.
        truncated: whether a limit cut the output.
    """

    output: str
    exit_code: int
    refused: str | None = None
    forbidden: Mapping[str, str] | None = None
    truncated: bool = False
