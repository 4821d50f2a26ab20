"""Alerts: what is wrong now, what was, and who looks into it."""

from __future__ import annotations

from starlette.responses import Response

from hub_server.services.views import LiveEvent
from hub_server.web import render
from hub_server.web.live import Pen, Stream
from hub_server.web.site import Visit, see_other


async def show(visit: Visit) -> Response:
    """Open ones first."""
    tenant = await visit.tenant()
    page = await visit.services.alerts.list(visit.actor, tenant.id, cursor=visit.asked("cursor") or None)
    context = await visit.frame(tenant, "alerts", page=page, is_first=not visit.asked("cursor"))
    return await visit.page("alerts.html", context)


async def acknowledge(visit: Visit) -> Response:
    """Say that somebody looks into it."""
    tenant = await visit.tenant()
    await visit.services.alerts.acknowledge(visit.actor, str(visit.request.path_params["alert_id"]))
    return see_other(f"/t/{tenant.slug}/alerts")


async def stream(visit: Visit) -> Response:
    """The list, kept true."""
    tenant = await visit.tenant()
    context = await visit.frame(tenant, "alerts", is_first=True)

    async def react(pen: Pen, event: LiveEvent | None) -> None:
        if event is None or event.kind not in ("alert", "reset", "list"):
            return
        page = await visit.services.alerts.list(visit.actor, tenant.id)
        count = await visit.services.alerts.open_count(visit.actor, tenant.id)
        told = {**context, "page": page, "alerts_open": count, "now": visit.now}
        await pen.parts(
            {
                "alerts": render.fragment("alerts.html", "alerts", told),
                "badge": render.fragment("alerts.html", "badge", told),
            }
        )

    return Stream(visit, tenant.id, react)
