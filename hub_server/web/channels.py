"""Settings → Notifications: who outside these pages hears of what happens."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from hub_server import notify
from hub_server.domain.errors import Conflict, Invalid
from hub_server.domain.roles import Right
from hub_server.services.views import ChannelView, NewChannel
from hub_server.web.once import once
from hub_server.web.site import Visit, see_other


async def show(visit: Visit) -> Response:
    """The webhooks of the tenant, and the form for one more."""
    return await _page(visit, values={"name": "", "url": "", "kinds": []})


async def _page(
    visit: Visit,
    *,
    values: dict[str, Any],
    errors: dict[str, str] | None = None,
    made: NewChannel | None = None,
    status: int = 200,
) -> Response:
    tenant = await visit.tenant()
    context = await visit.frame(
        tenant,
        "settings",
        page_of="channels",
        may_manage=visit.actor.may(tenant.id, Right.MANAGE),
        channels=await visit.services.channels.list(visit.actor, tenant.id),
        kinds=notify.KINDS[:-1],
        values=values,
        errors=errors or {},
        made=made,
    )
    return await visit.page("channels.html", context, status)


def _read(fields: dict[str, Any]) -> NewChannel:
    return NewChannel(ChannelView(**fields["channel"]), fields["secret"])


async def create(visit: Visit) -> Response:
    """Add one; its secret is in this answer only."""
    tenant = await visit.tenant()
    values: dict[str, Any] = {"name": visit.field("name"), "url": visit.field("url"), "kinds": visit.fields("kind")}
    try:
        made = await once(visit, lambda: visit.services.channels.create(visit.actor, tenant.id, **values), _read)
    except Invalid as refusal:
        return await _page(visit, values=values, errors={refusal.field: refusal.detail}, status=422)
    except Conflict as refusal:
        return await _page(visit, values=values, errors={"name": refusal.detail}, status=422)
    return await _page(visit, values={"name": "", "url": "", "kinds": []}, made=made)


async def test(visit: Visit) -> Response:
    """Send a message that says that it is a test."""
    tenant = await visit.tenant()
    await visit.services.channels.send_test(visit.actor, tenant.id, str(visit.request.path_params["channel_id"]))
    return see_other(f"/t/{tenant.slug}/settings/channels")


async def delete(visit: Visit) -> Response:
    """Remove one."""
    tenant = await visit.tenant()
    await visit.services.channels.delete(visit.actor, tenant.id, str(visit.request.path_params["channel_id"]))
    return see_other(f"/t/{tenant.slug}/settings/channels")
