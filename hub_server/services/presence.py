"""Every row of the hub in memory, and what the wire says about it: the `Sink` of `domain.records`.

What the edges do arrives here, on trio's thread, and is folded into the status of the row; what changed is written by
one task, many rows in one transaction: a phase at once, `last_seen` every 15 seconds. Lists are answered from here. The
database stays the truth: after a restart everything is read back, and what people change is read again (`reload`).
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import structlog
import trio
from sqlalchemy import Connection, delete, func, insert, select, update

from hub_server import supervise
from hub_server.domain import alerts, clones, foreign, status
from hub_server.domain.errors import Unavailable
from hub_server.domain.reasons import Reason
from hub_server.domain.records import ApiState, GoodbyeReason, Hello, NodeSummary, PeerRecord, RealmRecord
from hub_server.domain.status import Phase, Status
from hub_server.domain.token import RETRY_LIFETIME
from hub_server.services.core import Core, add_event, meta_get, meta_put, open_alert
from hub_server.services.live import Kind
from hub_server.settings import host_and_port
from hub_server.store import schema

PROTOCOL = 1
LAST_SEEN_EVERY = 15.0
SAMPLE_EVERY = 60.0
TICK = 0.5
GATHER = 0.05  # between two transactions: what many edges, or a busy one, do meanwhile is one
MAX_NODES = 5000
_RETRY = 2.0  # seconds until what could not be written is tried again
_CLOCK_SET = 2.0  # seconds by which a clock that runs well is never corrected within one look
_MOST_WAITING = 50_000  # events, samples and so on that wait for the database
_LISTENING = "listening_until"

log = structlog.get_logger("hub.presence")


@dataclass(slots=True)
class EventBudget:
    """How many events of one cluster are kept: a hundred at once, ten a minute for ever; the others are counted."""

    _level: float = 100.0
    _at: float = -math.inf
    _skipped: int = 0

    def take(self, now: float) -> bool:
        """Whether there is one left, which is taken."""
        if self._at > -math.inf:
            self._level = min(100.0, self._level + max(0.0, now - self._at) / 6)
        self._at = now
        if self._level < 1:
            self._skipped += 1
            return False
        self._level -= 1
        return True

    def left_out(self) -> int:
        """How many were not kept since this was asked last."""
        skipped, self._skipped = self._skipped, 0
        return skipped


@dataclass(slots=True)
class Row:
    """One live cluster. The first half is read from the database, the second is kept here and written there."""

    id: str
    tenant_id: str
    name: str = ""
    revision: int = 1
    created_at: float = 0.0
    created_by: str = ""
    keepalive: int = 25
    muted_until: float | None = None
    identity_mode: str = "service-account"
    config_revision: int = 1
    address: str | None = None
    address6: str | None = None
    subnet: str | None = None
    public_key: bytes | None = None
    invited_at: float | None = None
    invited_by: str | None = None
    invite_expires_at: float | None = None
    redeemed_at: float | None = None
    redeemed_from: str | None = None
    open_alerts: int = 0
    is_down_alert_open: bool = False

    status: Status = field(default_factory=lambda: Status(Phase.INVITED, 0.0))
    detail: str = ""
    connected_at: float | None = None
    first_packet_at: float | None = None
    last_handshake: float | None = None
    endpoint: str | None = None
    rtt: float | None = None
    hello: Mapping[str, Any] | None = None
    cluster_uid: str | None = None
    offered_cluster_uid: str | None = None
    kube_version: str | None = None
    agent_version: str | None = None
    chart_version: str | None = None
    api_state: str | None = None
    api_errno: str | None = None
    api_detail: str = ""
    api_at: float | None = None
    clock_skew: int | None = None
    nodes_ready: int | None = None
    nodes_total: int | None = None
    config_acknowledged: int | None = None
    config_error: str | None = None

    deadline: float = math.inf  # when silence, an alert or an expiry must be looked at
    written_at: float = 0.0  # when last_seen was written last
    worst: Status | None = None  # of this minute
    counted: tuple[int, int] = (0, 0)  # rx, tx at the last sample
    rtts: deque[float] = field(default_factory=lambda: deque(maxlen=16))
    boots: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=32))
    events: EventBudget = field(default_factory=EventBudget)

    @property
    def reason(self) -> Reason | None:
        """Why the row is not simply well; a tunnel that is up may still not reach the API server."""
        if self.status.phase is Phase.CONNECTED and (reason := reason_of_api(self.api_state, self.api_errno)):
            return reason
        if self.clock_skew is not None and self.status.reason in _OF_CLOCKS:
            return Reason.CLOCK_SKEW
        return self.status.reason


# What a wrong clock looks like from here: nothing, as long as the session lasts, and then handshakes that are refused.
_OF_CLOCKS: Final = frozenset(
    {None, Reason.HEARTBEAT_LOST, Reason.NO_UDP_SEEN, Reason.HANDSHAKE_REJECTED, Reason.EDGE_SHUT_DOWN}
)


def reason_of_api(state: str | None, errno: str | None) -> Reason | None:
    """Why a tunnel that is up is of no use; None where the API server answers, or nothing was told yet."""
    if state == "unreachable":
        return Reason.TUNNEL_UP_API_UNREACHABLE
    if state == "forbidden":
        return Reason.EDGE_TOKEN_REFUSED if errno == Reason.EDGE_TOKEN_REFUSED else Reason.API_FORBIDDEN
    return None


def clock_text(skew: int) -> str:
    """How far a node's clock is off, in words."""
    minutes = round(min(abs(skew), 10**12) / 60)
    return f"the clock of the node is {minutes} min {'ahead of' if skew > 0 else 'behind'} the hub's"


