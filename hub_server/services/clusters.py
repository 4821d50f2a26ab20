"""Clusters: the list, the page, and every act on a row.

Lists and pages are answered from `Presence`, which holds every row in memory; acts are transactions on the database,
after which the row is read again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from hub_server import audit
from hub_server.domain import alerts as alert_rules
from hub_server.domain import ladder as rules
from hub_server.domain import targets
from hub_server.domain.errors import Conflict, Invalid, NotFound, Stale, Unavailable
from hub_server.domain.names import check_name, name_key
from hub_server.domain.reasons import Reason
from hub_server.domain.roles import Right
from hub_server.domain.status import LABELS, SEVERITY, STALE_HANDSHAKE, WAITING, Phase, worst
from hub_server.domain.token import INVITE_LIFETIME, Token, make_token, secret_hash
from hub_server.services import addresses
from hub_server.services.core import Core, add_event
from hub_server.services.paging import after, before, cursor_of, limit_of
from hub_server.services.presence import Presence, Row, clock_text
from hub_server.services.releases import Releases
from hub_server.services.views import (
    Actor,
    Cause,
    ClusterCounts,
    ClusterDetail,
    ClusterQuery,
    ClusterRow,
    EventView,
    Gap,
    InviteCreated,
    InviteView,
    Ladder,
    LadderStep,
    NodeRow,
    NodeTable,
    Page,
    Timeline,
    TimelineBar,
    UpdateView,
)
from hub_server.settings import host_and_port
from hub_server.store import schema

NAMESPACE: Final = "daalu-edge"
RELEASE: Final = "daalu-edge"
BARS, BAR_MINUTES = 96, 15
_RANDOM_OF_TOKEN: Final = 39
_OBJECT_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_CHANGE_LIMITS: Final = (1, 65535)
_TROUBLED: Final = frozenset({Phase.RECONNECTING, Phase.DISCONNECTED, Phase.BLOCKED})
_TROUBLING: Final = frozenset(
    {
        Reason.INVITE_EXPIRED,
        Reason.TUNNEL_UP_API_UNREACHABLE,
        Reason.API_FORBIDDEN,
        Reason.EDGE_TOKEN_REFUSED,
        Reason.CLOCK_SKEW,
        Reason.VERSION_TOO_OLD,
        Reason.HANDSHAKE_REJECTED,
    }
)


class Clusters:
    """Clusters: the list, the page, and every act on a row."""

    def __init__(self, core: Core, presence: Presence) -> None:
        """Stand on the core, and read rows from presence."""
        self._core = core
        self._presence = presence
        self._releases = Releases(core.settings.releases)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def list(self, actor: Actor, tenant_id: str, query: ClusterQuery) -> Page[ClusterRow]:
        """A page of the list."""
        await self._core.permit(actor, tenant_id, Right.SEE, "clusters.list")
        rows = [row for row in self._presence.by_tenant.get(tenant_id, {}).values() if _matches(row, query)]
        key = query.sort.removeprefix("-")
        rows.sort(key=lambda row: row.name.casefold())
        rows.sort(key=lambda row: _sort_key(row, key), reverse=query.sort.startswith("-"))
        offset, limit = after(query.cursor), limit_of(query.limit)
        shown = tuple(self._view(row) for row in rows[offset : offset + limit])
        more = cursor_of(offset + limit) if offset + limit < len(rows) else None
        return Page(shown, more, len(rows), offset, before(offset, limit))

    async def counts(self, actor: Actor, tenant_id: str) -> ClusterCounts:
        """The line above the list."""
        await self._core.permit(actor, tenant_id, Right.SEE, "clusters.list")
        rows = self._presence.by_tenant.get(tenant_id, {}).values()
        phases = Counter(row.status.phase.value for row in rows)
        return ClusterCounts(
            total=len(rows),
            connected=phases[Phase.CONNECTED.value],
            needs_attention=sum(map(_needs_attention, rows)),
            by_phase=dict(phases),
        )

    async def row(self, actor: Actor, cluster_id: str) -> ClusterRow:
        """One row, for a live update."""
        return self._view(await self._seen(actor, cluster_id, "cluster.read"))

    async def heard(
        self, actor: Actor, tenant_id: str, cluster_ids: Iterable[str]
    ) -> dict[str, tuple[float | None, float | None]]:
        """When each was seen and shook hands last: what only time changes on a page that stays open."""
        await self._core.permit(actor, tenant_id, Right.SEE, "clusters.list")
        mine = self._presence.by_tenant.get(tenant_id, {})
        return {one: (mine[one].status.last_packet, mine[one].last_handshake) for one in cluster_ids if one in mine}

    async def get(self, actor: Actor, cluster_id: str) -> ClusterDetail:
        """The cluster's page."""
        row = await self._seen(actor, cluster_id, "cluster.read")
        facts = self._core.wire.facts(row.id) if self._core.wire is not None else None
        hello = row.hello or {}
        impersonation = hello.get("impersonation") or {}
        is_mtu = isinstance(hello.get("mtu"), int)
        return ClusterDetail(
            row=self._view(row),
            created_at=row.created_at,
            created_by=row.created_by,
            invited_by=row.invited_by,
            invited_at=row.invited_at,
            redeemed_at=row.redeemed_at,
            redeemed_from=row.redeemed_from,
            connected_at=row.connected_at,
            endpoint=row.endpoint,
            rtt=row.rtt if row.status.phase is Phase.CONNECTED else None,
            rx=facts.rx if facts is not None else 0,
            tx=facts.tx if facts is not None else 0,
            keepalive=row.keepalive,
            mtu=hello["mtu"] if is_mtu else None,
            mode=hello.get("mode"),
            mode_reason=hello.get("mode_reason"),
            identity_mode="per-user" if row.identity_mode == "per-user" else "service-account",
            impersonation_enabled=bool(impersonation.get("enabled")),
            cluster_uid=row.cluster_uid,
            offered_cluster_uid=row.offered_cluster_uid,
            public_key=_base64(row.public_key),
            config_revision=row.config_revision,
            config_acknowledged=row.config_acknowledged,
            config_error=row.config_error,
            namespace=hello.get("namespace"),
            job=hello.get("job"),
            service_account=hello.get("service_account"),
            api_state=row.api_state,
            api_errno=row.api_errno,
            api_detail=row.api_detail or None,
            subnet=row.subnet,
        )

    async def ladder(self, actor: Actor, cluster_id: str) -> Ladder:
        """The hops from invite to connected."""
        row = await self._seen(actor, cluster_id, "cluster.read")
        facts = self._ladder_facts(row)
        return Ladder(
            steps=tuple(
                LadderStep(hop.key, hop.title, hop.state, hop.at, hop.took, hop.since, hop.detail)
                for hop in rules.hops(facts)
            ),
            is_finished=rules.is_finished(facts),
            phase=row.status.phase,
            reason=row.reason,
            known=rules.known(facts),
            waited=rules.waited(facts),
            reassurance=rules.reassurance(facts),
            hint=rules.hint(facts),
            causes=tuple(Cause(one.title, one.text, one.command) for one in rules.causes(facts)),
            invite_expires_at=row.invite_expires_at,
        )

    def _ladder_facts(self, row: Row) -> rules.Facts:
        port = host_and_port(self._core.endpoints[0])[1] if self._core.endpoints else 51820
        redeemed_at, first_packet_at, connected_at = _joined(row, self._core.now())
        hello = row.hello or {}
        return rules.Facts(
            now=self._core.now(),
            phase=row.status.phase,
            reason=row.reason,
            invited_at=row.invited_at or row.created_at,
            invite_expires_at=row.invite_expires_at,
            redeemed_at=redeemed_at,
            redeemed_from=row.redeemed_from,
            first_packet_at=first_packet_at,
            connected_at=connected_at,
            api_state=row.api_state,
            api_errno=row.api_errno,
            api_at=_latest(row.api_at, connected_at) if row.api_state == "ok" else None,
            job=_object_name(hello.get("job")),
            namespace=_object_name(hello.get("namespace")),
            hub_host=self._core.settings.public_host,
            udp_port=port,
        )

    async def nodes(self, actor: Actor, cluster_id: str) -> NodeTable:
        """The nodes as the edge told them."""
        row = await self._seen(actor, cluster_id, "cluster.nodes")
        told_at, table = await self._core.database.read(_nodes, row.id)
        return NodeTable(tuple(map(_node_row, table)), told_at)

    async def events(
        self, actor: Actor, cluster_id: str, *, limit: int = 50, cursor: str | None = None
    ) -> Page[EventView]:
        """The events of a cluster, newest first."""
        row = await self._seen(actor, cluster_id, "cluster.events")
        before, limit = after(cursor), limit_of(limit)
        found = await self._core.database.read(_events, row.id, before or None, limit + 1)
        views = tuple(
            EventView(event.id, row.id, row.name, event.kind, event.reason, event.detail, event.at) for event in found
        )
        more = cursor_of(views[limit - 1].id) if len(views) > limit else None
        return Page(views[:limit], more)

    async def timeline(self, actor: Actor, cluster_id: str) -> Timeline:
        """The last 24 hours."""
        row = await self._seen(actor, cluster_id, "cluster.timeline")
        now = self._core.now()
        first = int(now // 60) - BARS * BAR_MINUTES + 1
        samples, gaps = await self._core.database.read(_history, row.id, first, first * 60.0)
        return _timeline(row, samples, gaps, first, now)

    # --- joining -----------------------------------------------------------------------------------------------------

    async def create(self, actor: Actor, tenant_id: str, *, name: str, subnet_id: str | None = None) -> InviteCreated:
        """Make a row and its first invite. Raises Invalid(field name|subnet)."""
        core = self._core
        await core.permit(actor, tenant_id, Right.MANAGE, "cluster.create")
        name = name.strip()
        if problem := check_name(name):
            raise Invalid("name", problem)
        cluster_id, token, now = core.id("cl"), self._token(), core.now()

        def work(connection: Connection) -> None:
            _refuse_taken_name(connection, tenant_id, name, except_id=None)
            subnet = _subnet(connection, tenant_id, subnet_id)
            if addresses.free(connection, subnet, now) < 1:
                problem = f"{subnet.cidr} has no free address: add another subnet or choose one"
                raise Invalid("subnet", problem, code="subnet_exhausted")
            connection.execute(
                insert(schema.clusters).values(
                    id=cluster_id,
                    tenant_id=tenant_id,
                    name=name,
                    name_key=name_key(name),
                    subnet_id=subnet.id,
                    created_at=now,
                    created_by=actor.email or actor.name,
                    phase=Phase.INVITED.value,
                    reason=Reason.INVITE_PENDING.value,
                    since=now,
                    keepalive=core.settings.keepalive,
                )
            )
            _insert_invite(connection, token, tenant_id, cluster_id, actor, now)
            detail = f"{subnet.cidr}, by {actor.email or actor.name}"
            add_event(
                connection, tenant_id=tenant_id, cluster_id=cluster_id, kind="invite.created", at=now, detail=detail
            )
            entry = core.entry(actor, tenant_id, "cluster.create", cluster_id=cluster_id, target=name)
            audit.append(connection, entry)

        await core.database.write(work)
        await self._presence.reload(cluster_id)
        core.live.publish(tenant_id, "list", cluster_id)
        return self._created(cluster_id, token, now)

    async def invite(self, actor: Actor, cluster_id: str) -> InviteView | None:
        """The newest invite of a row, without its token."""
        row = await self._seen(actor, cluster_id, "invite.read", right=Right.MANAGE)
        found = await self._core.database.read(_newest_invite, row.id)
        return None if found is None else _invite_view(found, self._core.now())

    async def regenerate(self, actor: Actor, cluster_id: str) -> InviteCreated:
        """A fresh invite; the unused predecessor is revoked at once."""
        core = self._core
        row = await self._seen(actor, cluster_id, "invite.create", right=Right.MANAGE)
        token, now = self._token(), core.now()

        def work(connection: Connection) -> None:
            live = _live(connection, cluster_id)
            _revoke_unused(connection, cluster_id, now)
            _insert_invite(connection, token, live.tenant_id, cluster_id, actor, now)
            _state_invite(connection, cluster_id, Reason.INVITE_PENDING, now)
            add_event(
                connection,
                tenant_id=live.tenant_id,
                cluster_id=cluster_id,
                kind="invite.created",
                at=now,
                detail=f"by {actor.email or actor.name}; an unused one before it is void",
            )
            audit.append(connection, core.entry(actor, live.tenant_id, "invite.create", cluster_id=cluster_id))

        await core.database.write(work)
        await self._presence.reload(row.id)
        return self._created(row.id, token, now)

    async def revoke_invite(self, actor: Actor, cluster_id: str) -> None:
        """Withdraw the unused invite."""
        core = self._core
        row = await self._seen(actor, cluster_id, "invite.revoke", right=Right.MANAGE)

        def work(connection: Connection) -> None:
            now = core.now()
            if not _revoke_unused(connection, cluster_id, now):
                raise Conflict("there is no unused invite to withdraw")
            _state_invite(connection, cluster_id, Reason.INVITE_REVOKED, now)
            add_event(
                connection,
                tenant_id=row.tenant_id,
                cluster_id=cluster_id,
                kind="invite.revoked",
                at=now,
                reason=Reason.INVITE_REVOKED.value,
                detail=f"by {actor.email or actor.name}",
            )
            audit.append(connection, core.entry(actor, row.tenant_id, "invite.revoke", cluster_id=cluster_id))

        await core.database.write(work)
        await self._presence.reload(cluster_id)

    def unreachable_addresses(self) -> tuple[str, ...]:
        """The addresses of this hub, as it prints and hands them out, that no other machine can reach."""
        core = self._core
        hosts = {core.settings.public_url: core.settings.public_host}
        hosts |= {one: host_and_port(one)[0] for one in core.endpoints}
        return tuple(address for address, host in hosts.items() if targets.is_of_one_machine(host))

    def _token(self) -> Token:
        return make_token(self._core.random(_RANDOM_OF_TOKEN), self._core.hub_key)

    def _created(self, cluster_id: str, token: Token, now: float) -> InviteCreated:
        settings, core = self._core.settings, self._core
        lines = [
            f"helm install {RELEASE} {settings.chart}",
            f"--namespace {NAMESPACE} --create-namespace",
            f"--set hub.url={settings.public_url}",
            f"--set bootstrap.token={token.text()}",
        ]
        if core.ca_pem is not None:
            # A private authority: without it the Job could not know this hub.
            lines.append(f"--set-string hub.caBundle='{core.ca_pem.strip()}'")
        # A real handshake from inside the cluster: a datagram that only leaves says nothing about the way.
        check = [
            "kubectl run daalu-doctor --rm -i --restart=Never",
            f"--image={settings.edge_image}",
            *([f"--env=DAALU_HUB_CA_PEM='{core.ca_pem.strip()}'"] if core.ca_pem is not None else []),
            f"-- doctor --hub-url {settings.public_url}",
        ]
        return InviteCreated(
            id=token.id,
            cluster_id=cluster_id,
            token=token.text(),
            command=" \\\n  ".join(lines),
            expires_at=now + INVITE_LIFETIME,
            undo_command=f"helm uninstall -n {NAMESPACE} {RELEASE}",
            egress_check=" \\\n  ".join(check),
        )

    # --- acts --------------------------------------------------------------------------------------------------------

    async def update(
        self,
        actor: Actor,
        cluster_id: str,
        *,
        if_match: int | None = None,
        name: str | None = None,
        keepalive: int | None = None,
        muted_until: float | None = None,
        identity_mode: str | None = None,
    ) -> ClusterRow:
        """Change settings; what is None stays. `muted_until=0` unmutes. Raises Stale, Invalid."""
        core = self._core
        row = await self._seen(actor, cluster_id, "cluster.update", right=Right.MANAGE)
        changes: dict[str, Any] = {}
        if name is not None and (name := name.strip()) != row.name:
            if problem := check_name(name):
                raise Invalid("name", problem)
            changes |= {"name": name, "name_key": name_key(name)}
        if keepalive is not None and keepalive != row.keepalive:
            least, most = _CHANGE_LIMITS
            if not least <= keepalive <= most:
                raise Invalid("keepalive", f"a whole number of seconds from {least} to {most}")
            changes["keepalive"] = keepalive
        if muted_until is not None:
            changes["muted_until"] = muted_until if muted_until > core.now() else None
        if identity_mode is not None and identity_mode != row.identity_mode:
            if identity_mode != "service-account":
                text = "only service-account: requests that run as single users (per-user) are not available yet"
                raise Invalid("identity_mode", text)
            changes["identity_mode"] = identity_mode

        def work(connection: Connection) -> None:
            live = _live(connection, cluster_id, if_match)
            if not changes:
                return
            if "name" in changes:
                _refuse_taken_name(connection, live.tenant_id, changes["name"], except_id=cluster_id)
            more = {"config_revision": live.config_revision + 1} if "keepalive" in changes else {}
            table = schema.clusters
            connection.execute(
                update(table).where(table.c.id == cluster_id).values(revision=live.revision + 1, **changes, **more)
            )
            detail = {field: [getattr(live, field), value] for field, value in changes.items() if field != "name_key"}
            entry = core.entry(actor, live.tenant_id, "cluster.update", cluster_id=cluster_id, detail=detail)
            audit.append(connection, entry)

        await core.database.write(work)
        fresh = await self._presence.reload(cluster_id)
        if fresh is None:
            raise NotFound()
        if "name" in changes:
            core.live.publish(row.tenant_id, "list", cluster_id)
        if "keepalive" in changes:
            core.config_changed(cluster_id)
        return self._view(fresh)

    async def delete(self, actor: Actor, cluster_id: str, *, confirm_name: str, if_match: int | None = None) -> None:
        """Delete the row: peer, lease, invites, kubeconfigs, streams. Needs re-authentication and the typed name."""
        core = self._core
        row = await self._seen(actor, cluster_id, "cluster.delete", right=Right.MANAGE, reauth=True)
        if confirm_name.strip() != row.name:
            raise Invalid("confirm_name", f"type the name of the cluster, {row.name}, to delete it")

        def work(connection: Connection) -> None:
            live, now, clusters = _live(connection, cluster_id, if_match), core.now(), schema.clusters
            connection.execute(
                update(clusters)
                .where(clusters.c.id == cluster_id)
                .values(deleted_at=now, phase=Phase.DELETED.value, reason=None, since=now, revision=live.revision + 1)
            )
            peers, tokens, alerts = schema.peers, schema.kubeconfig_tokens, schema.alerts
            connection.execute(
                update(peers)
                .where(peers.c.cluster_id == cluster_id, peers.c.retired_at.is_(None))
                .values(retired_at=now, psk=b"")
            )
            connection.execute(
                update(tokens)
                .where(tokens.c.cluster_id == cluster_id, tokens.c.revoked_at.is_(None))
                .values(revoked_at=now)
            )
            connection.execute(
                update(alerts)
                .where(alerts.c.cluster_id == cluster_id, alerts.c.resolved_at.is_(None))
                .values(resolved_at=now)
            )
            connection.execute(delete(schema.nodes).where(schema.nodes.c.cluster_id == cluster_id))
            _revoke_unused(connection, cluster_id, now)
            addresses.release(connection, cluster_id, now)
            add_event(
                connection,
                tenant_id=live.tenant_id,
                cluster_id=cluster_id,
                kind="cluster.deleted",
                at=now,
                detail=f"by {actor.email or actor.name}",
            )
            entry = core.entry(actor, live.tenant_id, "cluster.delete", cluster_id=cluster_id, target=live.name)
            audit.append(connection, entry)

        await core.database.write(work)
        if core.wire is not None:
            core.wire.cut(cluster_id, "the cluster was removed from the hub")
        await self._presence.reload(cluster_id)
        core.live.publish(row.tenant_id, "alert", cluster_id)

    async def accept_identity(self, actor: Actor, cluster_id: str) -> ClusterRow:
        """End a block: the new cluster uid (or the place) is the right one. Needs re-authentication."""
        core = self._core
        row = await self._seen(actor, cluster_id, "cluster.accept", right=Right.MANAGE, reauth=True)
        if row.status.phase is not Phase.BLOCKED:
            raise Conflict("this cluster is not blocked")
        self._presence.accept(row)
        await self._presence.flush()
        kinds = [alert_rules.Kind.IDENTITY_CHANGED.value, alert_rules.Kind.CLONE_SUSPECTED.value]

        def work(connection: Connection) -> None:
            table = schema.alerts
            open_ones = (table.c.cluster_id == cluster_id) & table.c.kind.in_(kinds) & table.c.resolved_at.is_(None)
            connection.execute(update(table).where(open_ones).values(resolved_at=core.now()))
            audit.append(connection, core.entry(actor, row.tenant_id, "cluster.accept", cluster_id=cluster_id))

        await core.database.write(work)
        await self._presence.joined(cluster_id)
        core.live.publish(row.tenant_id, "alert", cluster_id)
        return self._view(row)

    # --- views -------------------------------------------------------------------------------------------------------

    async def _seen(
        self, actor: Actor, cluster_id: str, action: str, *, right: Right = Right.SEE, reauth: bool = False
    ) -> Row:
        """The row, if the actor has the right to it."""
        row = self._presence.rows.get(cluster_id)
        tenant_id = row.tenant_id if row is not None else None
        await self._core.permit(actor, tenant_id, right, action, cluster_id=cluster_id, reauth=reauth)
        assert row is not None, "permit refuses what is not there"
        return row

    def _view(self, row: Row) -> ClusterRow:
        status, now = row.status, self._core.now()
        is_up = status.phase is Phase.CONNECTED
        age = now - row.last_handshake if row.last_handshake is not None else None
        return ClusterRow(
            id=row.id,
            tenant_id=row.tenant_id,
            name=row.name,
            phase=status.phase,
            reason=row.reason,
            label=LABELS[status.phase],
            detail=_detail(row),
            since=status.since,
            address=row.address,
            address6=row.address6,
            last_seen=status.last_packet,
            last_handshake=row.last_handshake,
            is_handshake_stale=is_up and age is not None and age > STALE_HANDSHAKE,
            nodes_ready=row.nodes_ready,
            nodes_total=row.nodes_total,
            kube_version=row.kube_version,
            agent_version=row.agent_version,
            chart_version=row.chart_version,
            update=self._update(row),
            path="udp" if status.last_packet is not None else None,
            open_alerts=row.open_alerts,
            alert_due_at=None if row.is_down_alert_open else alert_rules.due_at(status, row.muted_until),
            muted_until=row.muted_until if row.muted_until is not None and row.muted_until > now else None,
            invite_expires_at=row.invite_expires_at,
            needs_attention=_needs_attention(row),
            revision=row.revision,
        )

    def _update(self, row: Row) -> UpdateView | None:
        found = self._releases.newer_than(row.chart_version)
        if found is None:
            return None
        version, notes = found
        chart = self._core.settings.chart
        command = f"helm upgrade {RELEASE} {chart} --version {version} \\\n  --namespace {NAMESPACE} --reuse-values"
        return UpdateView(version, notes, command)


def _detail(row: Row) -> str:
    if row.reason is Reason.TUNNEL_UP_API_UNREACHABLE:
        return f"tunnel up, API server unreachable from the edge pod: {row.api_errno or 'no answer'}"
    if row.reason in (Reason.API_FORBIDDEN, Reason.EDGE_TOKEN_REFUSED):
        return row.api_detail
    if row.reason is Reason.CLOCK_SKEW and row.clock_skew is not None:
        return clock_text(row.clock_skew)
    return row.detail


def _needs_attention(row: Row) -> bool:
    return row.status.phase in _TROUBLED or row.reason in _TROUBLING or row.open_alerts > 0


def _matches(row: Row, query: ClusterQuery) -> bool:
    if query.phase is not None and row.status.phase is not query.phase:
        return False
    if query.label and LABELS[row.status.phase] != query.label:
        return False
    if query.reason is not None and row.reason is not query.reason:
        return False
    words = query.search.casefold().split()
    if not words:
        return True
    text = " ".join(
        (row.name, row.address or "", row.address6 or "", row.kube_version or "", row.id, LABELS[row.status.phase])
    ).casefold()
    return all(word in text for word in words)


def _sort_key(row: Row, key: str) -> tuple[Any, ...]:
    if key == "name":
        return (row.name.casefold(),)
    if key == "status":
        return (-SEVERITY.index(row.status.phase),)
    if key == "seen":
        return (-(row.status.last_packet or 0.0),)
    if key == "created":
        return (-row.created_at,)
    return (not _needs_attention(row), -SEVERITY.index(row.status.phase))


def _object_name(told: Any) -> str | None:
    """A name that an edge told, if Kubernetes can have it: it stands in commands for a shell."""
    return told if isinstance(told, str) and _OBJECT_NAME.fullmatch(told) else None


def _latest(*times: float | None) -> float | None:
    return max((at for at in times if at is not None), default=None)


def _joined(row: Row, now: float) -> tuple[float | None, float | None, float | None]:
    """When the newest invite was redeemed, its first packet came, it connected: what an earlier one did is history."""
    up = row.status.since if row.status.phase is Phase.CONNECTED else None
    redeemed, packet, connected = row.redeemed_at, row.first_packet_at, row.connected_at
    if up is None and row.invite_expires_at is not None and now < row.invite_expires_at:
        return None, None, None  # one that can still be used is waited for
    if redeemed is not None and connected is not None and connected < redeemed:
        return redeemed, up, up
    return redeemed, packet, connected


def _base64(key: bytes | None) -> str | None:
    import base64

    return None if key is None else base64.b64encode(key).decode()


def _node_row(node: dict[str, Any]) -> NodeRow:
    return NodeRow(
        name=node["name"],
        ready=node["ready"],
        schedulable=node["schedulable"],
        roles=tuple(node["roles"]),
        version=node["version"],
        created_at=node["created"],
        conditions=tuple(node["conditions"]),
    )


def _timeline(row: Row, samples: Sequence[Any], gaps: tuple[Gap, ...], first: int, now: float) -> Timeline:
    """Bars of a quarter of an hour from samples of a minute; a minute without a sample is before the row was up."""
    bars = []
    for index in range(BARS):
        start = first + index * BAR_MINUTES
        mine = [one for one in samples if start <= one.minute < start + BAR_MINUTES and Phase(one.phase) not in WAITING]
        phase = worst([Phase(one.phase) for one in mine])
        rtts = [one.rtt for one in mine if one.rtt is not None]
        reason = next((one.reason for one in mine if phase is not None and one.phase == phase.value), None)
        bars.append(
            TimelineBar(
                start=start * 60.0,
                end=(start + BAR_MINUTES) * 60.0,
                phase=phase,
                reason=Reason(reason) if reason else None,
                down=_overlap(gaps, start * 60.0, (start + BAR_MINUTES) * 60.0, now),
                rtt=sum(rtts) / len(rtts) if rtts else None,
                rx=sum(one.rx for one in mine),
                tx=sum(one.tx for one in mine),
            )
        )
    every = sorted(one.rtt for one in samples if one.rtt is not None)
    return Timeline(
        bars=tuple(bars),
        gaps=gaps,
        rtt=sum(every) / len(every) if every else None,
        rtt_p95=every[min(len(every) - 1, int(len(every) * 0.95))] if every else None,
        rx=sum(one.rx for one in samples),
        tx=sum(one.tx for one in samples),
    )


def _overlap(gaps: Sequence[Gap], start: float, end: float, now: float) -> float:
    return sum(max(0.0, min(end, gap.end if gap.end is not None else now) - max(start, gap.start)) for gap in gaps)


# --- units of work ---------------------------------------------------------------------------------------------------


def _live(connection: Connection, cluster_id: str, if_match: int | None = None) -> Any:
    """The row as the database has it now. Raises NotFound when it was deleted meanwhile, Stale by `if_match`."""
    clusters = schema.clusters
    found = select(clusters).where(clusters.c.id == cluster_id, clusters.c.deleted_at.is_(None))
    row = connection.execute(found).one_or_none()
    if row is None:
        raise NotFound()
    if if_match is not None and if_match != row.revision:
        raise Stale()
    return row


def _refuse_taken_name(connection: Connection, tenant_id: str, name: str, *, except_id: str | None) -> None:
    clusters = schema.clusters
    same = select(clusters.c.id).where(
        clusters.c.tenant_id == tenant_id, clusters.c.name_key == name_key(name), clusters.c.deleted_at.is_(None)
    )
    found = connection.execute(same).scalar_one_or_none()
    if found is not None and found != except_id:
        raise Invalid("name", f"there is a cluster {name} in this tenant already")


def _subnet(connection: Connection, tenant_id: str, subnet_id: str | None) -> Any:
    subnets = schema.subnets
    query = select(subnets).where(subnets.c.tenant_id == tenant_id)
    query = query.where(subnets.c.id == subnet_id) if subnet_id else query.where(subnets.c.is_default)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise Invalid("subnet", "there is no such subnet in this tenant")
    return row


def _insert_invite(
    connection: Connection, token: Token, tenant_id: str, cluster_id: str, actor: Actor, now: float
) -> None:
    invites = schema.invites
    if connection.execute(select(invites.c.id).where(invites.c.id == token.id)).first() is not None:
        raise Unavailable("two tokens came out alike: try again", retry_after=0)
    connection.execute(
        insert(invites).values(
            id=token.id,
            tenant_id=tenant_id,
            cluster_id=cluster_id,
            secret_hash=secret_hash(token.secret),
            created_at=now,
            created_by=actor.email or actor.name,
            expires_at=now + INVITE_LIFETIME,
        )
    )


def _revoke_unused(connection: Connection, cluster_id: str, now: float) -> bool:
    invites = schema.invites
    unused = (invites.c.cluster_id == cluster_id) & invites.c.used_at.is_(None) & invites.c.revoked_at.is_(None)
    return bool(connection.execute(update(invites).where(unused).values(revoked_at=now)).rowcount)


def _state_invite(connection: Connection, cluster_id: str, reason: Reason, now: float) -> None:
    """Say on the row how its invite stands; a row that joined before is not disturbed."""
    clusters = schema.clusters
    waiting = (clusters.c.id == cluster_id) & (clusters.c.phase == Phase.INVITED.value)
    connection.execute(update(clusters).where(waiting).values(reason=reason.value, since=now))


def _newest_invite(connection: Connection, cluster_id: str) -> Any:
    invites = schema.invites
    newest = select(invites).where(invites.c.cluster_id == cluster_id).order_by(invites.c.created_at.desc()).limit(1)
    return connection.execute(newest).one_or_none()


def _invite_view(row: Any, now: float) -> InviteView:
    if row.used_at is not None:
        state = "used"
    elif row.revoked_at is not None:
        state = "revoked"
    else:
        state = "expired" if now >= row.expires_at else "pending"
    return InviteView(
        id=row.id,
        cluster_id=row.cluster_id,
        state=state,  # type: ignore[arg-type] # one of the four
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        used_at=row.used_at,
        used_from=row.used_from,
        revoked_at=row.revoked_at,
    )


def _nodes(connection: Connection, cluster_id: str) -> tuple[float | None, list[dict[str, Any]]]:
    row = connection.execute(select(schema.nodes).where(schema.nodes.c.cluster_id == cluster_id)).one_or_none()
    return (None, []) if row is None else (row.told_at, row.nodes)


def _events(connection: Connection, cluster_id: str, before: int | None, limit: int) -> list[Any]:
    events = schema.events
    query = select(events).where(events.c.cluster_id == cluster_id)
    if before is not None:
        query = query.where(events.c.id < before)
    return list(connection.execute(query.order_by(events.c.id.desc()).limit(limit)).all())


_LOST: Final = ("tunnel.lost", "edge.goodbye")
_FOUND: Final = ("tunnel.restored", "tunnel.connected")


def _history(
    connection: Connection, cluster_id: str, first_minute: int, since: float
) -> tuple[list[Any], tuple[Gap, ...]]:
    samples, events = schema.status_samples, schema.events
    found = connection.execute(
        select(samples)
        .where(samples.c.cluster_id == cluster_id, samples.c.minute >= first_minute)
        .order_by(samples.c.minute)
    ).all()
    # The last change before the day began says whether it began with a gap.
    before = connection.execute(
        select(func.max(events.c.id)).where(
            events.c.cluster_id == cluster_id, events.c.kind.in_(_LOST + _FOUND), events.c.at < since
        )
    ).scalar_one_or_none()
    changes = connection.execute(
        select(events)
        .where(events.c.cluster_id == cluster_id, events.c.kind.in_(_LOST + _FOUND), events.c.id >= (before or 0))
        .order_by(events.c.id)
    ).all()
    gaps: list[Gap] = []
    start: tuple[float, Reason | None] | None = None
    for event in changes:
        if event.kind in _LOST and start is None:
            start = max(event.at, since), Reason(event.reason) if event.reason else None
        elif event.kind in _FOUND and start is not None:
            if event.at > since:
                gaps.append(Gap(start[0], event.at, start[1]))
            start = None
    if start is not None:
        gaps.append(Gap(start[0], None, start[1]))
    return list(found), tuple(gaps)
