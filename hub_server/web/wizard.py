"""Add cluster: what do I do next? Three steps on one page, the last of which waits with you.

The token is in the answer to the form and nowhere else. The page then stands for `/clusters/<id>/join`, which survives
a reload, can be left and found again, and shows the ladder until it ends by itself with *connected*.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from hub_server.domain.errors import Invalid, NotFound
from hub_server.domain.roles import Right
from hub_server.services.views import ClusterRow, InviteCreated, InviteView, LiveEvent, TenantView
from hub_server.web import render
from hub_server.web.live import Pen, Stream
from hub_server.web.once import once
from hub_server.web.site import Visit, see_other

# What the chart asks for, as the page says it before the install.
PERMISSIONS = (
    "read pods, services, deployments, statefulsets, daemonsets and events in all namespaces",
    "read logs of pods",
    "list nodes",
    "read the one namespace kube-system, to recognise the cluster",
    "in its own namespace: read its one Secret, read and change its one ConfigMap",
)


async def _first_step(
    visit: Visit, tenant: TenantView, *, values: dict[str, str], errors: dict[str, str], status: int = 200
) -> Response:
    subnets = await visit.services.tenants.subnets(visit.actor, tenant.id)
    context = await visit.frame(
        tenant,
        "clusters",
        step=1,
        subnets=subnets,
        values=values,
        errors=errors,
        permissions=PERMISSIONS,
        warnings=visit.services.clusters.unreachable_addresses(),
        row=None,
        invite=None,
        told=None,
        may_add=visit.actor.may(tenant.id, Right.MANAGE),
    )
    return await visit.page("join.html", context, status)


async def show_form(visit: Visit) -> Response:
    """Step 1: a name, and a subnet that is chosen already."""
    return await _first_step(visit, await visit.tenant(), values={}, errors={})


async def create(visit: Visit) -> Response:
    """Make the row and its invite, and show the command this once."""
    tenant = await visit.tenant()
    values = {name: visit.field(name) for name in ("name", "subnet", "cidr")}

    async def make() -> InviteCreated:
        if values["cidr"]:
            subnet = await visit.services.tenants.add_subnet(visit.actor, tenant.id, values["cidr"])
            values.update(subnet=subnet.id, cidr="")  # it is there, whatever becomes of the rest
        return await visit.services.clusters.create(
            visit.actor, tenant.id, name=values["name"], subnet_id=values["subnet"] or None
        )

    try:
        invite = await once(visit, make, _read_invite)
    except Invalid as refusal:
        return await _first_step(visit, tenant, values=values, errors={refusal.field: refusal.detail}, status=422)
    return await _waiting(visit, invite.cluster_id, invite=invite)


def _read_invite(fields: dict[str, Any]) -> InviteCreated:
    return InviteCreated(**fields)


async def regenerate(visit: Visit) -> Response:
    """A new command; the old one is dead at once."""

    async def make() -> InviteCreated:
        return await visit.services.clusters.regenerate(visit.actor, visit.cluster_id)

    invite = await once(visit, make, _read_invite)
    return await _waiting(visit, visit.cluster_id, invite=invite)


async def revoke(visit: Visit) -> Response:
    """Withdraw the invite."""
    await visit.services.clusters.revoke_invite(visit.actor, visit.cluster_id)
    return see_other(f"/clusters/{visit.cluster_id}/join")


async def show_join(visit: Visit) -> Response:
    """Steps 2 and 3 again, without the token."""
    return await _waiting(visit, visit.cluster_id, invite=None)


async def _progress(visit: Visit, row: ClusterRow, *, may_add: bool) -> dict[str, Any]:
    """What the stream renders again: how the invite stands, and the ladder."""
    ladder = await visit.services.clusters.ladder(visit.actor, row.id)
    told = await visit.services.clusters.invite(visit.actor, row.id) if may_add else None
    return {"ladder": ladder, "told": told, "row": row, "now": visit.now, "actor": visit.actor, "may_add": may_add}


async def _waiting(visit: Visit, cluster_id: str, *, invite: InviteCreated | None) -> Response:
    row = await visit.services.clusters.row(visit.actor, cluster_id)
    tenant = await visit.services.tenants.get(visit.actor, row.tenant_id)
    may_add = visit.actor.may(tenant.id, Right.MANAGE)
    progress = await _progress(visit, row, may_add=may_add)
    told: InviteView | None = progress["told"]
    if invite is not None and (told is None or told.id != invite.id):
        invite = None  # a repeat, and a newer one has made this command worthless
    context = await visit.frame(
        tenant,
        "clusters",
        step=3,
        invite=invite,
        permissions=PERMISSIONS,
        warnings=visit.services.clusters.unreachable_addresses(),
    )
    context |= progress
    return await visit.page("join.html", context, headers={"HX-Replace-Url": f"/clusters/{cluster_id}/join"})


async def stream(visit: Visit) -> Response:
    """The ladder climbs by itself; its texts also change with the time waited."""
    row = await visit.services.clusters.row(visit.actor, visit.cluster_id)
    tenant = await visit.services.tenants.get(visit.actor, row.tenant_id)
    may_add = visit.actor.may(tenant.id, Right.MANAGE)

    async def react(pen: Pen, event: LiveEvent | None) -> None:
        if event is not None and event.kind in ("alert", "reset"):
            count = await visit.services.alerts.open_count(visit.actor, tenant.id)
            await pen.parts({"badge": render.fragment("join.html", "badge", {"alerts_open": count})})
        if event is not None and event.cluster_id != row.id and event.kind != "reset":
            return
        try:
            now = await visit.services.clusters.row(visit.actor, row.id)
        except NotFound:
            await pen.message("", event="reload")
            raise
        context = {**await _progress(visit, now, may_add=may_add), "tenant": tenant}
        parts = {name: render.fragment("join.html", name, context) for name in ("second", "token", "third", "waiting")}
        await pen.parts(parts)

    return Stream(visit, tenant.id, react, beat=2.0)
