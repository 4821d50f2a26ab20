"""Clusters: the list, the page, and every act on a row."""

from __future__ import annotations

from hub_server.services.views import (
    Actor,
    ClusterCounts,
    ClusterDetail,
    ClusterQuery,
    ClusterRow,
    EventView,
    InviteCreated,
    InviteView,
    Ladder,
    NodeTable,
    Page,
    Timeline,
)


class Clusters:
    """Clusters: the list, the page, and every act on a row."""

    async def list(self, actor: Actor, tenant_id: str, query: ClusterQuery) -> Page[ClusterRow]:
        """A page of the list."""
        raise NotImplementedError

    async def counts(self, actor: Actor, tenant_id: str) -> ClusterCounts:
        """The line above the list."""
        raise NotImplementedError

    async def row(self, actor: Actor, cluster_id: str) -> ClusterRow:
        """One row, for a live update."""
        raise NotImplementedError

    async def get(self, actor: Actor, cluster_id: str) -> ClusterDetail:
        """The cluster's page."""
        raise NotImplementedError

    async def create(self, actor: Actor, tenant_id: str, *, name: str, subnet_id: str | None = None) -> InviteCreated:
        """Make a row and its first invite. Raises Invalid(field name|subnet)."""
        raise NotImplementedError

    async def update(
        self,
        actor: Actor,
        cluster_id: str,
        *,
        if_match: int | None = None,
        name: str | None = None,
        keepalive: int | None = None,
        muted_until: float | None = None,
        identity_mode: str | None = None,
    ) -> ClusterRow:
        """Change settings; what is None stays. `muted_until=0` unmutes. Raises Stale, Invalid."""
        raise NotImplementedError

    async def delete(self, actor: Actor, cluster_id: str, *, confirm_name: str, if_match: int | None = None) -> None:
        """Delete the row: peer, lease, invites, kubeconfigs, streams. Needs re-authentication and the typed name."""
        raise NotImplementedError

    async def accept_identity(self, actor: Actor, cluster_id: str) -> ClusterRow:
        """End a block: the new cluster uid (or the place) is the right one. Needs re-authentication."""
        raise NotImplementedError

    async def ladder(self, actor: Actor, cluster_id: str) -> Ladder:
        """The hops from invite to connected."""
        raise NotImplementedError

    async def nodes(self, actor: Actor, cluster_id: str) -> NodeTable:
        """The nodes as the edge told them."""
        raise NotImplementedError

    async def events(
        self, actor: Actor, cluster_id: str, *, limit: int = 50, cursor: str | None = None
    ) -> Page[EventView]:
        """The events of a cluster, newest first."""
        raise NotImplementedError

    async def timeline(self, actor: Actor, cluster_id: str) -> Timeline:
        """The last 24 hours."""
        raise NotImplementedError

    async def invite(self, actor: Actor, cluster_id: str) -> InviteView | None:
        """The newest invite of a row, without its token."""
        raise NotImplementedError

    async def regenerate(self, actor: Actor, cluster_id: str) -> InviteCreated:
        """A fresh invite; the unused predecessor is revoked at once."""
        raise NotImplementedError

    async def revoke_invite(self, actor: Actor, cluster_id: str) -> None:
        """Withdraw the unused invite."""
        raise NotImplementedError
