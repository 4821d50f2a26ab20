"""Accounts of the whole hub: who has one, and who may use it. For administrators of the hub, and its command line."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from hub_server import audit
from hub_server.domain.errors import Conflict, NotFound
from hub_server.domain.roles import Role
from hub_server.services.core import Core
from hub_server.services.views import AccountView, Actor
from hub_server.store import schema
from hub_server.store.database import Database

__all__ = ["People", "set_account_active"]


class People:
    """Accounts of the whole hub."""

    def __init__(self, core: Core) -> None:
        """Stand on the core."""
        self._core = core

    async def list(self, actor: Actor) -> tuple[AccountView, ...]:
        """All accounts, by e-mail address."""
        await self._core.permit_hub(actor, "accounts.list")
        return await self._core.database.read(_accounts)

    async def set_active(self, actor: Actor, user_id: str, active: bool) -> AccountView:
        """Deactivate or activate an account. Needs re-authentication.

        Raises:
            NotFound: there is none.
            Conflict: it is one's own, or nobody would be left to administer the hub or a tenant.
        """
        core = self._core
        await core.permit_hub(actor, "account.activate" if active else "account.deactivate", reauth=True)
        if user_id == actor.id and not active:
            raise Conflict("you cannot deactivate yourself")

        def work(connection: Connection) -> AccountView:
            users = schema.users
            person = connection.execute(select(users).where(users.c.id == user_id)).one_or_none()
            if person is None:
                raise NotFound()
            entry = core.entry(actor, audit.HUB_CHAIN, _action(active), target=person.email)
            _set_active(connection, person, active, entry)
            return _accounts(connection, user_id)[0]

        return await core.database.write(work)


def set_account_active(database: Database, email: str, active: bool, *, now: float) -> None:
    """The same for the command line, by e-mail address.

    Raises:
        ValueError: there is no such account, or nobody would be left to administer the hub or a tenant.
    """

    def work(connection: Connection) -> None:
        users = schema.users
        found = select(users).where(users.c.email_key == email.strip().casefold())
        person = connection.execute(found).one_or_none()
        if person is None:
            raise ValueError(f"there is no account {email!r}")
        entry = audit.Entry(audit.HUB_CHAIN, now, "command line", _action(active), target=person.email)
        _set_active(connection, person, active, entry)

    try:
        database.write_here(work)
    except Conflict as refusal:
        raise ValueError(f"{refusal.detail} (daalu-hub create-admin EMAIL makes one)") from None


# --- units of work ---------------------------------------------------------------------------------------------------


def _action(active: bool) -> str:
    return "account.activate" if active else "account.deactivate"


def _set_active(connection: Connection, person: Any, active: bool, entry: audit.Entry) -> None:
    users = schema.users
    if not active and person.active:
        _keep_administrators(connection, person)
        _end_everything(connection, person.id, entry.at)
    connection.execute(update(users).where(users.c.id == person.id).values(active=active))
    audit.append(connection, entry)


def _keep_administrators(connection: Connection, person: Any) -> None:
    users, members, tenants = schema.users, schema.memberships, schema.tenants
    others = select(func.count()).where(users.c.hub_admin, users.c.active, users.c.id != person.id)
    if person.hub_admin and not connection.execute(others).scalar_one():
        raise Conflict("the hub keeps at least one active administrator", code="last_admin")
    is_admin = members.c.role == Role.ADMIN.value
    theirs = select(members.c.tenant_id).where(members.c.user_id == person.id, is_admin)
    others_there = (
        select(members.c.tenant_id)
        .join(users, users.c.id == members.c.user_id)
        .where(is_admin, users.c.active, users.c.id != person.id)
    )
    left_alone = select(tenants.c.slug).where(tenants.c.id.in_(theirs), tenants.c.id.not_in(others_there))
    if slugs := connection.execute(left_alone.order_by(tenants.c.slug)).scalars().all():
        named = ", ".join(slugs[:5])
        raise Conflict(
            f"a tenant keeps at least one active admin: make another one of {named} first", code="last_admin"
        )


def _end_everything(connection: Connection, user_id: str, now: float) -> None:
    """Sessions, kubeconfigs and the tokens that the person knows end for good: activation does not bring them back."""
    kubeconfigs, programs = schema.kubeconfig_tokens, schema.api_tokens
    connection.execute(delete(schema.sessions).where(schema.sessions.c.user_id == user_id))
    live = (kubeconfigs.c.user_id == user_id) & kubeconfigs.c.revoked_at.is_(None)
    connection.execute(update(kubeconfigs).where(live).values(revoked_at=now))
    known = (programs.c.created_by == user_id) & programs.c.revoked_at.is_(None)
    connection.execute(update(programs).where(known).values(revoked_at=now))


def _accounts(connection: Connection, user_id: str | None = None) -> tuple[AccountView, ...]:
    users, sessions = schema.users, schema.sessions
    seen = select(sessions.c.user_id, func.max(sessions.c.last_used_at).label("at")).group_by(sessions.c.user_id)
    last = seen.subquery()
    query = (
        select(
            users.c.id, users.c.email, users.c.name, users.c.hub_admin, users.c.active, users.c.created_at, last.c.at
        )
        .join(last, last.c.user_id == users.c.id, isouter=True)
        .order_by(users.c.email_key)
    )
    if user_id is not None:
        query = query.where(users.c.id == user_id)
    return tuple(AccountView(*row) for row in connection.execute(query))
