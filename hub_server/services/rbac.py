"""The RBAC page: presets, the patch to apply, and the check through the tunnel. Never writes to a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hub_server.services.views import Actor, RbacPatch, RbacView, RuleCheck


class Rbac:
    """The RBAC page: presets, the patch to apply, and the check through the tunnel. Never writes to a cluster."""

    async def view(self, actor: Actor, cluster_id: str, *, missing: Mapping[str, str] | None = None) -> RbacView:
        """The page, with the last check. `missing` (verb, group, resource, namespace) preselects a custom rule."""
        raise NotImplementedError

    async def patch(
        self,
        actor: Actor,
        cluster_id: str,
        *,
        presets: Sequence[str],
        namespaces: Sequence[str] = (),
        custom: Sequence[Mapping[str, Any]] = (),
    ) -> RbacPatch:
        """The patch for a wish; remembered as wanted. Custom rows: {apiGroups, resources, verbs, namespace?}."""
        raise NotImplementedError

    async def check(self, actor: Actor, cluster_id: str) -> tuple[RuleCheck, ...]:
        """Ask the API server (access reviews through the tunnel) for every wanted rule. Raises EdgeUnreachable."""
        raise NotImplementedError