@dataclass(slots=True)
class _Batch:
    """What the writer has not written yet."""

    rows: set[str] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)
    nodes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    resolved: list[tuple[str, float]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    keys: list[tuple[str, bytes, float]] = field(default_factory=list)
    news: set[tuple[str, Kind, str]] = field(default_factory=set)  # tenant, kind, cluster: told once it is written

    def add(self, newer: _Batch) -> None:
        """Take in what came later; of what waits too long for the database, the oldest is let go."""
        self.rows |= newer.rows
        self.nodes |= newer.nodes
        self.news |= newer.news
        for name in ("events", "alerts", "resolved", "samples", "keys"):
            mine: list[Any] = getattr(self, name)
            mine += getattr(newer, name)
            del mine[:-_MOST_WAITING]

    def by_cluster(self) -> dict[str, _Batch]:
        """The same, apart for each cluster."""
        parts: defaultdict[str, _Batch] = defaultdict(_Batch)
        for cluster_id in self.rows:
            parts[cluster_id].rows.add(cluster_id)
        for cluster_id, nodes in self.nodes.items():
            parts[cluster_id].nodes[cluster_id] = nodes
        for key in self.keys:
            parts[key[0]].keys.append(key)
        for one in self.news:
            parts[one[2]].news.add(one)
        for cluster_id, at in self.resolved:
            parts[cluster_id].resolved.append((cluster_id, at))
        for name in ("events", "alerts", "samples"):
            for values in getattr(self, name):
                getattr(parts[values["cluster_id"]], name).append(values)
        return dict(parts)


class Presence:
    """The rows, and the sink of the wire."""

    def __init__(self, core: Core) -> None:
        """Begin empty; `load` reads the rows."""
        self._core = core
        self._now = core.now
        self.rows: dict[str, Row] = {}
        self.by_tenant: dict[str, dict[str, Row]] = {}
        self.listening_since = core.now()
        self._offset = core.now() - core.monotonic()
        self._batch = _Batch()
        self._wake = trio.Event()
        self._writing = trio.Lock()
        self._next_sample = core.now() + SAMPLE_EVERY
        self._next_listening = 0.0

    # -- reading -------------------------------------------------------------------------------------------------------

    async def load(self) -> tuple[list[RealmRecord], list[PeerRecord]]:
        """Read everything back; returns what the wire needs."""
        listened_until, rows = await self._core.database.read(_load, None)
        now = self.listening_since = self._now()
        for values in rows:
            row = self._put(values, keep=False)
            # What a clock wrote that was ahead of this one is taken as now, else a dead edge would stay connected.
            _move(row, 0.0, now)
            if listened_until is not None:
                until = foreign.decimal(_LISTENING, listened_until, 0, foreign.LATEST)
                row.status = status.after_hub_absence(row.status, until, now)
                self._set_deadline(row)
        return await self._core.database.read(_wire_records, self._core, None)

    async def reload(self, cluster_id: str) -> Row | None:
        """Read one row again after people changed it; None when it is gone."""
        _, rows = await self._core.database.read(_load, cluster_id)
        if not rows:
            self._forget(cluster_id)
            return None
        row = self._put(rows[0], keep=True)
        self._publish(row)
        return row

    async def joined(self, cluster_id: str) -> Row | None:
        """A token was redeemed, or a block was ended: let the wire know its peer, then show it."""
        if self._batch.keys:
            await self.flush()  # what is read below knows which key is in use
        row = await self.reload(cluster_id)
        realms, peers = await self._core.database.read(_wire_records, self._core, cluster_id)
        wire = self._core.wire
        if wire is not None:
            for realm in realms:
                wire.put_realm(realm)
            for peer in peers:
                wire.put_peer(peer)
        return row

    def _put(self, values: dict[str, Any], *, keep: bool) -> Row:
        """Make a row of what was read. `keep`: of a row that is known, only the half that people change."""
        known = self.rows.get(values["id"]) if keep else None
        stated: Status = values.pop("status")
        if known is None:
            row = Row(**values, status=stated)
            self.rows[row.id] = row
            self.by_tenant.setdefault(row.tenant_id, {})[row.id] = row
        else:
            row = known
            for name in _STATIC:
                setattr(row, name, values[name])
            if stated.phase in (Phase.INVITED, Phase.REDEEMED) and row.status.phase is Phase.INVITED:
                row.status = stated
        self._set_deadline(row)
        return row

    def _forget(self, cluster_id: str) -> None:
        row = self.rows.pop(cluster_id, None)
        if row is not None:
            self.by_tenant[row.tenant_id].pop(cluster_id, None)
            self._core.live.publish(row.tenant_id, "list", cluster_id)
        if self._core.wire is not None:
            self._core.wire.drop_peer(cluster_id)

    def _publish(self, row: Row) -> None:
        """Tell open pages of a row, which they are shown from memory."""
        self._core.live.publish(row.tenant_id, "cluster", row.id)

    def _publish_later(self, row: Row, kind: Kind) -> None:
        """Tell them of what they read from the database, as soon as it is there to be read."""
        self._batch.news.add((row.tenant_id, kind, row.id))

    # -- the sink ------------------------------------------------------------------------------------------------------

    def initiation_seen(self, cluster_id: str, remote: str, at: float) -> None:
        """A known key began a handshake, which may never be confirmed."""
        if (row := self.rows.get(cluster_id)) is None:
            return
        if row.first_packet_at is None:
            row.first_packet_at = at
        if row.status.phase is Phase.REDEEMED and row.status.reason is not Reason.HANDSHAKE_REJECTED:
            row.status = replace(row.status, reason=Reason.HANDSHAKE_REJECTED)
            self._changed(row)

    def handshake_confirmed(self, cluster_id: str, remote: str, at: float) -> None:
        """The first packet under new keys: the other side really has them."""
        if (row := self.rows.get(cluster_id)) is None:
            return
        row.last_handshake = at
        row.first_packet_at = row.first_packet_at or at
        row.endpoint = remote
        self._packet(row, at, is_new_session=True)

    def key_replaced(self, cluster_id: str, public_key: bytes, at: float) -> None:
        """A key that was waiting was used for the first time."""
        if (row := self.rows.get(cluster_id)) is None:
            return
        row.public_key = public_key
        self._batch.keys.append((cluster_id, public_key, at))
        self._event(
            row, "edge.key_replaced", at, None, "the key of the newest invite is in use, the one before is void"
        )
        self._changed(row)

    def beat(self, cluster_id: str, at: float, rtt: float | None, remote: str | None) -> None:
        """A heartbeat came."""
        if (row := self.rows.get(cluster_id)) is None:
            return
        if rtt is not None:
            row.rtt = rtt if row.rtt is None else row.rtt + (rtt - row.rtt) / 8
            row.rtts.append(rtt)
        if remote is not None:
            row.endpoint = remote
        self._packet(row, at)

    def goodbye(self, cluster_id: str, at: float, reason: GoodbyeReason) -> None:
        """The edge is leaving; up to three times for one leave."""
        self._follow_clock()
        if (row := self.rows.get(cluster_id)) is None:
            return
        before = row.status
        row.status = status.after_goodbye(row.status, at)
        if row.status is not before:
            row.clock_skew = None  # of one that left; who comes back, or cannot, tells it anew
            row.detail = {"uninstalled": "uninstalled", "restarting": "restarting"}.get(reason, "")
            self._event(row, "edge.goodbye", at, Reason.EDGE_SHUT_DOWN, row.detail)
            self._changed(row)
            self._cut(row, "the edge said goodbye" + (f" ({row.detail})" if row.detail else ""))

    def hello(self, cluster_id: str, hello: Hello) -> str | None:
        """A control connection began; returns why it is refused, None to go on."""
        if (row := self.rows.get(cluster_id)) is None:
            return "this cluster is not known here"
        if hello.protocol != PROTOCOL:
            side = "edge" if hello.protocol < PROTOCOL else "hub"
            row.status = replace(row.status, reason=Reason.VERSION_TOO_OLD)
            self._changed(row)
            return f"the {side} is too old: protocol {hello.protocol} of the edge, {PROTOCOL} of the hub"
        now = self._now()
        if row.agent_version not in (None, hello.agent_version):
            self._event(row, "edge.upgraded", now, None, f"{row.agent_version} to {hello.agent_version}")
        if row.boots and row.boots[-1][1] != hello.boot_id:
            self._cut(row, "the edge was restarted", is_restart=True)
        row.hello = asdict(hello)
        row.agent_version, row.chart_version = hello.agent_version[:60], hello.chart_version[:60]
        row.kube_version = hello.kube_version[:60]
        row.boots.append((now, hello.boot_id))
        self._note_clock(row, hello.clock_skew)
        if hello.cluster_uid and row.cluster_uid is None:
            row.cluster_uid = hello.cluster_uid[:100]
        elif hello.cluster_uid and row.cluster_uid != hello.cluster_uid:
            row.offered_cluster_uid = hello.cluster_uid[:100]
            detail = f"joined as cluster {row.cluster_uid}, now comes from {hello.cluster_uid}"
            self._block(row, Reason.CLUSTER_IDENTITY_CHANGED, alerts.Kind.IDENTITY_CHANGED, detail)
            return "the key is used from another cluster than the one that joined"
        if clones.is_cloned(row.boots, now):
            self._block(row, Reason.CLONE_SUSPECTED, alerts.Kind.CLONE_SUSPECTED, "two edges with one key take turns")
            return "the key is used from two places"
        self._packet(row, now)
        self._changed(row)
        return None

    def clock_told(self, public_key: bytes, skew: int | None) -> None:
        """An edge, proved by its key, has told its time over HTTPS; None where it is ours."""
        for row in self.rows.values():
            if row.public_key == public_key and row.status.phase not in (Phase.DELETED, Phase.BLOCKED):
                self._note_clock(row, skew)
                self._changed(row)

    def _note_clock(self, row: Row, skew: int | None) -> None:
        before, row.clock_skew = row.clock_skew, skew
        if before is None and skew is not None:
            self._event(row, "clock.off", self._now(), Reason.CLOCK_SKEW, clock_text(skew))
        elif before is not None and skew is None:
            self._event(row, "clock.ok", self._now(), None, "the clock of the node agrees with the hub's again")

    def nodes(self, cluster_id: str, nodes: Sequence[NodeSummary]) -> None:
        """The whole node table, in place of the last."""
        if (row := self.rows.get(cluster_id)) is None:
            return
        nodes = nodes[:MAX_NODES]
        before = (row.nodes_ready, row.nodes_total)
        row.nodes_ready, row.nodes_total = sum(node.ready for node in nodes), len(nodes)
        self._batch.nodes[cluster_id] = [asdict(node) for node in nodes]
        self._batch.rows.add(cluster_id)
        self._wake.set()
        if before != (row.nodes_ready, row.nodes_total):
            self._publish(row)
        self._publish_later(row, "nodes")

    def api_state(self, cluster_id: str, state: ApiState, errno: str | None, detail: str) -> None:
        """Whether the edge reaches its API server."""
        if (row := self.rows.get(cluster_id)) is None:
            return
        before, now = (row.api_state, row.api_errno), self._now()
        row.api_state, row.api_errno, row.api_detail = state, errno, detail[:500]
        if before == (state, errno):
            return
        if state == "ok":
            row.api_at = now
            if before[0] is not None:
                self._event(row, "api.ok", now, None, "the API server answers again")
        else:
            self._event(row, f"api.{state}", now, reason_of_api(state, errno), f"{errno or ''} {detail}".strip()[:500])
        self._changed(row)

    def misbehaved(self, cluster_id: str, what: str) -> None:
        """Something that an edge sent was refused, or it sends more than it may."""
        if (row := self.rows.get(cluster_id)) is not None:
            self._event(row, "edge.misbehaved", self._now(), None, what[:500])
            self._wake.set()

    def config_for(self, cluster_id: str) -> Mapping[str, Any]:
        """The configuration that the edge should have."""
        row, settings = self.rows[cluster_id], self._core.settings
        return {
            "revision": row.config_revision,
            "keepalive": row.keepalive,
            "mtu": settings.mtu,
            "heartbeat": settings.heartbeat,
            "endpoints": list(self._core.endpoints),
            "relay_url": None,
        }

    def config_acknowledged(self, cluster_id: str, revision: int, error: str | None) -> None:
        """The edge took a revision, or said why not."""
        if (row := self.rows.get(cluster_id)) is None:
            return
        if error is None:
            row.config_acknowledged, row.config_error = revision, None
        else:
            row.config_error = error[:500]
            self._event(row, "config.rejected", self._now(), None, f"revision {revision}: {error}"[:500])
        self._changed(row)

    # -- folding -------------------------------------------------------------------------------------------------------

    def _follow_clock(self) -> None:
        """See whether the hub's clock was set, and move with it what is measured from now on."""
        now = self._now()
        before, self._offset = self._offset, now - self._core.monotonic()
        by = self._offset - before
        if abs(by) < _CLOCK_SET:
            return
        log.warning("the hub's clock was set", seconds=round(by, 1))
        self.listening_since = min(self.listening_since + by, now)
        self._next_sample, self._next_listening = now, now
        for row in self.rows.values():
            _move(row, by, now)
            self._set_deadline(row)
            self._batch.rows.add(row.id)
        self._wake.set()

    def _packet(self, row: Row, at: float, *, is_new_session: bool = False) -> None:
        self._follow_clock()
        before = row.status
        row.status = status.after_packet(before, at, is_new_session=is_new_session)
        if before.phase is row.status.phase:
            if at - row.written_at >= LAST_SEEN_EVERY:
                row.written_at = at
                self._batch.rows.add(row.id)  # without waking the writer: the next tick does
            return
        if row.connected_at is None:
            row.connected_at = at
            row.worst = None  # what was before it was there is no outage
            self._event(row, "tunnel.connected", at, None, f"from {row.endpoint}" if row.endpoint else "")
        elif before.phase in status.SILENT:
            began = before.down_since or before.since
            self._event(row, "tunnel.restored", at, None, f"after {at - began:.0f} s")
        row.detail = ""
        self._changed(row)

    def _block(self, row: Row, reason: Reason, kind: alerts.Kind, detail: str) -> None:
        now = self._now()
        row.status, row.detail = status.after_block(row.status, reason, now), detail[:500]
        self._event(row, "cluster.blocked", now, reason, row.detail)
        self._alert(row, kind, row.detail, None)
        if self._core.wire is not None:
            self._cut(row, f"the cluster is blocked: {row.detail}")
            self._core.wire.drop_peer(row.id)
        self._changed(row)

    def _cut(self, row: Row, why: str, *, is_restart: bool = False) -> None:
        """The edge at the other end of the streams of a cluster is gone."""
        if self._core.wire is not None:
            self._core.wire.cut(row.id, why, is_restart=is_restart)

    def accept(self, row: Row) -> None:
        """An admin ended a block."""
        now = self._now()
        row.cluster_uid = row.offered_cluster_uid or row.cluster_uid
        row.offered_cluster_uid, row.detail = None, ""
        row.boots.clear()
        row.status = status.after_acceptance(row.status, now)
        self._event(row, "cluster.accepted", now, None, "")
        self._changed(row)

    def tick(self) -> None:
        """Look at what time alone changes: silence, alerts, expiry of invites, the samples of a minute."""
        self._follow_clock()
        now = self._now()
        for row in list(self.rows.values()):
            if row.deadline <= now:
                # Should the look at it fail, it is looked at again a little later, and the others are not held up.
                row.deadline = now + LAST_SEEN_EVERY
                with supervise.confined("look at a row", row.id):
                    self._look(row, now)
        if now >= self._next_sample:
            self._next_sample = now + SAMPLE_EVERY
            self._sample(now)
        if now >= self._next_listening:
            self._next_listening = now + LAST_SEEN_EVERY
            self._wake.set()

    def _look(self, row: Row, now: float) -> None:
        before = row.status
        if before.phase in (Phase.CONNECTED, Phase.RECONNECTING) and self._core.wire is not None:
            # Any authentic packet counts, not only beats; it is cheaper to ask now than to be told of each.
            facts = self._core.wire.facts(row.id)
            last = None if facts is None else facts.last_authenticated
            if last is not None and last > (before.last_packet or 0):
                self._packet(row, last)
        heartbeat = self._core.settings.heartbeat
        row.status = status.after_silence(row.status, now, heartbeat=heartbeat, listening_since=self.listening_since)
        if row.status.phase is not before.phase and row.status.phase in status.SILENT:
            if before.phase is Phase.CONNECTED:
                self._event(row, "tunnel.lost", row.status.since, None, "")
            if row.status.phase is Phase.DISCONNECTED:
                self._event(row, "tunnel.disconnected", now, row.status.reason, f"silent since {row.status.since:.0f}")
                self._cut(row, "the edge has gone silent")
            self._changed(row)
        is_invited = row.status.phase is Phase.INVITED and row.status.reason is Reason.INVITE_PENDING
        if is_invited and row.invite_expires_at is not None and now >= row.invite_expires_at:
            row.status = replace(row.status, reason=Reason.INVITE_EXPIRED, since=row.invite_expires_at)
            self._event(row, "invite.expired", row.invite_expires_at, Reason.INVITE_EXPIRED, "")
            self._changed(row)
        if not row.is_down_alert_open and alerts.is_due(row.status, now, row.muted_until):
            row.is_down_alert_open = True
            down = row.status.down_since
            self._alert(row, alerts.Kind.CLUSTER_DOWN, f"no packet since {_utc(down or now)}", down)
        if row.is_down_alert_open and alerts.is_resolved(row.status, now):
            row.is_down_alert_open = False
            row.open_alerts = max(0, row.open_alerts - 1)
            self._batch.resolved.append((row.id, now))
            self._changed(row)
            self._publish_later(row, "alert")
        self._set_deadline(row)

    def _set_deadline(self, row: Row) -> None:
        heartbeat = self._core.settings.heartbeat
        times = [status.next_silence(row.status, heartbeat=heartbeat, listening_since=self.listening_since)]
        if row.status.phase is Phase.INVITED and row.status.reason is Reason.INVITE_PENDING:
            times.append(row.invite_expires_at)
        if row.is_down_alert_open:
            times.append(alerts.resolves_at(row.status))
        else:
            times.append(alerts.due_at(row.status, row.muted_until))
        row.deadline = min((at for at in times if at is not None), default=math.inf)

    def _changed(self, row: Row) -> None:
        if row.worst is None or status.worst([row.worst.phase, row.status.phase]) is not row.worst.phase:
            row.worst = row.status
        self._set_deadline(row)
        self._batch.rows.add(row.id)
        self._wake.set()
        self._publish(row)

    def _event(self, row: Row, kind: str, at: float, reason: Reason | None, detail: str) -> None:
        """Keep an event, if the row has budget left: an edge decides how many there are, the hub how many are kept."""
        if not row.events.take(self._core.monotonic()):
            return
        if left_out := row.events.left_out():
            detail = f"{detail} (of this cluster {left_out} events before this one were not kept: too many)".lstrip()
        self._batch.events.append(
            {
                "tenant_id": row.tenant_id,
                "cluster_id": row.id,
                "kind": kind,
                "at": at,
                "reason": reason.value if reason else None,
                "detail": detail,
            }
        )
        self._publish_later(row, "event")

    def _alert(self, row: Row, kind: alerts.Kind, detail: str, down_since: float | None) -> None:
        row.open_alerts += 1
        self._batch.alerts.append(
            {
                "alert_id": self._core.id("al"),
                "tenant_id": row.tenant_id,
                "cluster_id": row.id,
                "kind": kind,
                "at": self._now(),
                "detail": detail,
                "down_since": down_since,
            }
        )
        self._changed(row)
        self._publish_later(row, "alert")

    def _sample(self, now: float) -> None:
        wire = self._core.wire
        for row in self.rows.values():
            if row.connected_at is None:
                continue
            facts = wire.facts(row.id) if wire is not None else None
            rx, tx = (facts.rx, facts.tx) if facts is not None else row.counted
            # Counters begin anew with a peer.
            before_rx, before_tx = row.counted if rx >= row.counted[0] and tx >= row.counted[1] else (0, 0)
            seen = row.worst or row.status
            self._batch.samples.append(
                {
                    "cluster_id": row.id,
                    "minute": int(now // 60),
                    "phase": seen.phase.value,
                    "reason": seen.reason.value if seen.reason else None,
                    "rtt": sum(row.rtts) / len(row.rtts) if row.rtts else None,
                    "rx": rx - before_rx,
                    "tx": tx - before_tx,
                }
            )
            row.counted, row.worst = (rx, tx), row.status
            row.rtts.clear()
        self._wake.set()

    # -- writing -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tick and write, until cancelled; what is left is written on the way out."""
        try:
            async with trio.open_nursery() as nursery:
                supervise.start_kept(nursery, "rows by time", self._tick_forever)
                supervise.start_kept(nursery, "writing rows", self._write_forever)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(5), supervise.confined("writing rows at the end"):
                await self.flush()

    async def _tick_forever(self) -> None:
        while True:
            self.tick()
            await trio.sleep(TICK)

    async def _write_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self._core.database.check_place()
            try:
                await self.flush()
                await trio.sleep(GATHER)
            except Unavailable:
                await trio.sleep(_RETRY)

    async def flush(self) -> None:
        """Write what changed since the last time, in one transaction."""
        async with self._writing:
            batch, self._batch = self._batch, _Batch()
            rows = [_stored(row) for cluster in batch.rows if (row := self.rows.get(cluster)) is not None]
            for stored in rows:
                self.rows[stored["id"]].written_at = self._now()
            try:
                await self._core.database.write(_flush, batch, rows, self._now())
            except Unavailable:
                self._put_back(batch)
                raise
            except Exception:
                # One cluster's news cannot be written, ever: those of the others shall not wait behind them.
                await self._flush_one_by_one(batch, rows)
            else:
                self._tell(batch)

    async def _flush_one_by_one(self, batch: _Batch, rows: list[dict[str, Any]]) -> None:
        parts = batch.by_cluster()
        while parts:
            cluster_id, part = parts.popitem()
            mine = [row for row in rows if row["id"] == cluster_id]
            try:
                await self._core.database.write(_flush, part, mine, self._now())
            except Unavailable:
                for waiting in (part, *parts.values()):
                    self._put_back(waiting)
                raise
            except Exception as problem:
                supervise.failed("writing a row", cluster_id, problem)
            else:
                self._tell(part)

    def _tell(self, batch: _Batch) -> None:
        for tenant_id, kind, cluster_id in sorted(batch.news):
            self._core.live.publish(tenant_id, kind, cluster_id)

    def _put_back(self, batch: _Batch) -> None:
        batch.add(self._batch)
        self._batch = batch
        self._wake.set()


def _move(row: Row, by: float, now: float) -> None:
    """Move what is known of a row with the clock that was set."""
    row.status = status.moved(row.status, by, now)
    for name in ("last_handshake", "first_packet_at", "connected_at", "api_at"):
        at = getattr(row, name)
        if at is not None:
            setattr(row, name, min(at + by, now))
    row.written_at = min(row.written_at + by, now)
    for number, (at, boot) in enumerate(row.boots):
        row.boots[number] = (at + by, boot)


def _utc(at: float) -> str:
    return foreign.calendar(at).strftime("%Y-%m-%d %H:%M:%S UTC")


# -- units of work -----------------------------------------------------------------------------------------------------

_STATIC = (
    "name",
    "revision",
    "keepalive",
    "muted_until",
    "identity_mode",
    "config_revision",
    "address",
    "address6",
    "subnet",
    "public_key",
    "invited_at",
    "invited_by",
    "invite_expires_at",
    "redeemed_at",
    "redeemed_from",
    "open_alerts",
)
_DYNAMIC = (
    "detail",
    "connected_at",
    "first_packet_at",
    "last_handshake",
    "hello",
    "cluster_uid",
    "offered_cluster_uid",
    "kube_version",
    "agent_version",
    "chart_version",
    "api_state",
    "api_errno",
    "api_detail",
    "nodes_ready",
    "nodes_total",
    "config_acknowledged",
    "config_error",
)
_STATUS = ("since", "up_since", "down_since", "excused", "left_at")


def _stored(row: Row) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _DYNAMIC}
    values |= {name: getattr(row.status, name) for name in _STATUS}
    values |= {"id": row.id, "phase": row.status.phase.value, "last_seen": row.status.last_packet}
    values |= {"reason": row.status.reason.value if row.status.reason else None, "endpoint": row.endpoint}
    return values


def _flush(connection: Connection, batch: _Batch, rows: list[dict[str, Any]], now: float) -> None:
    clusters = schema.clusters
    for cluster_id, public_key, at in batch.keys:
        _replace_key(connection, cluster_id, public_key, at)
    for row in rows:
        values = {name: value for name, value in row.items() if name not in ("id", "endpoint")}
        live = (clusters.c.id == row["id"]) & clusters.c.deleted_at.is_(None)
        if row["phase"] == Phase.INVITED.value:
            # Its token may have been redeemed since: that is newer than what was known here.
            live &= clusters.c.phase == Phase.INVITED.value
        connection.execute(update(clusters).where(live).values(**values))
        if row["endpoint"] is not None:
            peers = schema.peers
            connection.execute(
                update(peers)
                .where(peers.c.cluster_id == row["id"], peers.c.retired_at.is_(None), ~peers.c.is_pending)
                .values(endpoint=row["endpoint"][:80])
            )
    for event in batch.events:
        add_event(connection, **event)
    for alert in batch.alerts:
        live = select(clusters.c.id).where(clusters.c.id == alert["cluster_id"], clusters.c.deleted_at.is_(None))
        if connection.execute(live).first() is not None:
            open_alert(connection, **alert)
    for cluster_id, at in batch.resolved:
        _resolve(connection, cluster_id, at)
    for cluster_id, table in batch.nodes.items():
        connection.execute(delete(schema.nodes).where(schema.nodes.c.cluster_id == cluster_id))
        connection.execute(insert(schema.nodes).values(cluster_id=cluster_id, told_at=now, nodes=table))
    if batch.samples:
        # A clock that was set back comes to the same minute again.
        connection.execute(insert(schema.status_samples).prefix_with("OR REPLACE"), batch.samples)
    meta_put(connection, _LISTENING, repr(now))


def _replace_key(connection: Connection, cluster_id: str, public_key: bytes, at: float) -> None:
    """The key that waited is the cluster's; the one before is a tombstone."""
    peers = schema.peers
    live = (peers.c.cluster_id == cluster_id) & peers.c.retired_at.is_(None)
    mine = live & (peers.c.public_key == public_key) & peers.c.is_pending
    if connection.execute(select(peers.c.public_key).where(mine)).first() is not None:
        connection.execute(update(peers).where(live, ~peers.c.is_pending).values(retired_at=at, psk=b""))
        connection.execute(update(peers).where(mine).values(is_pending=False))


def _resolve(connection: Connection, cluster_id: str, at: float) -> None:
    table = schema.alerts
    found = connection.execute(
        select(table).where(
            table.c.cluster_id == cluster_id,
            table.c.kind == alerts.Kind.CLUSTER_DOWN.value,
            table.c.resolved_at.is_(None),
        )
    ).one_or_none()
    if found is None:
        return
    connection.execute(update(table).where(table.c.id == found.id).values(resolved_at=at))
    add_event(
        connection,
        tenant_id=found.tenant_id,
        cluster_id=cluster_id,
        kind="alert.resolved",
        at=at,
        reason=found.kind,
        detail="connected for 60 s",
    )


def _load(connection: Connection, cluster_id: str | None) -> tuple[str | None, list[dict[str, Any]]]:
    clusters, subnets, peers = schema.clusters, schema.subnets, schema.peers
    is_live = peers.c.retired_at.is_(None) & ~peers.c.is_pending
    query = (
        select(clusters, subnets.c.cidr, peers.c.address, peers.c.address6, peers.c.endpoint, peers.c.public_key)
        .join(subnets, subnets.c.id == clusters.c.subnet_id)
        .join(peers, (peers.c.cluster_id == clusters.c.id) & is_live, isouter=True)
        .where(clusters.c.deleted_at.is_(None))
    )
    if cluster_id is not None:
        query = query.where(clusters.c.id == cluster_id)
    invites = _newest_invites(connection, cluster_id)
    counts = _open_alerts(connection, cluster_id)
    rows = [_row_values(row, invites.get(row.id), counts.get(row.id, {})) for row in connection.execute(query)]
    return meta_get(connection, _LISTENING), rows


def _newest_invites(connection: Connection, cluster_id: str | None) -> dict[str, dict[str, Any]]:
    """Of each cluster: its newest invite and its newest redemption, in the words of `Row`."""
    table = schema.invites
    query = select(table).order_by(table.c.created_at)
    if cluster_id is not None:
        query = query.where(table.c.cluster_id == cluster_id)
    result: dict[str, dict[str, Any]] = {}
    for invite in connection.execute(query):
        values = result.setdefault(invite.cluster_id, {"redeemed_at": None, "redeemed_from": None})
        values["invited_at"], values["invited_by"] = invite.created_at, invite.created_by
        unused = invite.used_at is None and invite.revoked_at is None
        values["invite_expires_at"] = invite.expires_at if unused else None
        if invite.used_at is not None:
            values["redeemed_at"], values["redeemed_from"] = invite.used_at, invite.used_from
    return result


def _open_alerts(connection: Connection, cluster_id: str | None) -> dict[str, dict[str, int]]:
    table = schema.alerts
    query = select(table.c.cluster_id, table.c.kind, func.count()).where(table.c.resolved_at.is_(None))
    if cluster_id is not None:
        query = query.where(table.c.cluster_id == cluster_id)
    result: dict[str, dict[str, int]] = {}
    for cluster, kind, count in connection.execute(query.group_by(table.c.cluster_id, table.c.kind)):
        result.setdefault(cluster, {})[kind] = count
    return result


def _row_values(row: Any, invite: dict[str, Any] | None, counts: dict[str, int]) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _DYNAMIC}
    values |= {
        name: getattr(row, name)
        for name in ("id", "tenant_id", "name", "revision", "created_at", "created_by", "keepalive", "muted_until")
    }
    values |= {name: getattr(row, name) for name in ("identity_mode", "config_revision", "address", "address6")}
    values |= {"subnet": row.cidr, "public_key": row.public_key, "endpoint": row.endpoint}
    values |= invite or dict.fromkeys(("invited_at", "invited_by", "invite_expires_at", "redeemed_at", "redeemed_from"))
    values["open_alerts"] = sum(counts.values())
    values["is_down_alert_open"] = alerts.Kind.CLUSTER_DOWN.value in counts
    values["status"] = Status(
        Phase(row.phase),
        reason=Reason(row.reason) if row.reason else None,
        last_packet=row.last_seen,
        **{name: getattr(row, name) for name in _STATUS},
    )
    return values


