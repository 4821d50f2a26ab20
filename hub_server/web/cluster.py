"""One cluster: is it well, and if not, why? Its tabs, its kubectl panel, its kubeconfigs and its danger zone."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from hub_server.domain.errors import (
    Conflict,
    EdgeUnreachable,
    Forbidden,
    HubError,
    Invalid,
    NotFound,
    TooMany,
    Unauthenticated,
)
from hub_server.domain.foreign import digits
from hub_server.domain.roles import Right
from hub_server.services.views import Actor, ClusterDetail, LiveEvent, PanelAnswer, TenantView, Timeline
from hub_server.web import charts, live, render
from hub_server.web.live import Pen, Stream
from hub_server.web.site import Visit, see_other

SUGGESTIONS = (
    "get nodes",
    "get nodes -o wide",
    "get pods -A",
    "get deployments -A",
    "get services -A",
    "get events -A",
    "version",
    "api-resources",
    "auth can-i --list",
)
OFTEN = SUGGESTIONS[:6]
LIFETIMES = {3600: "1 hour", 28800: "8 hours", 86400: "1 day", 604800: "7 days"}
MUTES = {0: "not muted", 3600: "1 hour", 28800: "8 hours", 86400: "1 day", 604800: "7 days"}


async def context_of(visit: Visit, tab: str, **more: Any) -> tuple[TenantView, ClusterDetail, dict[str, Any]]:
    """What the head of the page shows on every tab."""
    detail = await visit.services.clusters.get(visit.actor, visit.cluster_id)
    tenant = await visit.services.tenants.get(visit.actor, detail.row.tenant_id)
    context = await visit.frame(
        tenant,
        "clusters",
        tab=tab,
        row=detail.row,
        detail=detail,
        has_joined=detail.connected_at is not None,
        is_told=_is_told(detail),
        may={right.value: visit.actor.may(tenant.id, right) for right in Right},
        live_url=f"/clusters/{detail.row.id}/live?tab={tab}",
        in_settings=False,
        **more,
    )
    return tenant, detail, context


def _is_told(detail: ClusterDetail) -> bool:
    """Whether what the edge tells of its cluster is true now: it is connected, and sees its API server."""
    return detail.row.phase == "connected" and detail.api_state == "ok"


# -- overview --------------------------------------------------------------------------------------------------------


def _charts(timeline: Timeline) -> dict[str, Any]:
    round_trips = [bar.rtt * 1000 if bar.rtt is not None else None for bar in timeline.bars]
    received = [bar.rx * 1.0 if bar.phase is not None else None for bar in timeline.bars]
    sent = [bar.tx * 1.0 if bar.phase is not None else None for bar in timeline.bars]
    rtt_top, traffic_top = charts.ceiling(round_trips, 10.0), charts.ceiling([*received, *sent], 1000.0)
    return {
        "timeline": timeline,
        "rtt_top": rtt_top,
        "traffic_top": traffic_top,
        "rtt_line": charts.line(round_trips, rtt_top),
        "rx_line": charts.line(received, traffic_top),
        "tx_line": charts.line(sent, traffic_top),
    }


async def overview(visit: Visit) -> Response:
    """The last day and what the hub knows; the wizard instead, until the cluster has joined."""
    _, detail, context = await context_of(visit, "overview")
    if detail.connected_at is None and detail.row.phase in ("invited", "redeemed"):
        return see_other(f"/clusters/{detail.row.id}/join")
    context |= _charts(await visit.services.clusters.timeline(visit.actor, visit.cluster_id))
    return await visit.page("cluster_overview.html", context)


async def nodes(visit: Visit) -> Response:
    """The nodes as the edge tells them."""
    _, _, context = await context_of(visit, "nodes")
    context["table"] = await visit.services.clusters.nodes(visit.actor, visit.cluster_id)
    return await visit.page("cluster_nodes.html", context)


async def events(visit: Visit) -> Response:
    """What happened, newest first."""
    _, _, context = await context_of(visit, "events")
    context["page"] = await visit.services.clusters.events(
        visit.actor, visit.cluster_id, cursor=visit.asked("cursor") or None
    )
    context["is_first"] = not visit.asked("cursor")
    return await visit.page("cluster_events.html", context)


async def stream(visit: Visit) -> Response:
    """The head of the page and the open tab, kept true."""
    tab = visit.asked("tab")
    tenant, detail, context = await context_of(visit, tab)
    clusters, cluster_id = visit.services.clusters, detail.row.id

    async def head() -> dict[str, str]:
        told = await clusters.get(visit.actor, cluster_id)
        now = {**context, "row": told.row, "detail": told, "is_told": _is_told(told), "now": visit.now}
        now["alerts_open"] = await visit.services.alerts.open_count(visit.actor, tenant.id)
        parts = {
            "head": render.fragment("cluster.html", "head", now),
            "badge": render.fragment("cluster.html", "badge", now),
            "update": render.fragment("cluster.html", "update", now),
        }
        if tab == "overview":
            now |= _charts(await clusters.timeline(visit.actor, cluster_id))
            parts["facts"] = render.fragment("cluster_overview.html", "facts", now)
            parts["day"] = render.fragment("cluster_overview.html", "day", now)
        if tab == "nodes":  # how old they are is seen by the state of the tunnel
            now["table"] = await clusters.nodes(visit.actor, cluster_id)
            parts["nodes"] = render.fragment("cluster_nodes.html", "nodes", now)
        return parts

    shown = {"update": render.fragment("cluster.html", "update", context)}

    async def react(pen: Pen, event: LiveEvent | None) -> None:
        if event is None:
            pen.remember(shown)  # so that what the reader folded open stays open
            row = await clusters.row(visit.actor, cluster_id)
            times = {f"s-{row.id}": row.last_seen, f"h-{row.id}": row.last_handshake}
            await pen.message(live.seen(times), event="seen")
            return
        if event.kind == "reset":
            await pen.message("", event="reload")
            return
        if event.cluster_id != cluster_id:
            if event.kind == "alert":
                count = await visit.services.alerts.open_count(visit.actor, tenant.id)
                await pen.parts({"badge": render.fragment("cluster.html", "badge", {"alerts_open": count})})
            return
        try:
            await pen.parts(await head())
        except NotFound:
            await pen.message("", event="reload")
            raise
        if tab == "events":
            told = {
                **context,
                "page": await clusters.events(visit.actor, cluster_id),
                "is_first": True,
                "now": visit.now,
            }
            await pen.parts({"events": render.fragment("cluster_events.html", "events", told)})

    return Stream(visit, tenant.id, react)


# -- kubectl ---------------------------------------------------------------------------------------------------------


async def kubectl(visit: Visit) -> Response:
    """The panel, with nothing run yet."""
    _, _, context = await context_of(visit, "kubectl")
    return await visit.page(
        "cluster_kubectl.html",
        context | await _suggestions(visit) | {"line": visit.asked("line"), "answer": None, "refusal": None},
    )


async def _suggestions(visit: Visit) -> dict[str, Any]:
    table = await visit.services.clusters.nodes(visit.actor, visit.cluster_id)
    return {"often": OFTEN, "suggestions": (*SUGGESTIONS, *(f"describe node {node.name}" for node in table.nodes[:20]))}


async def run_kubectl(visit: Visit) -> Response:
    """Run a line; a refusal stands where the output would be."""
    line = visit.field("line").removeprefix("kubectl ").strip()
    refusal: HubError | None = None
    answer: PanelAnswer | None = None
    try:
        answer = await visit.services.kubectl.run_panel(visit.actor, visit.cluster_id, line)
    except (Forbidden, EdgeUnreachable, TooMany, Invalid, Conflict) as error:
        refusal = error
    _, _, context = await context_of(visit, "kubectl")
    context |= {"line": line, "answer": answer, "refusal": refusal}
    status = 200 if refusal is None else refusal.status
    if visit.is_fragment:
        return visit.part("cluster_kubectl.html", "out", context, status)
    return await visit.page("cluster_kubectl.html", context | await _suggestions(visit), status)


async def kubeconfigs(visit: Visit) -> Response:
    """Those that were issued, and the form for one more."""
    return await _kubeconfigs(visit, error="", made=bool(visit.asked("made")))


async def _kubeconfigs(visit: Visit, *, error: str, made: bool = False, status: int = 200) -> Response:
    _, _, context = await context_of(visit, "kubeconfig")
    context["issued"] = (
        await visit.services.kubectl.kubeconfigs(visit.actor, visit.cluster_id) if context["may"]["kubeconfig"] else ()
    )
    context |= {"lifetimes": LIFETIMES, "lifetime": visit.field("ttl") or "28800", "error": error, "made": made}
    return await visit.page("cluster_kubeconfigs.html", context, status)


async def issue_kubeconfig(visit: Visit) -> Response:
    """Make one and let the browser save it; the hub keeps a hash of its token only."""
    ttl = visit.field("ttl")
    try:
        actor = await _retyped(visit)
        lifetime = {str(known): known * 1.0 for known in LIFETIMES}.get(ttl)
        issued = await visit.services.kubectl.issue_kubeconfig(actor, visit.cluster_id, ttl=lifetime)
    except (Unauthenticated, TooMany, Invalid, Conflict) as refusal:
        return await _kubeconfigs(visit, error=refusal.detail, status=422)
    safe = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_.") else "-" for sign in issued.filename)
    headers = {**render.HEADERS, "Content-Disposition": f'attachment; filename="{safe}"'}
    return Response(issued.yaml, media_type="application/yaml", headers=headers)


async def revoke_kubeconfig(visit: Visit) -> Response:
    """Dead at once."""
    kubeconfig_id = str(visit.request.path_params["kubeconfig_id"])
    await visit.services.kubectl.revoke_kubeconfig(visit.actor, visit.cluster_id, kubeconfig_id)
    return see_other(f"/clusters/{visit.cluster_id}/kubeconfigs")


async def _retyped(visit: Visit) -> Actor:
    """The actor with the password typed again; what needs it is the service's matter."""
    password = visit.form.get("password", "")
    if isinstance(password, str) and password:
        return await visit.services.accounts.reauthenticate(visit.actor, password)
    return visit.actor


