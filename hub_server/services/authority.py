"""What somebody may do in a tenant at this moment, read from the database at each use and kept nowhere.

A person may what the role of their membership allows while the account is active. A program's token may what its role
and scopes allow, and never more than who made it may now: a person, or another token for which the same holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from hub_server.domain.roles import RIGHTS, Right, Role, allows
from hub_server.store import schema

__all__ = ["CHAIN", "Standing", "of_person", "of_token"]

CHAIN: Final = 4  # tokens that may have been made by one another


@dataclass(frozen=True, slots=True)
class Standing:
    """Role and rights in one tenant, now."""

    role: Role
    rights: frozenset[Right]

    @property
    def grants(self) -> frozenset[str]:
        """What is allowed beside the table of roles."""
        return frozenset({Right.STREAM.value}) if Right.STREAM in self.rights else frozenset()


def of_person(connection: Connection, user_id: str, tenant_id: str) -> Standing | None:
    """What a person may in a tenant; None for whoever is no active member."""
    users, members = schema.users, schema.memberships
    row = connection.execute(
        select(members.c.role, members.c.stream)
        .join(users, users.c.id == members.c.user_id)
        .where(members.c.user_id == user_id, members.c.tenant_id == tenant_id, users.c.active)
    ).one_or_none()
    if row is None:
        return None
    role, grants = Role(row.role), frozenset({Right.STREAM.value} if row.stream else ())
    return Standing(role, frozenset(right for right in Right if allows(role, right, grants)))


def of_token(connection: Connection, token: Any, now: float) -> Standing | None:
    """What a token (its row) may in its tenant; None for a dead one, whose maker's authority is gone included."""
    table = schema.api_tokens
    role, rights = Role(token.role), frozenset(Right)
    for _ in range(CHAIN):
        if token.revoked_at is not None or (token.expires_at is not None and now >= token.expires_at):
            return None
        rights &= RIGHTS[Role(token.role)] & frozenset(map(Right, token.scopes))
        maker = of_person(connection, token.created_by, token.tenant_id)
        if maker is not None:
            # Shown is the weaker of the two roles.
            shown = role if RIGHTS[role] <= maker.rights else maker.role
            return Standing(shown, rights & maker.rights) if rights & maker.rights else None
        of_maker = (table.c.id == token.created_by) & (table.c.tenant_id == token.tenant_id)
        token = connection.execute(select(table).where(of_maker)).one_or_none()
        if token is None:
            return None
    return None
