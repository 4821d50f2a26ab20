"""People: sign-in, sessions, re-authentication, the first administrator.

A session cookie and an API token are random words of which only a hash is stored. Every request reads its actor anew:
whoever was deactivated, or lost a role, is nobody with the next one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from hub_server import audit
from hub_server.auth.passwords import Passwords, check_password, make_password
from hub_server.auth.throttle import Failures, source_of
from hub_server.domain.errors import Forbidden, Invalid, NotFound, TooMany, Unauthenticated
from hub_server.domain.foreign import cleaned
from hub_server.domain.names import is_email, new_id
from hub_server.domain.roles import Right, Role
from hub_server.services import authority
from hub_server.services.addresses import ensure_pool6, make_default_subnet
from hub_server.services.core import Core, meta_get, meta_put
from hub_server.services.devices import device_of, device_word
from hub_server.services.views import Actor, SessionView, SignedIn
from hub_server.settings import Settings
from hub_server.store import schema
from hub_server.store.database import Database

__all__ = ["Accounts", "create_administrator", "make_tenant"]

MOST_SESSIONS: Final = 20
TOKEN_PREFIX: Final = "dlp_"
_INITIALISED: Final = "initialised"
_WRONG: Final = "e-mail address or password is wrong"


class Accounts:
    """People: sign-in, sessions, re-authentication, the first administrator."""

    def __init__(self, core: Core) -> None:
        """Stand on the core."""
        self._core = core
        # Guesses are slowed by where they come from. An account alone is slowed late and little, or anybody could lock
        # its owner out; a device on which the owner signed in before, and an open session, count for themselves.
        self._of_source = Failures(free=5, longest=900)
        self._of_account = Failures(free=25, longest=60)
        self._of_device = Failures(free=5, longest=900)
        self._of_session = Failures(free=5, longest=60)

    # --- signing in --------------------------------------------------------------------------------------------------

    async def sign_in(
        self, email: str, password: str, *, remote: str, user_agent: str, device: str = "", request_id: str = ""
    ) -> SignedIn:
        """Check a password and open a session.

        Args:
            email: as typed.
            password: as typed.
            remote: where it was typed.
            user_agent: shown beside the session.
            device: the word that an earlier sign-in gave this browser, empty without one.
            request_id: for the audit.

        Raises:
            Unauthenticated: one text for every cause.
            TooMany: too many wrong ones came from there, or for this account.
            Unavailable: too many sign in at this moment.
        """
        core, now = self._core, self._core.now()
        person = await core.database.read(_person_by_email, _key(email))
        known = device_of(core, device, person.id) if person is not None else None
        tries = (
            _Tries((self._of_device, known))
            if known is not None
            else _Tries((self._of_source, source_of(remote)), (self._of_account, _key(email)))
        )
        tries.count(core.monotonic())
        stored = person.password_hash if person is not None and person.active else None
        if not await core.passwords.verify(
            stored, password[:1000], source=known or source_of(remote), known=known is not None
        ):
            entry = audit.Entry(
                audit.HUB_CHAIN,
                now,
                cleaned(email, 254),
                "session.open",
                result="refused",
                remote=remote,
                request_id=request_id,
            )
            core.later.append(entry)
            raise Unauthenticated(_WRONG)
        assert person is not None, "there was a hash to compare with"
        tries.succeeded()
        cookie = secrets.token_urlsafe(32)
        session = {
            "id": core.id("se"),
            "hash": _digest(cookie),
            "user_id": person.id,
            "created_at": now,
            "last_used_at": now,
            "reauthenticated_at": now,
            "remote": remote[:64],
            "user_agent": cleaned(user_agent, 200),
        }
        entry = audit.Entry(audit.HUB_CHAIN, now, person.email, "session.open", remote=remote, request_id=request_id)
        if not await core.database.write(_open_session, session, person.password_hash, entry):
            raise Unauthenticated(_WRONG)  # it was changed, or the account deactivated, while it was compared
        actor = await self.actor_of_session(cookie, remote=remote, request_id=request_id)
        if actor is None:
            raise Unauthenticated(_WRONG)
        return SignedIn(actor, cookie, device_word(core, person.id))

    async def sign_out(self, actor: Actor) -> None:
        """End the session of the actor."""
        if actor.session_id is not None:
            await self.end_session(actor, actor.session_id)

    async def actor_of_session(self, cookie: str, *, remote: str, request_id: str = "") -> Actor | None:
        """The person behind a session cookie, or None."""
        core, now = self._core, self._core.now()
        found = await core.database.read(_session, _digest(cookie))
        if found is None:
            return None
        last_used = core.later.last_use(schema.sessions, found.session_id, found.last_used_at)
        is_old = now - last_used > core.settings.session_idle
        if is_old or now - found.created_at > core.settings.session_absolute:
            return None
        core.later.touch(schema.sessions, found.session_id, found.last_used_at, now)
        roles, grants = await core.database.read(_memberships, found.user_id)
        return Actor(
            kind="user",
            id=found.user_id,
            email=found.email,
            name=found.name,
            roles=roles,
            grants=grants,
            hub_admin=found.hub_admin,
            session_id=found.session_id,
            csrf=hmac.new(cookie.encode(), b"csrf", hashlib.sha256).hexdigest(),
            reauthenticated_at=found.reauthenticated_at,
            must_change_password=found.must_change_password,
            remote=remote,
            request_id=request_id,
        )

    async def actor_of_token(self, bearer: str, *, remote: str, request_id: str = "") -> Actor | None:
        """The program behind a `dlp_` token, or None."""
        core, now = self._core, self._core.now()
        if not bearer.startswith(TOKEN_PREFIX):
            return None
        found, standing = await core.database.read(_token, _digest(bearer), now)
        if standing is None:
            return None
        core.later.touch(schema.api_tokens, found.id, found.last_used_at, now)
        return Actor(
            kind="token",
            id=found.id,
            email="",
            name=found.name,
            roles={found.tenant_id: standing.role},
            grants={found.tenant_id: standing.grants},
            scopes=standing.rights,
            remote=remote,
            request_id=request_id,
        )

    async def reauthenticate(self, actor: Actor, password: str) -> Actor:
        """Type the password again; good for five minutes. Raises Unauthenticated, TooMany or Unavailable."""
        await self._check_password(actor, password)
        return replace(actor, reauthenticated_at=self._core.now())

    async def _check_password(self, actor: Actor, password: str) -> str:
        """Note that the actor typed the password again; returns its hash. Raises like `reauthenticate`."""
        core, now = self._core, self._core.now()
        if actor.kind != "user" or actor.session_id is None:
            raise Unauthenticated()
        tries = _Tries((self._of_session, actor.session_id))
        tries.count(core.monotonic())
        stored = await core.database.read(_password_of, actor.id)
        if not await core.passwords.verify(stored, password[:1000], source=actor.session_id, known=True):
            core.later.append(core.entry(actor, audit.HUB_CHAIN, "session.reauthenticate", result="refused"))
            raise Unauthenticated("the password is wrong", code="wrong_password")
        assert stored is not None, "there was a hash to compare with"
        tries.succeeded()
        await core.database.write(
            _reauthenticated, actor.session_id, now, core.entry(actor, audit.HUB_CHAIN, "session.reauthenticate")
        )
        return stored

    async def change_password(self, actor: Actor, old: str, new: str) -> None:
        """Set a new password; ends all other sessions. Of many changes at once the first one counts.

        Raises:
            Invalid: with the field `old` or `new`.
        """
        core = self._core
        if actor.kind != "user":
            raise Forbidden("a password belongs to a person: sign in as one")
        if problem := check_password(new):
            raise Invalid("new", problem)
        try:
            stored = await self._check_password(actor, old)
        except Unauthenticated:
            raise Invalid("old", "that is not your password") from None
        if old == new:
            raise Invalid("new", "the new password is the old one")
        hashed = await core.passwords.hash(new, source=actor.id)
        entry = core.entry(actor, audit.HUB_CHAIN, "password.change")
        if not await core.database.write(_set_password, actor, stored, hashed, entry):
            raise Invalid("old", "that is not your password any more: it was changed at the same time")

    async def sessions(self, actor: Actor) -> tuple[SessionView, ...]:
        """The browser sessions of the actor."""
        rows = await self._core.database.read(_sessions_of, actor.id, self._core.now(), self._core.settings)
        return tuple(
            SessionView(
                id=row.id,
                created_at=row.created_at,
                last_used_at=row.last_used_at,
                remote=row.remote,
                user_agent=row.user_agent,
                is_current=row.id == actor.session_id,
            )
            for row in rows
        )

    async def end_session(self, actor: Actor, session_id: str) -> None:
        """End one of them."""
        entry = self._core.entry(actor, audit.HUB_CHAIN, "session.end", target=session_id)
        if not await self._core.database.write(_end_session, actor.id, session_id, entry):
            raise NotFound()

    # --- the first start ---------------------------------------------------------------------------------------------

    async def ensure_first_administrator(self) -> str | None:
        """On the very first start: a tenant and its administrator. The password, to be printed once; None later on."""
        core = self._core
        if await core.database.read(meta_get, _INITIALISED) is not None:
            return None
        password = make_password()
        hashed = await core.passwords.hash(password)
        made = await core.database.write(_first_administrator, core.settings, core.now(), core.random, hashed)
        return password if made else None


def create_administrator(database: Database, settings: Settings, email: str, *, now: float) -> str:
    """Make an administrator of the hub and of every tenant, or give one a new password; returns the password.

    Raises:
        ValueError: that is no e-mail address.
    """
    if not is_email(email):
        raise ValueError(f"{email!r} is not an e-mail address")
    password = make_password()
    hashed = Passwords().hash_here(password)

    def work(connection: Connection) -> None:
        _first_administrator(connection, settings, now, secrets.token_bytes, Passwords().hash_here(make_password()))
        user_id = _put_administrator(connection, email, hashed, now, secrets.token_bytes)
        for tenant_id in connection.execute(select(schema.tenants.c.id)).scalars().all():
            _put_membership(connection, tenant_id, user_id, Role.ADMIN, now)
        entry = audit.Entry(audit.HUB_CHAIN, now, "command line", "administrator.create", target=email)
        audit.append(connection, entry)

    database.write_here(work)
    return password


class _Tries:
    """One try of a password and what counts it: as failed until it succeeds, so many at once are as many in a row."""

    def __init__(self, *counts: tuple[Failures, str]) -> None:
        self._counts = counts

    def count(self, now: float) -> None:
        wait = max(failures.wait_for(key, now) for failures, key in self._counts)
        if wait:
            raise TooMany("too many failed attempts: wait a little", retry_after=wait, code="too_many_attempts")
        for failures, key in self._counts:
            failures.failed(key, now)

    def succeeded(self) -> None:
        for failures, key in self._counts:
            failures.succeeded(key)


# --- units of work ---------------------------------------------------------------------------------------------------


def _key(email: str) -> str:
    return email.strip().casefold()[:254]


def _digest(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()


def _person_by_email(connection: Connection, key: str) -> Any:
    return connection.execute(select(schema.users).where(schema.users.c.email_key == key)).one_or_none()


def _password_of(connection: Connection, user_id: str) -> str | None:
    users = schema.users
    return connection.execute(
        select(users.c.password_hash).where(users.c.id == user_id, users.c.active)
    ).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class _Session:
    session_id: str
    created_at: float
    last_used_at: float
    reauthenticated_at: float | None
    user_id: str
    email: str
    name: str
    hub_admin: bool
    must_change_password: bool


def _session(connection: Connection, digest: bytes) -> _Session | None:
    sessions, users = schema.sessions, schema.users
    row = connection.execute(
        select(
            sessions.c.id, sessions.c.created_at, sessions.c.last_used_at, sessions.c.reauthenticated_at,
            users.c.id, users.c.email, users.c.name, users.c.hub_admin, users.c.must_change_password,
        )
        .join(users, users.c.id == sessions.c.user_id)
        .where(sessions.c.hash == digest, users.c.active)
    ).one_or_none()  # fmt: skip
    return None if row is None else _Session(*row)


def _memberships(connection: Connection, user_id: str) -> tuple[dict[str, Role], dict[str, frozenset[str]]]:
    rows = connection.execute(select(schema.memberships).where(schema.memberships.c.user_id == user_id)).all()
    roles = {row.tenant_id: Role(row.role) for row in rows}
    return roles, {row.tenant_id: frozenset({Right.STREAM.value}) for row in rows if row.stream}


def _open_session(connection: Connection, session: dict[str, Any], compared: str, entry: audit.Entry) -> bool:
    """False where what was compared is not the password any more, or the account is not active."""
    sessions = schema.sessions
    if _password_of(connection, session["user_id"]) != compared:
        return False
    kept = (
        select(sessions.c.id)
        .where(sessions.c.user_id == session["user_id"])
        .order_by(sessions.c.last_used_at.desc())
        .limit(MOST_SESSIONS - 1)
    )
    ids = connection.execute(kept).scalars().all()
    connection.execute(delete(sessions).where(sessions.c.user_id == session["user_id"], sessions.c.id.not_in(ids)))
    connection.execute(insert(sessions).values(**session))
    audit.append(connection, entry)
    return True


def _token(connection: Connection, digest: bytes, now: float) -> tuple[Any, authority.Standing | None]:
    found = connection.execute(select(schema.api_tokens).where(schema.api_tokens.c.hash == digest)).one_or_none()
    return found, authority.of_token(connection, found, now) if found is not None else None


def _reauthenticated(connection: Connection, session_id: str, now: float, entry: audit.Entry) -> None:
    connection.execute(update(schema.sessions).where(schema.sessions.c.id == session_id).values(reauthenticated_at=now))
    audit.append(connection, entry)


def _set_password(connection: Connection, actor: Actor, compared: str, hashed: str, entry: audit.Entry) -> bool:
    """False where what was compared is not the password any more, or the session has ended."""
    users, sessions = schema.users, schema.sessions
    mine = (sessions.c.user_id == actor.id) & (sessions.c.id == (actor.session_id or ""))
    is_there = connection.execute(select(sessions.c.id).where(mine)).first() is not None
    if not is_there or _password_of(connection, actor.id) != compared:
        return False
    connection.execute(
        update(users).where(users.c.id == actor.id).values(password_hash=hashed, must_change_password=False)
    )
    connection.execute(delete(sessions).where(sessions.c.user_id == actor.id, sessions.c.id != actor.session_id))
    audit.append(connection, entry)
    return True


def _sessions_of(connection: Connection, user_id: str, now: float, settings: Settings) -> list[Any]:
    sessions = schema.sessions
    alive = (
        select(sessions)
        .where(sessions.c.user_id == user_id)
        .where(sessions.c.last_used_at >= now - settings.session_idle)
        .where(sessions.c.created_at >= now - settings.session_absolute)
        .order_by(sessions.c.last_used_at.desc())
    )
    return list(connection.execute(alive).all())


def _end_session(connection: Connection, user_id: str, session_id: str, entry: audit.Entry) -> bool:
    sessions = schema.sessions
    gone = connection.execute(delete(sessions).where(sessions.c.id == session_id, sessions.c.user_id == user_id))
    if gone.rowcount:
        audit.append(connection, entry)
    return bool(gone.rowcount)


def make_tenant(connection: Connection, settings: Settings, now: float, random: Any, *, slug: str, name: str) -> str:
    """A tenant with its default allocation; returns its id."""
    numbers = set(connection.execute(select(schema.tenants.c.number)).scalars())
    number = next(candidate for candidate in range(1, 0x10000) if candidate not in numbers)
    tenant_id = new_id("tn", random)
    connection.execute(
        insert(schema.tenants).values(
            id=tenant_id,
            slug=slug,
            name=name,
            number=number,
            kubeconfig_max_ttl=30 * 86400.0,
            created_at=now,
        )
    )
    make_default_subnet(
        connection,
        subnet_id=new_id("sn", random),
        tenant_id=tenant_id,
        number=number,
        pool=settings.pool,
        pool6=ensure_pool6(connection, settings.pool6, random),
        ipv6=True,
        now=now,
    )
    return tenant_id


def _first_administrator(connection: Connection, settings: Settings, now: float, random: Any, hashed: str) -> bool:
    if meta_get(connection, _INITIALISED) is not None:
        return False
    name = settings.tenant.replace("-", " ").title()
    tenant_id = make_tenant(connection, settings, now, random, slug=settings.tenant, name=name)
    user_id = _put_administrator(connection, settings.admin_email, hashed, now, random)
    _put_membership(connection, tenant_id, user_id, Role.ADMIN, now)
    meta_put(connection, _INITIALISED, repr(now))
    audit.append(
        connection,
        audit.Entry(audit.HUB_CHAIN, now, "first start", "administrator.create", target=settings.admin_email),
    )
    return True


def _put_administrator(connection: Connection, email: str, hashed: str, now: float, random: Any) -> str:
    users = schema.users
    known = _person_by_email(connection, _key(email))
    values = {"password_hash": hashed, "must_change_password": True, "active": True, "hub_admin": True}
    if known is not None:
        connection.execute(update(users).where(users.c.id == known.id).values(**values))
        connection.execute(delete(schema.sessions).where(schema.sessions.c.user_id == known.id))
        return str(known.id)
    user_id = new_id("us", random)
    name = email.partition("@")[0][:100]
    connection.execute(
        insert(users).values(id=user_id, email=email, email_key=_key(email), name=name, created_at=now, **values)
    )
    return user_id


def _put_membership(connection: Connection, tenant_id: str, user_id: str, role: Role, now: float) -> None:
    table = schema.memberships
    found = (table.c.tenant_id == tenant_id) & (table.c.user_id == user_id)
    if not connection.execute(update(table).where(found).values(role=role.value)).rowcount:
        connection.execute(insert(table).values(tenant_id=tenant_id, user_id=user_id, role=role.value, joined_at=now))
