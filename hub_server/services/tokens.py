"""API tokens of a tenant, for programs."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from hub_server import audit
from hub_server.domain import foreign
from hub_server.domain.errors import Conflict, Forbidden, Invalid, NotFound
from hub_server.domain.roles import Right, Role, allows
from hub_server.services import authority
from hub_server.services.accounts import TOKEN_PREFIX
from hub_server.services.core import Core
from hub_server.services.views import Actor, NewToken, TokenView
from hub_server.store import schema

LONGEST: Final = 10 * 365 * 86400.0


class Tokens:
    """API tokens of a tenant, for programs."""

    def __init__(self, core: Core) -> None:
        """Stand on the core."""
        self._core = core

    async def list(self, actor: Actor, tenant_id: str) -> tuple[TokenView, ...]:
        """All tokens, newest first."""
        await self._core.permit(actor, tenant_id, Right.MANAGE, "tokens.list")
        rows = await self._core.database.read(_tokens, tenant_id)
        return tuple(map(_view, rows))

    async def create(
        self, actor: Actor, tenant_id: str, *, name: str, role: Role, scopes: Sequence[str], ttl: float | None = None
    ) -> NewToken:
        """Make a token; shown once. Scopes are `domain.roles.Right` values. Needs re-authentication.

        Raises:
            Invalid: a field is wrong.
            Forbidden: a scope that the maker does not have.
            Conflict: too many tokens made one another.
        """
        core = self._core
        await core.permit(actor, tenant_id, Right.MANAGE, "token.create", reauth=True)
        name = foreign.text("name", name.strip(), 100, least=1)
        unknown = [scope for scope in scopes if scope not in set(Right) or not allows(role, Right(scope))]
        if not scopes or unknown:
            problem = f"the role {role.value} has no {', '.join(unknown)}" if unknown else "choose at least one scope"
            raise Invalid("scopes", problem)
        if wider := [scope for scope in scopes if not actor.may(tenant_id, Right(scope))]:
            raise Forbidden(f"a token never may more than who makes it: you have no {', '.join(wider)}")
        if ttl is not None:
            foreign.number("ttl", ttl, 1, LONGEST)
        now, secret = core.now(), TOKEN_PREFIX + secrets.token_urlsafe(32)
        values = {
            "id": core.id("tk"),
            "tenant_id": tenant_id,
            "hash": hashlib.sha256(secret.encode()).digest(),
            "name": name,
            "role": role.value,
            "scopes": sorted(set(scopes)),
            "created_by": actor.id,
            "created_at": now,
            "expires_at": None if ttl is None else now + ttl,
        }

        def work(connection: Connection) -> Any:
            table = schema.api_tokens
            connection.execute(insert(table).values(**values))
            made = connection.execute(select(table).where(table.c.id == values["id"])).one()
            if authority.of_token(connection, made, now) is None:
                raise Conflict("this token was made by a token that was made by a token ...: sign in to make another")
            detail = {"role": role.value, "scopes": values["scopes"]}
            audit.append(connection, core.entry(actor, tenant_id, "token.create", target=name, detail=detail))
            return made

        return NewToken(_view(await core.database.write(work)), secret)

    async def revoke(self, actor: Actor, tenant_id: str, token_id: str) -> None:
        """Dead at once."""
        core = self._core
        await core.permit(actor, tenant_id, Right.MANAGE, "token.revoke")

        def work(connection: Connection) -> None:
            table = schema.api_tokens
            live = (table.c.id == token_id) & (table.c.tenant_id == tenant_id) & table.c.revoked_at.is_(None)
            if not connection.execute(update(table).where(live).values(revoked_at=core.now())).rowcount:
                raise NotFound()
            audit.append(connection, core.entry(actor, tenant_id, "token.revoke", target=token_id))

        await core.database.write(work)


def _tokens(connection: Connection, tenant_id: str) -> list[Any]:
    table = schema.api_tokens
    query = select(table).where(table.c.tenant_id == tenant_id).order_by(table.c.created_at.desc())
    return list(connection.execute(query).all())


def _view(row: Any) -> TokenView:
    return TokenView(
        id=row.id,
        name=row.name,
        scopes=tuple(row.scopes),
        role=Role(row.role),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
