"""Tenants, their members and their subnets."""

from __future__ import annotations

from hub_server.domain.roles import Role
from hub_server.services.views import Actor, MemberView, NewMember, SubnetView, TenantView


class Tenants:
    """Tenants, their members and their subnets."""

    async def list(self, actor: Actor) -> tuple[TenantView, ...]:
        """The tenants the actor is a member of, by name."""
        raise NotImplementedError

    async def get(self, actor: Actor, tenant: str) -> TenantView:
        """One tenant by id or slug. Raises NotFound."""
        raise NotImplementedError

    async def create(self, actor: Actor, *, slug: str, name: str) -> TenantView:
        """Make a tenant (hub administrator); the actor becomes its admin."""
        raise NotImplementedError

    async def subnets(self, actor: Actor, tenant_id: str) -> tuple[SubnetView, ...]:
        """The allocations of a tenant, the default first."""
        raise NotImplementedError

    async def add_subnet(self, actor: Actor, tenant_id: str, cidr: str) -> SubnetView:
        """Add an allocation. Raises Invalid(field cidr)."""
        raise NotImplementedError

    async def members(self, actor: Actor, tenant_id: str) -> tuple[MemberView, ...]:
        """The members, by e-mail."""
        raise NotImplementedError

    async def add_member(self, actor: Actor, tenant_id: str, *, email: str, name: str, role: Role) -> NewMember:
        """Add a person; makes the account if there is none."""
        raise NotImplementedError

    async def update_member(
        self, actor: Actor, tenant_id: str, user_id: str, *, role: Role | None = None, stream: bool | None = None
    ) -> MemberView:
        """Change role or grant."""
        raise NotImplementedError

    async def remove_member(self, actor: Actor, tenant_id: str, user_id: str) -> None:
        """Remove; sessions lose the tenant with the next request."""
        raise NotImplementedError

    async def set_active(self, actor: Actor, user_id: str, active: bool) -> None:
        """Deactivate or activate an account (hub administrator)."""
        raise NotImplementedError