# -- settings --------------------------------------------------------------------------------------------------------


async def settings(visit: Visit) -> Response:
    """Name, keepalive, mute; what deletion takes along."""
    return await _settings(visit, values={}, errors={})


async def _settings(visit: Visit, *, values: dict[str, str], errors: dict[str, str], status: int = 200) -> Response:
    _, detail, context = await context_of(visit, "settings")
    shown = {"name": detail.row.name, "keepalive": str(detail.keepalive), "mute": "", "confirm_name": ""}
    context |= {"values": shown | values, "errors": errors, "mutes": MUTES, "saved": visit.asked("saved")}
    return await visit.page("cluster_settings.html", context, status)


async def save_settings(visit: Visit) -> Response:
    """Keep what was changed."""
    values = {name: visit.field(name) for name in ("name", "keepalive", "mute")}
    length = {str(known): known for known in MUTES}.get(values["mute"])
    muted_until = None if length is None else visit.now + length if length else 0.0
    try:
        await visit.services.clusters.update(
            visit.actor,
            visit.cluster_id,
            name=values["name"],
            keepalive=digits("keepalive", values["keepalive"], 1, 65535),
            muted_until=muted_until,
        )
    except Invalid as refusal:
        return await _settings(visit, values=values, errors={refusal.field: refusal.detail}, status=422)
    return see_other(f"/clusters/{visit.cluster_id}/settings?saved=1")


