"""Every address of the API and its handler; `/v1/openapi.json` describes them from this very table.

Source: product.md section 7.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

import hub_server
from hub_server.api.call import Call, Handler, endpoint
from hub_server.domain import foreign
from hub_server.domain.errors import Invalid
from hub_server.domain.reasons import Reason
from hub_server.domain.roles import Role
from hub_server.domain.status import Phase
from hub_server.services import Services
from hub_server.services.views import ClusterQuery, Page

__all__ = ["ROUTES", "routes"]


class Entry(NamedTuple):
    """One operation."""

    method: str
    path: str
    handler: Handler
    status: int = 200


def _page(page: Page[Any]) -> dict[str, Any]:
    return {"items": page.items, "next_cursor": page.next_cursor, "total": page.total}


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise Invalid("role", f"one of {', '.join(Role)}") from None


async def _tenant(call: Call) -> str:
    return (await call.services.tenants.get(call.actor, call.path("tenant"))).id


# --- oneself ---------------------------------------------------------------------------------------------------------


async def me(call: Call) -> Any:
    """Who asks, with the CSRF token that calls by cookie must send."""
    actor = call.actor
    return {
        "kind": actor.kind,
        "id": actor.id,
        "email": actor.email,
        "name": actor.name,
        "csrf": actor.csrf,
        "hub_admin": actor.hub_admin,
        "must_change_password": actor.must_change_password,
        "tenants": await call.services.tenants.list(actor),
    }


async def reauthenticate(call: Call) -> Any:
    """Type the password again; good for five minutes."""
    await call.services.accounts.reauthenticate(call.actor, call.password("password"))


async def change_password(call: Call) -> Any:
    """Set a new password, `old` and `new`; all other sessions end."""
    await call.services.accounts.change_password(call.actor, call.password("old"), call.password("new"))


# --- the whole hub ---------------------------------------------------------------------------------------------------


async def list_accounts(call: Call) -> Any:
    """All accounts of the hub (hub administrator)."""
    return {"items": await call.services.people.list(call.actor)}


async def change_account(call: Call) -> Any:
    """Deactivate or activate an account: `active` (hub administrator)."""
    active = foreign.truth("active", call.body.raw("active"))
    return await call.services.people.set_active(call.actor, call.path("user"), active)


# --- clusters --------------------------------------------------------------------------------------------------------


async def list_clusters(call: Call) -> Any:
    """A page of the list: `search`, `phase`, `reason`, `sort`, `limit`, `cursor`."""
    phase, reason = call.asked("phase"), call.asked("reason")
    if phase and phase not in set(Phase):
        raise Invalid("phase", f"one of {', '.join(Phase)}")
    if reason and reason not in set(Reason):
        raise Invalid("reason", f"one of {', '.join(Reason)}")
    query = ClusterQuery(
        search=call.asked("search")[:100],
        phase=Phase(phase) if phase else None,
        reason=Reason(reason) if reason else None,
        sort=call.asked("sort") or "attention",
        limit=call.limit(),
        cursor=call.asked("cursor") or None,
    )
    return _page(await call.services.clusters.list(call.actor, await _tenant(call), query))


async def count_clusters(call: Call) -> Any:
    """How many clusters there are in each phase."""
    return await call.services.clusters.counts(call.actor, await _tenant(call))


async def create_cluster(call: Call) -> Any:
    """Make a row and its first invite; the token is in this answer only."""
    subnet = call.maybe_text("subnet_id")
    tenant_id = await _tenant(call)
    return await call.services.clusters.create(call.actor, tenant_id, name=call.text("name"), subnet_id=subnet)


async def get_cluster(call: Call) -> Any:
    """Everything about a cluster."""
    return await call.services.clusters.get(call.actor, call.path("cluster"))


async def get_status(call: Call) -> Any:
    """The row alone."""
    return await call.services.clusters.row(call.actor, call.path("cluster"))


async def change_cluster(call: Call) -> Any:
    """Change `name`, `keepalive`, `muted_until`, `identity_mode`."""
    muted = call.body.raw("muted_until")
    return await call.services.clusters.update(
        call.actor,
        call.path("cluster"),
        if_match=call.if_match(),
        name=call.maybe_text("name"),
        keepalive=call.body.integer("keepalive"),
        muted_until=foreign.time("muted_until", muted) if muted is not None else None,
        identity_mode=call.maybe_text("identity_mode"),
    )


async def delete_cluster(call: Call) -> Any:
    """Delete the row; `confirm_name` repeats its name."""
    name = call.text("confirm_name")
    await call.services.clusters.delete(call.actor, call.path("cluster"), confirm_name=name, if_match=call.if_match())


async def get_ladder(call: Call) -> Any:
    """The hops from invite to connected."""
    return await call.services.clusters.ladder(call.actor, call.path("cluster"))


async def get_invite(call: Call) -> Any:
    """The newest invite, without its token."""
    return {"invite": await call.services.clusters.invite(call.actor, call.path("cluster"))}


async def make_invite(call: Call) -> Any:
    """A fresh invite; an unused one before it is void."""
    return await call.services.clusters.regenerate(call.actor, call.path("cluster"))


async def revoke_invite(call: Call) -> Any:
    """Withdraw the unused invite."""
    await call.services.clusters.revoke_invite(call.actor, call.path("cluster"))


async def accept_identity(call: Call) -> Any:
    """End a block."""
    return await call.services.clusters.accept_identity(call.actor, call.path("cluster"))


async def get_nodes(call: Call) -> Any:
    """The nodes as the edge told them."""
    return await call.services.clusters.nodes(call.actor, call.path("cluster"))


async def get_events(call: Call) -> Any:
    """What happened, newest first."""
    page = await call.services.clusters.events(
        call.actor, call.path("cluster"), limit=call.limit(), cursor=call.asked("cursor") or None
    )
    return _page(page)


async def get_timeline(call: Call) -> Any:
    """The last 24 hours."""
    return await call.services.clusters.timeline(call.actor, call.path("cluster"))


# --- kubectl and RBAC ------------------------------------------------------------------------------------------------


async def run_panel(call: Call) -> Any:
    """Run what would be typed after `kubectl`."""
    return await call.services.kubectl.run_panel(call.actor, call.path("cluster"), call.text("line"))


async def list_kubeconfigs(call: Call) -> Any:
    """Own kubeconfigs; an admin sees all."""
    return {"items": await call.services.kubectl.kubeconfigs(call.actor, call.path("cluster"))}


async def issue_kubeconfig(call: Call) -> Any:
    """Make a kubeconfig; its token is in this answer only."""
    ttl, stream = call.body.number("ttl"), call.body.truth("stream")
    return await call.services.kubectl.issue_kubeconfig(call.actor, call.path("cluster"), ttl=ttl, stream=stream)


async def revoke_kubeconfig(call: Call) -> Any:
    """Dead at once."""
    await call.services.kubectl.revoke_kubeconfig(call.actor, call.path("cluster"), call.path("kubeconfig"))


async def get_rbac(call: Call) -> Any:
    """Granted, wanted, and the difference."""
    return await call.services.rbac.view(call.actor, call.path("cluster"))


async def make_patch(call: Call) -> Any:
    """The patch for a wish: `presets`, `namespaces`, `custom`."""
    custom = [one.raw() for one in call.body.items("custom")]
    return await call.services.rbac.patch(
        call.actor,
        call.path("cluster"),
        presets=call.words("presets"),
        namespaces=call.words("namespaces"),
        custom=custom,
    )


async def check_rbac(call: Call) -> Any:
    """Ask the API server for every wanted rule."""
    return {"items": await call.services.rbac.check(call.actor, call.path("cluster"))}


# --- tenants ---------------------------------------------------------------------------------------------------------


async def list_tenants(call: Call) -> Any:
    """The tenants the caller is a member of."""
    return {"items": await call.services.tenants.list(call.actor)}


async def create_tenant(call: Call) -> Any:
    """Make a tenant (hub administrator)."""
    return await call.services.tenants.create(call.actor, slug=call.text("slug"), name=call.text("name"))


async def list_subnets(call: Call) -> Any:
    """The allocations, the default first."""
    return {"items": await call.services.tenants.subnets(call.actor, await _tenant(call))}


async def add_subnet(call: Call) -> Any:
    """Add an allocation."""
    return await call.services.tenants.add_subnet(call.actor, await _tenant(call), call.text("cidr"))


async def list_members(call: Call) -> Any:
    """The members, by e-mail."""
    return {"items": await call.services.tenants.members(call.actor, await _tenant(call))}


async def add_member(call: Call) -> Any:
    """Add a person; the password of a new account is in this answer only."""
    return await call.services.tenants.add_member(
        call.actor,
        await _tenant(call),
        email=call.text("email"),
        name=call.text("name", ""),
        role=_role(call.text("role")),
    )


async def change_member(call: Call) -> Any:
    """Change role or grant."""
    role = call.maybe_text("role")
    return await call.services.tenants.update_member(
        call.actor,
        await _tenant(call),
        call.path("user"),
        role=_role(role) if role is not None else None,
        stream=call.body.truth("stream"),
    )


async def remove_member(call: Call) -> Any:
    """Remove a member."""
    await call.services.tenants.remove_member(call.actor, await _tenant(call), call.path("user"))


async def list_alerts(call: Call) -> Any:
    """Alerts, open ones first: `open`, `cluster`."""
    page = await call.services.alerts.list(
        call.actor,
        await _tenant(call),
        open_only=call.asked("open") in ("1", "true"),
        cluster_id=call.asked("cluster") or None,
        limit=call.limit(),
        cursor=call.asked("cursor") or None,
    )
    return _page(page)


async def acknowledge(call: Call) -> Any:
    """Say that somebody looks into it."""
    return await call.services.alerts.acknowledge(call.actor, call.path("alert"))


async def list_channels(call: Call) -> Any:
    """The webhooks."""
    return {"items": await call.services.channels.list(call.actor, await _tenant(call))}


async def create_channel(call: Call) -> Any:
    """Add a webhook; its secret is in this answer only."""
    return await call.services.channels.create(
        call.actor, await _tenant(call), name=call.text("name"), url=call.text("url"), kinds=call.words("kinds")
    )


async def delete_channel(call: Call) -> Any:
    """Remove it."""
    await call.services.channels.delete(call.actor, await _tenant(call), call.path("channel"))


async def test_channel(call: Call) -> Any:
    """Queue a test message."""
    return await call.services.channels.send_test(call.actor, await _tenant(call), call.path("channel"))


async def list_deliveries(call: Call) -> Any:
    """The last messages to a webhook."""
    found = await call.services.channels.deliveries(call.actor, await _tenant(call), call.path("channel"))
    return {"items": found}


async def list_tokens(call: Call) -> Any:
    """API tokens, newest first."""
    return {"items": await call.services.tokens.list(call.actor, await _tenant(call))}


async def create_token(call: Call) -> Any:
    """Make an API token; its secret is in this answer only."""
    return await call.services.tokens.create(
        call.actor,
        await _tenant(call),
        name=call.text("name"),
        role=_role(call.text("role")),
        scopes=call.words("scopes"),
        ttl=call.body.number("ttl"),
    )


async def revoke_token(call: Call) -> Any:
    """Dead at once."""
    await call.services.tokens.revoke(call.actor, await _tenant(call), call.path("token"))


async def read_audit(call: Call) -> Any:
    """The audit log, newest first: `action`, `cluster`."""
    page = await call.services.audit.list(
        call.actor,
        await _tenant(call),
        limit=call.limit(),
        cursor=call.asked("cursor") or None,
        action=call.asked("action"),
        cluster_id=call.asked("cluster") or None,
    )
    return _page(page)


_C: Final = "/v1/clusters/{cluster}"
_T: Final = "/v1/tenants/{tenant}"
ROUTES: Final = (
    Entry("GET", "/v1/me", me),
    Entry("POST", "/v1/auth/reauthenticate", reauthenticate, 204),
    Entry("POST", "/v1/auth/password", change_password, 204),
    Entry("GET", "/v1/accounts", list_accounts),
    Entry("PATCH", "/v1/accounts/{user}", change_account),
    Entry("GET", "/v1/tenants", list_tenants),
    Entry("POST", "/v1/tenants", create_tenant, 201),
    Entry("GET", f"{_T}/clusters", list_clusters),
    Entry("GET", f"{_T}/clusters/counts", count_clusters),
    Entry("POST", f"{_T}/clusters", create_cluster, 201),
    Entry("GET", _C, get_cluster),
    Entry("PATCH", _C, change_cluster),
    Entry("DELETE", _C, delete_cluster, 204),
    Entry("GET", f"{_C}/status", get_status),
    Entry("GET", f"{_C}/ladder", get_ladder),
    Entry("GET", f"{_C}/invite", get_invite),
    Entry("POST", f"{_C}/invite", make_invite, 201),
    Entry("DELETE", f"{_C}/invite", revoke_invite, 204),
    Entry("POST", f"{_C}/accept-identity", accept_identity),
    Entry("GET", f"{_C}/nodes", get_nodes),
    Entry("GET", f"{_C}/events", get_events),
    Entry("GET", f"{_C}/timeline", get_timeline),
    Entry("POST", f"{_C}/panel", run_panel),
    Entry("GET", f"{_C}/kubeconfigs", list_kubeconfigs),
    Entry("POST", f"{_C}/kubeconfigs", issue_kubeconfig, 201),
    Entry("DELETE", f"{_C}/kubeconfigs/{{kubeconfig}}", revoke_kubeconfig, 204),
    Entry("GET", f"{_C}/rbac", get_rbac),
    Entry("POST", f"{_C}/rbac/patch", make_patch),
    Entry("POST", f"{_C}/rbac/check", check_rbac),
    Entry("GET", f"{_T}/subnets", list_subnets),
    Entry("POST", f"{_T}/subnets", add_subnet, 201),
    Entry("GET", f"{_T}/members", list_members),
    Entry("POST", f"{_T}/members", add_member, 201),
    Entry("PATCH", f"{_T}/members/{{user}}", change_member),
    Entry("DELETE", f"{_T}/members/{{user}}", remove_member, 204),
    Entry("GET", f"{_T}/alerts", list_alerts),
    Entry("POST", "/v1/alerts/{alert}/acknowledge", acknowledge),
    Entry("GET", f"{_T}/channels", list_channels),
    Entry("POST", f"{_T}/channels", create_channel, 201),
    Entry("DELETE", f"{_T}/channels/{{channel}}", delete_channel, 204),
    Entry("POST", f"{_T}/channels/{{channel}}/test", test_channel, 202),
    Entry("GET", f"{_T}/channels/{{channel}}/deliveries", list_deliveries),
    Entry("GET", f"{_T}/tokens", list_tokens),
    Entry("POST", f"{_T}/tokens", create_token, 201),
    Entry("DELETE", f"{_T}/tokens/{{token}}", revoke_token, 204),
    Entry("GET", f"{_T}/audit", read_audit),
)


def document() -> dict[str, Any]:
    """OpenAPI 3.1: addresses, parameters of the path, and what each does."""
    paths: dict[str, dict[str, Any]] = {}
    refused = {"description": "refused", "content": {"application/problem+json": {"schema": {"type": "object"}}}}
    for entry in ROUTES:
        text = (entry.handler.__doc__ or "").strip()
        body = {"200": {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}}
        done = body["200"] if entry.status != 204 else {"description": text}
        operation: dict[str, Any] = {
            "operationId": entry.handler.__name__,
            "summary": text,
            "responses": {str(entry.status): done, "default": refused},
        }
        if names := re.findall(r"{(\w+)}", entry.path):
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ]
        if entry.method in ("POST", "PATCH"):
            operation["requestBody"] = {"content": {"application/json": {"schema": {"type": "object"}}}}
        paths.setdefault(entry.path, {})[entry.method.lower()] = operation
    bearer = {"type": "http", "scheme": "bearer", "description": "an API token, dlp_..."}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Daalu hub", "version": hub_server.__version__},
        "paths": paths,
        "components": {"securitySchemes": {"token": bearer}},
        "security": [{"token": []}],
    }


def routes(services: Services) -> list[BaseRoute]:
    """The API over these services."""
    described = document()

    async def openapi(_: Request) -> Response:
        return JSONResponse(described)

    return [
        Route("/v1/openapi.json", openapi, methods=["GET"]),
        *(
            Route(entry.path, endpoint(services, entry.handler, entry.status), methods=[entry.method])
            for entry in ROUTES
        ),
    ]
