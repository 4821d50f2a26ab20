"""What the hub can do, for pages and API alike: an object per noun, async methods, refusals from `domain.errors`.

A handler gets `Services`, an `Actor` (the middleware of `auth` put it into the request: `request.state.actor`, None
when nobody is signed in) and shows what a method gave it. Every rule, right and audit entry is in here or in `domain`,
none in a handler. The pages are `hub_server.web.routes(services)`, a list of Starlette routes that `app` mounts at `/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hub_server.grounds import Grounds
from hub_server.services.accounts import Accounts
from hub_server.services.alerts import Alerts
from hub_server.services.auditlog import AuditLog
from hub_server.services.channels import Channels
from hub_server.services.clusters import Clusters
from hub_server.services.core import Core
from hub_server.services.idempotence import Idempotence
from hub_server.services.kubectl import Kubectl
from hub_server.services.live import Live
from hub_server.services.people import People
from hub_server.services.presence import Presence
from hub_server.services.rbac import Rbac
from hub_server.services.tenants import Tenants
from hub_server.services.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a handler may call."""

    accounts: Accounts
    people: People
    tenants: Tenants
    clusters: Clusters
    alerts: Alerts
    rbac: Rbac
    kubectl: Kubectl
    channels: Channels
    tokens: Tokens
    audit: AuditLog
    idempotence: Idempotence
    live: Live
    grounds: Grounds
    now: Callable[[], float]  # the hub's clock, Unix seconds
    public_url: str  # of this hub, without a slash at the end


def build(core: Core, presence: Presence) -> Services:
    """Every service on one core."""
    kubectl = Kubectl(core, presence)
    return Services(
        accounts=Accounts(core),
        people=People(core),
        tenants=Tenants(core),
        clusters=Clusters(core, presence),
        alerts=Alerts(core, presence),
        rbac=Rbac(core, presence, kubectl),
        kubectl=kubectl,
        channels=Channels(core),
        tokens=Tokens(core),
        audit=AuditLog(core),
        idempotence=Idempotence(core),
        live=core.live,
        grounds=core.grounds,
        now=core.now,
        public_url=core.settings.public_url,
    )
