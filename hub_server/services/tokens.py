"""API tokens of a tenant, for programs."""

from __future__ import annotations

from collections.abc import Sequence

from hub_server.domain.roles import Role
from hub_server.services.views import Actor, NewToken, TokenView


class Tokens:
    """API tokens of a tenant, for programs."""

    async def list(self, actor: Actor, tenant_id: str) -> tuple[TokenView, ...]:
        """All tokens, newest first."""
        raise NotImplementedError

    async def create(
        self, actor: Actor, tenant_id: str, *, name: str, role: Role, scopes: Sequence[str], ttl: float | None = None
    ) -> NewToken:
        """Make a token; shown once. Scopes are `domain.roles.Right` values. Needs re-authentication."""
        raise NotImplementedError

    async def revoke(self, actor: Actor, tenant_id: str, token_id: str) -> None:
        """Dead at once."""
        raise NotImplementedError
