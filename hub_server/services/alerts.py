"""Alerts: what is open, and who has seen it."""

from __future__ import annotations

from hub_server.services.views import Actor, AlertView, Page


class Alerts:
    """Alerts: what is open, and who has seen it."""

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
        raise NotImplementedError

    async def open_count(self, actor: Actor, tenant_id: str) -> int:
        """For the badge in the side bar."""
        raise NotImplementedError

    async def acknowledge(self, actor: Actor, alert_id: str) -> AlertView:
        """Say that somebody looks into it."""
        raise NotImplementedError
