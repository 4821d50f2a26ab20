"""Settings → Clusters → [cluster] → RBAC: what the edge may do, what you want, and the patch between them.

The hub never applies it: the page prints what to run, and *Check* asks the API server through the tunnel.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from hub_server.domain.errors import EdgeUnreachable, Invalid
from hub_server.domain.roles import Right
from hub_server.services.views import ClusterQuery, RbacPatch, RuleCheck
from hub_server.web.cluster import context_of
from hub_server.web.site import Visit

MISSING = ("verb", "group", "resource", "namespace")
CUSTOM = ("groups", "resources", "verbs", "namespace")


def words(text: str) -> list[str]:
    """Names between commas or spaces."""
    return text.replace(",", " ").split()


async def settings(visit: Visit) -> Response:
    """Settings → Clusters: one line per cluster."""
    tenant = await visit.tenant()
    query = ClusterQuery(search=visit.asked("q")[:100], sort="name", limit=100, cursor=visit.asked("cursor") or None)
    page = await visit.services.clusters.list(visit.actor, tenant.id, query)
    context = await visit.frame(
        tenant,
        "settings",
        page_of="clusters",
        may_manage=visit.actor.may(tenant.id, Right.MANAGE),
        rows=page.items,
        search=query.search,
        first=page.offset,
        total=page.total,
        previous_url=None if page.previous_cursor is None else _list_address(query.search, page.previous_cursor),
        next_url=_list_address(query.search, page.next_cursor) if page.next_cursor else None,
    )
    return await visit.page("settings.html", context)


def _list_address(search: str, cursor: str) -> str:
    return "?" + urlencode({name: value for name, value in (("q", search), ("cursor", cursor)) if value})


async def show(visit: Visit) -> Response:
    """The page; a refusal's link has the missing rule in its query, which stands as a custom row."""
    missing = {name: visit.asked(name) for name in MISSING if name in visit.request.query_params}
    return await _page(visit, missing=missing or None)


async def _page(
    visit: Visit,
    *,
    missing: dict[str, str] | None = None,
    patch: RbacPatch | None = None,
    checks: tuple[RuleCheck, ...] | None = None,
    error: str = "",
    wish: dict[str, Any] | None = None,
    status: int = 200,
) -> Response:
    _, detail, context = await context_of(visit, "rbac")
    view = (
        await visit.services.rbac.view(visit.actor, visit.cluster_id, missing=missing)
        if context["may"]["manage"]
        else None
    )
    shown = wish or (
        {
            "presets": list(view.wanted_presets),
            "namespaces": list(view.wanted_namespaces),
            "custom": [
                {
                    "groups": ", ".join(rule.get("apiGroups") or ()) or "",
                    "resources": ", ".join(rule.get("resources") or ()),
                    "verbs": ", ".join(rule.get("verbs") or ()),
                    "namespace": rule.get("namespace") or "",
                }
                for rule in view.custom
            ],
        }
        if view
        else {}
    )
    context |= {
        "view": view,
        "wish": shown,
        "missing": missing,
        "patch": patch,
        "checks": checks,
        "error": error,
        "in_settings": visit.request.url.path.startswith("/t/"),
        "action": f"/clusters/{detail.row.id}/rbac",
    }
    if context["in_settings"]:
        context["section"] = "settings"
    return await visit.page("cluster_rbac.html", context, status)


async def make(visit: Visit) -> Response:
    """The patch for a wish."""
    columns = [visit.fields(f"custom_{name}") for name in CUSTOM]
    rows = [dict(zip(CUSTOM, row, strict=True)) for row in zip(*columns, strict=False)]
    rows = [row for row in rows if row["resources"] or row["verbs"]]
    wish: dict[str, Any] = {
        "presets": visit.fields("preset"),
        "namespaces": words(visit.field("namespaces")),
        "custom": rows,
    }
    custom: list[dict[str, Any]] = []
    for row in rows:
        rule: dict[str, Any] = {
            "apiGroups": ["" if name in ('""', "core") else name for name in words(row["groups"])] or [""],
            "resources": words(row["resources"]),
            "verbs": words(row["verbs"]),
        }
        custom.append(rule | ({"namespace": row["namespace"]} if row["namespace"] else {}))
    try:
        patch = await visit.services.rbac.patch(
            visit.actor, visit.cluster_id, presets=wish["presets"], namespaces=wish["namespaces"], custom=custom
        )
    except Invalid as refusal:
        return await _page(visit, wish=wish, error=refusal.detail, status=422)
    return await _page(visit, wish=wish, patch=patch)


async def check(visit: Visit) -> Response:
    """Ask the API server for every wanted rule."""
    try:
        checks = await visit.services.rbac.check(visit.actor, visit.cluster_id)
    except EdgeUnreachable as refusal:
        return await _page(visit, error=refusal.detail, status=refusal.status)
    return await _page(visit, checks=checks)
