"""kubectl: the panel, kubeconfigs, and who may send a request through the tunnel.

A kubeconfig holds a `dlk_` token that is bound to one user and one cluster; its hash alone is kept, and every request
reads user, role and cluster anew. What went through the tunnel is audited a little later, in batches.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import trio
from sqlalchemy import Connection, insert, select, update

from hub_server import audit
from hub_server.domain import foreign
from hub_server.domain.errors import Conflict, EdgeUnreachable, Forbidden, Invalid, NotFound, Unauthenticated
from hub_server.domain.records import PanelResult, ProxyGrant, ProxyRecord
from hub_server.domain.roles import Right
from hub_server.domain.status import Phase
from hub_server.kubeproxy import Asking
from hub_server.panel import Panel
from hub_server.services import standing
from hub_server.services.core import Core
from hub_server.services.presence import Presence, Row
from hub_server.services.refusals import SUM_EVERY, Refusals
from hub_server.services.views import Actor, IssuedKubeconfig, KubeconfigView, PanelAnswer
from hub_server.store import schema
from hub_server.wire import Wire

TOKEN_PREFIX: Final = "dlk_"
MOST_LIVE: Final = 50  # kubeconfigs of a user for a cluster
_LINE_LIMIT: Final = 4096
_WHY_DOWN: Final = {
    Phase.INVITED: "{} has not joined yet: its invite was not used",
    Phase.REDEEMED: "{} has not connected yet: its invite was used, and no packet of its edge came",
}


class Kubectl:
    """kubectl: the panel, kubeconfigs, and who may send a request through the tunnel."""

    def __init__(self, core: Core, presence: Presence) -> None:
        """Stand on the core, and know rows from presence."""
        self._core = core
        self._presence = presence
        self._refusals = Refusals()
        self._panel = Panel(wall_clock=core.now)

    # --- the panel ---------------------------------------------------------------------------------------------------

    async def run_panel(self, actor: Actor, cluster_id: str, line: str) -> PanelAnswer:
        """Run what was typed after `kubectl`. Raises Forbidden, EdgeUnreachable; a refused line is an answer."""
        core = self._core
        row = await self._seen(actor, cluster_id, Right.PANEL, "panel.run")
        if len(line) > _LINE_LIMIT:
            raise Invalid("line", f"a line has at most {_LINE_LIMIT} characters")
        wire = self.wire_to(row)
        slug = await core.database.read(_slug_of, row.tenant_id)
        grant = ProxyGrant(
            user_id=actor.id,
            email=actor.email,
            tenant_id=row.tenant_id,
            tenant_slug=slug,
            cluster_id=cluster_id,
            role=actor.roles[row.tenant_id].value,
        )
        begin = trio.current_time()
        result: PanelResult | None = None
        try:
            with core.grounds.standing_on(standing.ground_of(actor, row.tenant_id, Right.PANEL, cluster_id)):
                result = await self._panel.run(line, wire, grant)
        finally:
            # Also of a line that ended in a fault, or whose reader went away: the cluster may have been asked.
            outcome = "failed" if result is None else "refused" if result.refused else str(result.exit_code)
            entry = core.entry(
                actor,
                row.tenant_id,
                "panel.run",
                result=outcome,
                cluster_id=cluster_id,
                # Safe to log whole: the grammar has no flag that takes a secret.
                target=line[:500],
                detail={
                    "octets": 0 if result is None else len(result.output),
                    "ms": round((trio.current_time() - begin) * 1000),
                },
            )
            core.later.append(entry)
        return _answer(result)

    def wire_to(self, row: Row) -> Wire:
        """The wire, if this cluster can be asked now.

        Raises:
            EdgeUnreachable: it is blocked, or its tunnel is down; the text says which, and why.
            Forbidden: requests must not run as the edge's own account, which is all that there is.
        """
        if row.status.phase is Phase.BLOCKED:
            why = row.detail or str(row.status.reason or "an admin locked it")
            text = f"{row.name} is blocked ({why}): an admin of the tenant must accept it or delete it"
            raise EdgeUnreachable(text, code="cluster_blocked")
        wire = self._core.wire
        if not isinstance(wire, Wire) or row.status.phase not in (Phase.CONNECTED, Phase.RECONNECTING):
            text = _WHY_DOWN.get(row.status.phase, "")
            why = f" ({row.detail or row.status.reason})" if not text and row.status.reason else ""
            raise EdgeUnreachable(text.format(row.name) or f"the tunnel of {row.name} is down{why}", code="tunnel_down")
        if row.identity_mode != "service-account":
            text = f"the identity mode of {row.name} is {row.identity_mode}, which is not available: change it back"
            raise Forbidden(text, code="identity_mode")
        return wire

    # --- kubeconfigs -------------------------------------------------------------------------------------------------

    async def kubeconfigs(self, actor: Actor, cluster_id: str) -> tuple[KubeconfigView, ...]:
        """Own kubeconfigs; an admin sees all."""
        row = await self._seen(actor, cluster_id, Right.KUBECONFIG, "kubeconfigs.list")
        owner = None if actor.may(row.tenant_id, Right.MANAGE) else actor.id
        views = await self._core.database.read(_kubeconfigs, cluster_id, owner)
        table, last_use = schema.kubeconfig_tokens, self._core.later.last_use
        return tuple(replace(view, last_used_at=last_use(table, view.id, view.last_used_at) or None) for view in views)

    async def issue_kubeconfig(
        self, actor: Actor, cluster_id: str, *, ttl: float | None = None, stream: bool | None = None
    ) -> IssuedKubeconfig:
        """Make a kubeconfig. Needs re-authentication.

        Args:
            actor: whose it will be.
            cluster_id: for which cluster.
            ttl: seconds that it lives; None for the hub's usual time.
            stream: whether it may open streams (exec, attach, port-forward); None for what the actor's role may.
        """
        core = self._core
        row = await self._seen(actor, cluster_id, Right.KUBECONFIG, "kubeconfig.issue", reauth=True)
        if actor.kind != "user":
            raise Forbidden("a kubeconfig belongs to a person: sign in as one")
        if ttl is not None:
            foreign.number("ttl", ttl, 1, foreign.LATEST)
        may_stream = actor.may(row.tenant_id, Right.STREAM)
        stream = may_stream if stream is None else stream
        if stream and not may_stream:
            raise Forbidden("your role may not open streams (exec, attach, port-forward)")
        token, kubeconfig_id, now = TOKEN_PREFIX + secrets.token_urlsafe(32), core.id("kc"), core.now()
        ttl = core.settings.kubeconfig_ttl if ttl is None else ttl

        def work(connection: Connection) -> tuple[str, str]:
            tenants, clusters = schema.tenants, schema.clusters
            tenant = connection.execute(select(tenants).where(tenants.c.id == row.tenant_id)).one()
            if not 0 < ttl <= tenant.kubeconfig_max_ttl:
                hours = tenant.kubeconfig_max_ttl / 3600
                raise Invalid("ttl", f"a kubeconfig of this tenant lives for at most {hours:g} hours")
            live = select(clusters.c.name).where(clusters.c.id == cluster_id, clusters.c.deleted_at.is_(None))
            name = connection.execute(live).scalar_one_or_none()
            if name is None:
                raise NotFound()
            mine = [one for one in _kubeconfigs(connection, cluster_id, actor.id) if one.revoked_at is None]
            if sum(one.expires_at > now for one in mine) >= MOST_LIVE:
                raise Conflict(f"you hold {MOST_LIVE} kubeconfigs of this cluster already: revoke some")
            connection.execute(
                insert(schema.kubeconfig_tokens).values(
                    id=kubeconfig_id,
                    tenant_id=row.tenant_id,
                    cluster_id=cluster_id,
                    user_id=actor.id,
                    hash=_digest(token),
                    created_at=now,
                    expires_at=now + ttl,
                    stream=stream,
                )
            )
            entry = core.entry(
                actor,
                row.tenant_id,
                "kubeconfig.issue",
                cluster_id=cluster_id,
                target=kubeconfig_id,
                detail={"ttl": ttl, "stream": stream},
            )
            audit.append(connection, entry)
            return tenant.slug, name

        slug, name = await core.database.write(work)
        # With the hub's own name in it, so that kubeconfigs of two hubs can be merged.
        host = urlsplit(core.settings.public_url).netloc
        context = f"{slug}-{name.casefold()}@{host}"
        server = f"{core.settings.public_url}/k8s/clusters/{cluster_id}"
        return IssuedKubeconfig(
            id=kubeconfig_id,
            yaml=_kubeconfig(context, server, core.ca_pem, token),
            filename=f"{re.sub(r'[^a-z0-9.-]+', '-', context)}.kubeconfig",
            context=context,
            expires_at=now + ttl,
        )

    async def revoke_kubeconfig(self, actor: Actor, cluster_id: str, kubeconfig_id: str) -> None:
        """Dead at once."""
        core = self._core
        row = await self._seen(actor, cluster_id, Right.KUBECONFIG, "kubeconfig.revoke")
        is_manager = actor.may(row.tenant_id, Right.MANAGE)

        def work(connection: Connection) -> None:
            table = schema.kubeconfig_tokens
            found = (table.c.id == kubeconfig_id) & (table.c.cluster_id == cluster_id)
            if not is_manager:
                found &= table.c.user_id == actor.id
            if connection.execute(select(table.c.id).where(found)).first() is None:
                raise NotFound()
            connection.execute(update(table).where(found, table.c.revoked_at.is_(None)).values(revoked_at=core.now()))
            entry = core.entry(actor, row.tenant_id, "kubeconfig.revoke", cluster_id=cluster_id, target=kubeconfig_id)
            audit.append(connection, entry)

        await core.database.write(work)

    async def _seen(self, actor: Actor, cluster_id: str, right: Right, action: str, *, reauth: bool = False) -> Row:
        row = self._presence.rows.get(cluster_id)
        tenant_id = row.tenant_id if row is not None else None
        await self._core.permit(actor, tenant_id, right, action, cluster_id=cluster_id, reauth=reauth)
        assert row is not None, "permit refuses what is not there"
        return row

    # --- kubectl's door ----------------------------------------------------------------------------------------------

    async def authorize(self, asking: Asking) -> ProxyGrant:
        """Who sends this request; see `kubeproxy.Authorize`. Raises Unauthenticated, Forbidden, EdgeUnreachable."""
        core, token = self._core, asking.token
        found = await core.database.read(_token, _digest(token)) if token.startswith(TOKEN_PREFIX) else None
        now = core.now()
        # One answer for a token that never was, and one that is another cluster's.
        if found is None or found.cluster_id != asking.cluster_id:
            problem: str | None = "this kubeconfig is not valid (any more): download a new one from the hub"
        else:
            problem = standing.kubeconfig_problem(found, Right.KUBECONFIG, now)
        row = self._presence.rows.get(asking.cluster_id)
        if problem is None and row is None:
            problem = "this cluster was removed from the hub"
        if problem is not None or row is None or found is None:
            self._refusals.note(asking, row, found, now)
            self._audit_refusals()
            raise Unauthenticated(problem or "")
        core.later.touch(schema.kubeconfig_tokens, found.id, found.last_used_at, now)
        self.wire_to(row)
        return ProxyGrant(
            user_id=found.user_id,
            email=found.email,
            tenant_id=found.tenant_id,
            tenant_slug=found.slug,
            cluster_id=asking.cluster_id,
            role=found.role,
            stream=standing.kubeconfig_problem(found, Right.STREAM, now) is None,
            kubeconfig_id=found.id,
        )

    def record(self, record: ProxyRecord) -> None:
        """Take a request for the audit. Those of nobody are logged by the server and not kept."""
        if not record.tenant_id:
            return
        self._core.later.append(_entry(record))

    async def sum_refusals(self) -> None:
        """Audit what was refused and only counted when its minute is over, until cancelled."""
        while True:
            await trio.sleep(SUM_EVERY)
            self._audit_refusals()

    def _audit_refusals(self) -> None:
        for entry in self._refusals.take(self._core.now()):
            self._core.later.append(entry)


def _answer(result: PanelResult) -> PanelAnswer:
    return PanelAnswer(result.output, result.exit_code, result.refused, result.forbidden)


def _kubeconfig(context: str, server: str, ca_pem: str | None, token: str) -> str:
    """YAML that a stock kubectl reads; JSON strings are YAML strings."""
    import base64

    quoted = json.dumps
    ca = "" if ca_pem is None else f"    certificate-authority-data: {base64.b64encode(ca_pem.encode()).decode()}\n"
    return (
        "apiVersion: v1\n"
        "kind: Config\n"
        f"current-context: {quoted(context)}\n"
        "clusters:\n"
        f"- name: {quoted(context)}\n"
        "  cluster:\n"
        f"    server: {quoted(server)}\n"
        f"{ca}"
        "users:\n"
        f"- name: {quoted(context)}\n"
        "  user:\n"
        f"    token: {quoted(token)}\n"
        "contexts:\n"
        f"- name: {quoted(context)}\n"
        "  context:\n"
        f"    cluster: {quoted(context)}\n"
        f"    user: {quoted(context)}\n"
    )


# --- units of work ---------------------------------------------------------------------------------------------------


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _slug_of(connection: Connection, tenant_id: str) -> str:
    return str(connection.execute(select(schema.tenants.c.slug).where(schema.tenants.c.id == tenant_id)).scalar_one())


def _kubeconfigs(connection: Connection, cluster_id: str, owner: str | None) -> tuple[KubeconfigView, ...]:
    table, users = schema.kubeconfig_tokens, schema.users
    query = select(table, users.c.email).join(users, users.c.id == table.c.user_id)
    query = query.where(table.c.cluster_id == cluster_id).order_by(table.c.created_at.desc())
    if owner is not None:
        query = query.where(table.c.user_id == owner)
    return tuple(
        KubeconfigView(
            id=row.id,
            cluster_id=row.cluster_id,
            user_id=row.user_id,
            email=row.email,
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
            revoked_at=row.revoked_at,
            stream=row.stream,
        )
        for row in connection.execute(query)
    )


def _token(connection: Connection, digest: bytes) -> Any:
    query = standing.kubeconfigs_query().where(schema.kubeconfig_tokens.c.hash == digest)
    return connection.execute(query).one_or_none()


def _entry(record: ProxyRecord) -> audit.Entry:
    where = f"{record.namespace}/" if record.namespace else ""
    what = " ".join(word for word in (record.resource, f"{where}{record.name}".rstrip("/")) if word) or record.path
    return audit.Entry(
        chain=record.tenant_id,
        at=record.started,
        actor=record.user_id,
        action=f"kubectl.{record.verb}" + (".open" if record.phase == "open" else ""),
        result=record.reason or str(record.status),
        cluster_id=record.cluster_id,
        target=what,
        remote=record.remote,
        request_id=record.request_id,
        detail={
            "identity": record.identity,
            "status": record.status,
            "in": record.octets_in,
            "out": record.octets_out,
            "ms": round(record.seconds * 1000),
        },
    )
