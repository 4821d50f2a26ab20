"""Reading the audit log."""

from __future__ import annotations

from typing import Literal

from hub_server.services.views import Actor, AuditView, Page


class AuditLog:
    """Reading the audit log."""

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
        raise NotImplementedError

    async def export(self, actor: Actor, tenant_id: str, *, form: Literal["jsonl", "csv"] = "jsonl") -> str:
        """The whole log as text; cells of CSV are escaped against formulas."""
        raise NotImplementedError
