"""Managed Infra → Clusters: which of my clusters need me?"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from hub_server.domain.errors import NotFound
from hub_server.domain.reasons import Reason
from hub_server.domain.status import LABELS, Phase
from hub_server.services.views import ClusterQuery, ClusterRow, LiveEvent, Page, TenantView
from hub_server.web import live, render
from hub_server.web.live import Pen, Stream
from hub_server.web.site import Visit, see_other

# The words of the rows: what one reads there, one finds here.
WORDS = tuple(dict.fromkeys(label for phase, label in LABELS.items() if phase is not Phase.DELETED))
SORTS = {"attention": "What needs attention", "name": "Name", "status": "Status", "seen": "Last seen", "created": "Age"}
SIZES = (50, 20, 100)


async def home(visit: Visit) -> Response:
    """The first page is the list of the tenant where one was last."""
    return see_other(f"/t/{(await visit.some_tenant()).slug}/clusters")


async def of_tenant(visit: Visit) -> Response:
    """A tenant's first page is its list."""
    return see_other(f"/t/{(await visit.tenant()).slug}/clusters")


def query_of(visit: Visit) -> ClusterQuery:
    """What the address asks for; nonsense is as good as nothing."""
    word, _, reason = visit.asked("status").partition(":")
    label = word if word in WORDS else LABELS[Phase(word)] if word in set(Phase) else ""
    sort = visit.asked("sort")
    limit = visit.asked("size")
    return ClusterQuery(
        search=visit.asked("q")[:100],
        label=label,
        reason=Reason(reason) if reason in set(Reason) else None,
        sort=sort if sort.removeprefix("-") in SORTS else "attention",
        limit={str(size): size for size in SIZES}.get(limit, SIZES[0]),
        cursor=visit.asked("cursor") or None,
    )


def _address(tenant: TenantView, query: ClusterQuery, *, cursor: str | None = None, tail: str = "clusters") -> str:
    status = f"{query.label}{f':{query.reason}' if query.reason else ''}"
    asked = {
        "q": query.search,
        "status": status,
        "sort": query.sort if query.sort != "attention" else "",
        "size": str(query.limit) if query.limit != SIZES[0] else "",
        "cursor": cursor or "",
    }
    words = urlencode({name: value for name, value in asked.items() if value})
    return f"/t/{tenant.slug}/{tail}" + (f"?{words}" if words else "")


async def _context(visit: Visit, tenant: TenantView) -> dict[str, Any]:
    query = query_of(visit)
    page: Page[ClusterRow] = await visit.services.clusters.list(visit.actor, tenant.id, query)
    counts = await visit.services.clusters.counts(visit.actor, tenant.id)
    return await visit.frame(
        tenant,
        "clusters",
        query=query,
        rows=page.items,
        total=page.total,
        counts=counts,
        changes=0,
        words=WORDS,
        first=page.offset,
        sorts=SORTS,
        sizes=SIZES,
        here=_address(tenant, query, cursor=query.cursor),
        next_url=_address(tenant, query, cursor=page.next_cursor) if page.next_cursor else None,
        first_url=_address(tenant, query) if query.cursor else None,
        previous_url=None if page.previous_cursor is None else _address(tenant, query, cursor=page.previous_cursor),
        live_url=_address(tenant, query, cursor=query.cursor, tail="clusters/live"),
    )


async def show(visit: Visit) -> Response:
    """The list; for the search form the list alone."""
    tenant = await visit.tenant()
    context = await _context(visit, tenant)
    if visit.is_fragment:
        return visit.part("clusters.html", "list", context)
    return await visit.page("clusters.html", context)


async def stream(visit: Visit) -> Response:
    """Rows that change in place; rows that came or went are announced, since nothing moves under the pointer."""
    tenant = await visit.tenant()
    context = await _context(visit, tenant)
    shown = {row.id for row in context["rows"]}
    total = context["counts"].total
    clusters = visit.services.clusters

    async def counts() -> dict[str, str]:
        told = await clusters.counts(visit.actor, tenant.id)
        now = {
            **context,
            "counts": told,
            "changes": abs(told.total - total),
            "alerts_open": await visit.services.alerts.open_count(visit.actor, tenant.id),
            "now": visit.now,
        }
        return {
            "summary": render.fragment("clusters.html", "summary", now),
            "changes": render.fragment("clusters.html", "notice", now),
            "badge": render.fragment("clusters.html", "badge", now),
        }

    async def react(pen: Pen, event: LiveEvent | None) -> None:
        if event is None:
            heard = await clusters.heard(visit.actor, tenant.id, shown)
            times = {f"s-{id}": last_seen for id, (last_seen, _) in heard.items()}
            times |= {f"h-{id}": last_handshake for id, (_, last_handshake) in heard.items()}
            await pen.message(live.seen(times), event="seen")
            return
        if event.kind == "reset":
            await pen.message("", event="reload")
        elif (
            event.cluster_id is not None
            and event.cluster_id in shown
            and event.kind in ("cluster", "alert", "nodes", "list")
        ):
            try:
                row: ClusterRow | None = await clusters.row(visit.actor, event.cluster_id)
            except NotFound:
                row = None
            told = {**context, "row": row, "id": event.cluster_id, "now": visit.now}
            await pen.parts({f"r-{event.cluster_id}": render.fragment("clusters.html", "row", told)})
        if event.kind in ("cluster", "list", "alert"):
            await pen.parts(await counts())

    return Stream(visit, tenant.id, react)