def _wire_records(
    connection: Connection, core: Core, cluster_id: str | None
) -> tuple[list[RealmRecord], list[PeerRecord]]:
    """The realms and peers that the wire serves: all, or those of one cluster. Blocked ones are not among them."""
    from hub_server.services.addresses import hub_addresses

    peers, clusters = schema.peers, schema.clusters
    query = (
        select(peers)
        .join(clusters, clusters.c.id == peers.c.cluster_id)
        .where(peers.c.retired_at.is_(None), clusters.c.deleted_at.is_(None))
        .where(clusters.c.phase != Phase.BLOCKED.value)
        .order_by(peers.c.is_pending)  # a key that waits comes after the one in use
    )
    if cluster_id is not None:
        query = query.where(peers.c.cluster_id == cluster_id)
    records = []
    for row in connection.execute(query):
        # A row that cannot be used, or whose key does not open, is one cluster's matter.
        with supervise.confined("reading a peer", row.cluster_id):
            records.append(
                PeerRecord(
                    cluster_id=row.cluster_id,
                    tenant_id=row.tenant_id,
                    public_key=row.public_key,
                    preshared_key=core.envelope.open(row.psk, row.cluster_id),
                    address=IPv4Address(row.address),
                    address6=IPv6Address(row.address6) if row.address6 else None,
                    endpoint=host_and_port(row.endpoint) if row.endpoint else None,
                    pending_until=row.created_at + RETRY_LIFETIME if row.is_pending else None,
                )
            )
    tenants = {record.tenant_id for record in records}
    realms = [
        RealmRecord(tenant, address, address6, core.settings.mtu)
        for tenant, (address, address6) in hub_addresses(connection).items()
        if cluster_id is None or tenant in tenants
    ]
    return realms, records