async def delete(visit: Visit) -> Response:
    """Delete the row: the name and the password are typed first."""
    row = await visit.services.clusters.row(visit.actor, visit.cluster_id)
    typed = visit.field("confirm_name")
    try:
        actor = await _retyped(visit)
        await visit.services.clusters.delete(actor, visit.cluster_id, confirm_name=typed)
    except Invalid as refusal:
        return await _settings(
            visit, values={"confirm_name": typed}, errors={"confirm_name": refusal.detail}, status=422
        )
    except (Unauthenticated, TooMany, Forbidden) as refusal:
        if isinstance(refusal, Forbidden):
            raise
        return await _settings(visit, values={"confirm_name": typed}, errors={"password": refusal.detail}, status=422)
    tenant = await visit.services.tenants.get(visit.actor, row.tenant_id)
    return see_other(f"/t/{tenant.slug}/clusters")


async def accept_identity(visit: Visit) -> Response:
    """The other cluster, or the other place, is the right one."""
    try:
        actor = await _retyped(visit)
        await visit.services.clusters.accept_identity(actor, visit.cluster_id)
    except (Unauthenticated, TooMany) as refusal:
        return await _settings(visit, values={}, errors={"accept": refusal.detail}, status=422)
    return see_other(f"/clusters/{visit.cluster_id}")
