"""Reading the audit log."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any, Literal

from sqlalchemy import Connection, select

from hub_server.domain.roles import Right
from hub_server.services.core import Core
from hub_server.services.paging import after, cursor_of, limit_of
from hub_server.services.views import Actor, AuditView, Page
from hub_server.store import schema

_COLUMNS = ("seq", "at", "actor", "action", "cluster_id", "target", "result", "remote", "request_id", "detail", "hash")


class AuditLog:
    """Reading the audit log."""

    def __init__(self, core: Core) -> None:
        """Stand on the core."""
        self._core = core

    async def list(
        self,
        actor: Actor,
        tenant_id: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        action: str = "",
        cluster_id: str | None = None,
    ) -> Page[AuditView]:
        """Entries, newest first."""
        await self._core.permit(actor, tenant_id, Right.AUDIT, "audit.read")
        limit = limit_of(limit)
        found = await self._core.database.read(
            _entries, tenant_id, before=after(cursor) or None, limit=limit + 1, action=action, cluster_id=cluster_id
        )
        more = cursor_of(found[limit - 1].seq) if len(found) > limit else None
        return Page(tuple(found[:limit]), more)

    async def export(self, actor: Actor, tenant_id: str, *, form: Literal["jsonl", "csv"] = "jsonl") -> str:
        """The whole log as text; cells of CSV are escaped against formulas."""
        await self._core.permit(actor, tenant_id, Right.AUDIT, "audit.export")
        found = await self._core.database.read(_entries, tenant_id)
        found.reverse()
        if form == "jsonl":
            return "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in found)
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(_COLUMNS)
        for entry in found:
            values = asdict(entry) | {"detail": json.dumps(dict(entry.detail), ensure_ascii=False)}
            writer.writerow([_cell(values[column]) for column in _COLUMNS])
        return out.getvalue()


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _entries(
    connection: Connection,
    chain: str,
    *,
    before: int | None = None,
    limit: int | None = None,
    action: str = "",
    cluster_id: str | None = None,
) -> list[AuditView]:
    table = schema.audit
    query = select(table).where(table.c.chain == chain).order_by(table.c.seq.desc())
    if before is not None:
        query = query.where(table.c.seq < before)
    if action:
        query = query.where(table.c.action == action)
    if cluster_id is not None:
        query = query.where(table.c.cluster_id == cluster_id)
    if limit is not None:
        query = query.limit(limit)
    return [
        AuditView(
            seq=row.seq,
            at=row.at,
            actor=row.actor,
            action=row.action,
            cluster_id=row.cluster_id,
            target=row.target,
            result=row.result,
            remote=row.remote,
            request_id=row.request_id,
            detail=row.detail,
            hash=row.hash.hex(),
        )
        for row in connection.execute(query)
    ]
