"""Tenants, their members and their subnets."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hub_server import audit
from hub_server.auth.passwords import make_password
from hub_server.domain import foreign, leases
from hub_server.domain.errors import Conflict, Forbidden, Invalid, NotFound
from hub_server.domain.names import is_email, is_slug
from hub_server.domain.roles import RIGHTS, Right, Role
from hub_server.services import addresses, standing
from hub_server.services.accounts import make_tenant
from hub_server.services.core import Core
from hub_server.services.views import Actor, MemberView, NewMember, SubnetView, TenantView
from hub_server.store import schema


class Tenants:
    """Tenants, their members and their subnets."""

    def __init__(self, core: Core) -> None:
        """Stand on the core."""
        self._core = core

    async def list(self, actor: Actor) -> tuple[TenantView, ...]:
        """The tenants the actor is a member of, by name."""
        rows = await self._core.database.read(_tenants, list(actor.roles))
        return tuple(_tenant_view(row, actor) for row in rows)

    async def get(self, actor: Actor, tenant: str) -> TenantView:
        """One tenant by id or slug. Raises NotFound."""
        for view in await self.list(actor):
            if tenant in (view.id, view.slug):
                return view
        raise NotFound()

    async def create(self, actor: Actor, *, slug: str, name: str) -> TenantView:
        """Make a tenant (hub administrator); the actor becomes its admin."""
        core = self._core
        await core.permit_hub(actor, "tenant.create")
        if not is_slug(slug):
            raise Invalid("slug", "lower-case letters, digits and '-', at most 40, no '-' at the ends")
        name = foreign.text("name", name.strip(), 100, least=1)

        def work(connection: Connection) -> str:
            taken = select(schema.tenants.c.id).where(schema.tenants.c.slug == slug)
            if connection.execute(taken).first() is not None:
                raise Invalid("slug", f"there is a tenant {slug} already")
            now = core.now()
            tenant_id = make_tenant(connection, core.settings, now, core.random, slug=slug, name=name)
            if actor.kind == "user":
                _join(connection, tenant_id, actor.id, Role.ADMIN, now)
            audit.append(connection, core.entry(actor, tenant_id, "tenant.create", target=slug))
            return tenant_id

        tenant_id = await core.database.write(work)
        return TenantView(id=tenant_id, slug=slug, name=name, role=Role.ADMIN, ipv6=True)

    # --- subnets -----------------------------------------------------------------------------------------------------

    async def subnets(self, actor: Actor, tenant_id: str) -> tuple[SubnetView, ...]:
        """The allocations of a tenant, the default first."""
        await self._core.permit(actor, tenant_id, Right.SEE, "subnets.list")
        return await self._core.database.read(_subnets, tenant_id, self._core.now())

    async def add_subnet(self, actor: Actor, tenant_id: str, cidr: str) -> SubnetView:
        """Add an allocation. Raises Invalid(field cidr)."""
        core = self._core
        await core.permit(actor, tenant_id, Right.MANAGE, "subnet.add")

        def work(connection: Connection) -> SubnetView:
            table, now = schema.subnets, core.now()
            known = connection.execute(select(table).where(table.c.tenant_id == tenant_id)).all()
            try:
                network = leases.check_subnet(cidr, [IPv4Network(one.cidr) for one in known])
            except ValueError as problem:
                raise Invalid("cidr", str(problem)) from None
            subnet_id = core.id("sn")
            network6 = next((IPv6Network(one.cidr6) for one in known if one.is_default and one.cidr6), None)
            values = {
                "id": subnet_id,
                "tenant_id": tenant_id,
                "cidr": str(network),
                "cidr6": str(leases.subnet6_beside(network6, len(known))) if network6 is not None else None,
                "created_at": now,
            }
            connection.execute(insert(table).values(**values, is_default=False, from_pool=False))
            audit.append(connection, core.entry(actor, tenant_id, "subnet.add", target=str(network)))
            return next(view for view in _subnets(connection, tenant_id, now) if view.id == subnet_id)

        return await core.database.write(work)

    # --- members -----------------------------------------------------------------------------------------------------

    async def members(self, actor: Actor, tenant_id: str) -> tuple[MemberView, ...]:
        """The members, by e-mail."""
        await self._core.permit(actor, tenant_id, Right.SEE, "members.list")
        return await self._core.database.read(_members, tenant_id)

    async def add_member(self, actor: Actor, tenant_id: str, *, email: str, name: str, role: Role) -> NewMember:
        """Add a person; makes the account if there is none."""
        core = self._core
        await core.permit(actor, tenant_id, Right.MANAGE, "member.add", reauth=True)
        _refuse_wider(actor, tenant_id, role)
        email = foreign.text("email", email.strip(), 254)
        if not is_email(email):
            raise Invalid("email", "that is not an e-mail address")
        name = foreign.text("name", name.strip(), 100)
        password = make_password()
        hashed = await core.passwords.hash(password, source=actor.id)
        ground = standing.ground_of(actor, tenant_id, Right.MANAGE)

        def work(connection: Connection) -> NewMember:
            users, now = schema.users, core.now()
            standing.require(connection, ground, now, core.settings)  # the hash may have waited for its turn
            known = connection.execute(select(users).where(users.c.email_key == email.casefold())).one_or_none()
            user_id = known.id if known is not None else core.id("us")
            if known is None:
                connection.execute(
                    insert(users).values(
                        id=user_id,
                        email=email,
                        email_key=email.casefold(),
                        name=name or email.partition("@")[0],
                        password_hash=hashed,
                        must_change_password=True,
                        created_at=now,
                    )
                )
            try:
                with connection.begin_nested():
                    _join(connection, tenant_id, user_id, role, now)
            except IntegrityError:
                raise Conflict(f"{email} is a member already") from None
            audit.append(
                connection, core.entry(actor, tenant_id, "member.add", target=email, detail={"role": role.value})
            )
            return NewMember(_member(connection, tenant_id, user_id), password if known is None else None)

        return await core.database.write(work)

    async def update_member(
        self, actor: Actor, tenant_id: str, user_id: str, *, role: Role | None = None, stream: bool | None = None
    ) -> MemberView:
        """Change role or grant."""
        core = self._core
        await core.permit(actor, tenant_id, Right.MANAGE, "member.update", reauth=True)
        changes: dict[str, Any] = {}
        if role is not None:
            _refuse_wider(actor, tenant_id, role)
            changes["role"] = role.value
        if stream is not None:
            if stream and not actor.may(tenant_id, Right.STREAM):
                raise Forbidden("nobody gives a right that they do not have: stream")
            changes["stream"] = stream

        def work(connection: Connection) -> MemberView:
            table = schema.memberships
            before = _member(connection, tenant_id, user_id)
            if before.role is Role.ADMIN and role not in (None, Role.ADMIN):
                _keep_an_admin(connection, tenant_id, user_id)
            if changes:
                mine = (table.c.tenant_id == tenant_id) & (table.c.user_id == user_id)
                connection.execute(update(table).where(mine).values(**changes))
            audit.append(connection, core.entry(actor, tenant_id, "member.update", target=before.email, detail=changes))
            return _member(connection, tenant_id, user_id)

        return await core.database.write(work)

    async def remove_member(self, actor: Actor, tenant_id: str, user_id: str) -> None:
        """Remove; sessions lose the tenant with the next request."""
        core = self._core
        await core.permit(actor, tenant_id, Right.MANAGE, "member.remove", reauth=True)

        def work(connection: Connection) -> None:
            table = schema.memberships
            before = _member(connection, tenant_id, user_id)
            _keep_an_admin(connection, tenant_id, user_id)
            connection.execute(delete(table).where(table.c.tenant_id == tenant_id, table.c.user_id == user_id))
            audit.append(connection, core.entry(actor, tenant_id, "member.remove", target=before.email))

        await core.database.write(work)


# --- units of work ---------------------------------------------------------------------------------------------------


def _tenants(connection: Connection, ids: list[str]) -> list[Any]:
    table = schema.tenants
    return list(connection.execute(select(table).where(table.c.id.in_(ids)).order_by(table.c.name)).all())


def _tenant_view(row: Any, actor: Actor) -> TenantView:
    return TenantView(id=row.id, slug=row.slug, name=row.name, role=actor.roles[row.id], ipv6=row.ipv6)


def _subnets(connection: Connection, tenant_id: str, now: float) -> tuple[SubnetView, ...]:
    table = schema.subnets
    rows = connection.execute(
        select(table).where(table.c.tenant_id == tenant_id).order_by(table.c.is_default.desc(), table.c.created_at)
    ).all()
    views = []
    # One address of the hub in the whole realm: the first of the default allocation.
    hub = str(leases.hub_address(IPv4Network(rows[0].cidr))) if rows else ""
    for row in rows:
        network = IPv4Network(row.cidr)
        free = addresses.free(connection, row, now)
        views.append(
            SubnetView(
                id=row.id,
                cidr=row.cidr,
                cidr6=row.cidr6,
                is_default=row.is_default,
                leased=leases.capacity(network) - free,
                free=free,
                hub_address=hub,
            )
        )
    return tuple(views)


def _join(connection: Connection, tenant_id: str, user_id: str, role: Role, now: float) -> None:
    values = {"tenant_id": tenant_id, "user_id": user_id, "role": role.value, "joined_at": now}
    connection.execute(insert(schema.memberships).values(**values))


def _member_query(tenant_id: str) -> Any:
    users, table = schema.users, schema.memberships
    return (
        select(users.c.id, users.c.email, users.c.name, table.c.role, table.c.stream, users.c.active, table.c.joined_at)
        .join(users, users.c.id == table.c.user_id)
        .where(table.c.tenant_id == tenant_id)
        .order_by(users.c.email_key)
    )


def _member_view(row: Any) -> MemberView:
    return MemberView(row.id, row.email, row.name, Role(row.role), row.stream, row.active, row.joined_at)


def _members(connection: Connection, tenant_id: str) -> tuple[MemberView, ...]:
    return tuple(_member_view(row) for row in connection.execute(_member_query(tenant_id)))


def _member(connection: Connection, tenant_id: str, user_id: str) -> MemberView:
    row = connection.execute(_member_query(tenant_id).where(schema.users.c.id == user_id)).one_or_none()
    if row is None:
        raise NotFound()
    return _member_view(row)


def _refuse_wider(actor: Actor, tenant_id: str, role: Role) -> None:
    """A token with some scopes of an admin must not make an admin with all of them."""
    if wider := [right.value for right in Right if right in RIGHTS[role] and not actor.may(tenant_id, right)]:
        raise Forbidden(f"nobody gives a right that they do not have: {', '.join(wider)}")


def _keep_an_admin(connection: Connection, tenant_id: str, user_id: str) -> None:
    """Refuse to take the last one who can still act; several that were deactivated do not count."""
    table, users = schema.memberships, schema.users
    others = (
        select(func.count())
        .join(users, users.c.id == table.c.user_id)
        .where(table.c.tenant_id == tenant_id, table.c.role == Role.ADMIN.value, users.c.active)
    )
    mine = _member(connection, tenant_id, user_id)
    if mine.role is Role.ADMIN and not connection.execute(others.where(users.c.id != user_id)).scalar_one():
        raise Conflict("a tenant keeps at least one active admin: make another one first", code="last_admin")
