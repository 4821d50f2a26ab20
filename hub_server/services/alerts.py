"""Alerts: what is open, and who has seen it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, case, func, select, update

from hub_server import audit
from hub_server.domain import alerts as rules
from hub_server.domain.errors import NotFound
from hub_server.domain.roles import Right
from hub_server.services.core import Core
from hub_server.services.paging import after, limit_of, page_of
from hub_server.services.presence import Presence
from hub_server.services.views import Actor, AlertView, Page
from hub_server.store import schema


class Alerts:
    """Alerts: what is open, and who has seen it."""

    def __init__(self, core: Core, presence: Presence) -> None:
        """Stand on the core; rows show how many alerts of theirs are open."""
        self._core = core
        self._presence = presence

    async def list(
        self,
        actor: Actor,
        tenant_id: str,
        *,
        open_only: bool = False,
        cluster_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[AlertView]:
        """Alerts of a tenant, open ones first, then newest first."""
        await self._core.permit(actor, tenant_id, Right.SEE, "alerts.list")
        offset, limit = after(cursor), limit_of(limit)
        rows = await self._core.database.read(_alerts, tenant_id, open_only, cluster_id, offset, limit + 1)
        return page_of([_view(row) for row in rows], offset, limit)

    async def open_count(self, actor: Actor, tenant_id: str) -> int:
        """For the badge in the side bar."""
        await self._core.permit(actor, tenant_id, Right.SEE, "alerts.list")
        return await self._core.database.read(_open_count, tenant_id)

    async def acknowledge(self, actor: Actor, alert_id: str) -> AlertView:
        """Say that somebody looks into it; ends an alert whose cause cannot end by itself."""
        core = self._core
        found = await core.database.read(_alert, alert_id)
        await core.permit(actor, found.tenant_id if found is not None else None, Right.PANEL, "alert.acknowledge")

        def work(connection: Connection) -> Any:
            row = _alert(connection, alert_id)
            if row is None:
                raise NotFound()
            if row.acknowledged_at is None:
                table = schema.alerts
                now = core.now()
                values: dict[str, Any] = {"acknowledged_at": now, "acknowledged_by": actor.email or actor.name}
                if rules.Kind(row.kind) in rules.ENDED_BY_ACKNOWLEDGEMENT and row.resolved_at is None:
                    values["resolved_at"] = now
                connection.execute(update(table).where(table.c.id == alert_id).values(**values))
                entry = core.entry(
                    actor, row.tenant_id, "alert.acknowledge", cluster_id=row.cluster_id, target=row.kind
                )
                audit.append(connection, entry)
            return _alert(connection, alert_id)

        row = await core.database.write(work)
        await self._presence.reload(row.cluster_id)
        core.live.publish(row.tenant_id, "alert", row.cluster_id)
        return _view(row)


# --- units of work ---------------------------------------------------------------------------------------------------


def _query() -> Any:
    clusters = schema.clusters
    return select(schema.alerts, clusters.c.name).join(clusters, clusters.c.id == schema.alerts.c.cluster_id)


def _alerts(
    connection: Connection, tenant_id: str, open_only: bool, cluster_id: str | None, offset: int, limit: int
) -> list[Any]:
    table = schema.alerts
    query = _query().where(table.c.tenant_id == tenant_id)
    if open_only:
        query = query.where(table.c.resolved_at.is_(None))
    if cluster_id is not None:
        query = query.where(table.c.cluster_id == cluster_id)
    is_resolved = case((table.c.resolved_at.is_(None), 0), else_=1)
    query = query.order_by(is_resolved, table.c.opened_at.desc(), table.c.id).offset(offset).limit(limit)
    return list(connection.execute(query).all())


def _alert(connection: Connection, alert_id: str) -> Any:
    return connection.execute(_query().where(schema.alerts.c.id == alert_id)).one_or_none()


def _open_count(connection: Connection, tenant_id: str) -> int:
    table = schema.alerts
    query = select(func.count()).where(table.c.tenant_id == tenant_id, table.c.resolved_at.is_(None))
    return connection.execute(query).scalar_one()


def _view(row: Any) -> AlertView:
    return AlertView(
        id=row.id,
        cluster_id=row.cluster_id,
        cluster_name=row.name,
        kind=row.kind,
        severity=row.severity,
        title=rules.TITLES[rules.Kind(row.kind)],
        detail=row.detail,
        opened_at=row.opened_at,
        down_since=row.down_since,
        resolved_at=row.resolved_at,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
    )
