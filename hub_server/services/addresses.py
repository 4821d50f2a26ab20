"""Subnets and leases in the database: units of work that apply the rules of `domain.leases`."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select, update

from hub_server.domain import leases
from hub_server.domain.errors import Conflict, Unavailable
from hub_server.services.core import meta_get, meta_put
from hub_server.store import schema

_POOL6 = "pool6"


def ensure_pool6(connection: Connection, wanted: IPv6Network | None, random: Callable[[int], bytes]) -> IPv6Network:
    """The hub's ULA /48: the configured one, or one made at random once and remembered (RFC 4193)."""
    if wanted is not None:
        return wanted
    known = meta_get(connection, _POOL6)
    if known is None:
        known = str(IPv6Network((b"\xfd" + random(5) + bytes(10), 48)))
        meta_put(connection, _POOL6, known)
    return IPv6Network(known)


def make_default_subnet(
    connection: Connection,
    *,
    subnet_id: str,
    tenant_id: str,
    number: int,
    pool: IPv4Network,
    pool6: IPv6Network,
    ipv6: bool,
    now: float,
) -> None:
    """Give a new tenant its default allocation: the lowest /24 of the pool that no other tenant took from it."""
    taken = {
        int(IPv4Network(cidr).network_address)
        for cidr in connection.execute(select(schema.subnets.c.cidr).where(schema.subnets.c.from_pool)).scalars()
    }
    network = leases.default_subnet(pool, taken)
    if network is None:
        raise Conflict(f"the pool {pool} has no /24 left", code="pool_exhausted")
    connection.execute(
        insert(schema.subnets).values(
            id=subnet_id,
            tenant_id=tenant_id,
            cidr=str(network),
            cidr6=str(leases.subnet6(pool6, number)) if ipv6 else None,
            is_default=True,
            from_pool=True,
            created_at=now,
        )
    )


def hub_addresses(connection: Connection) -> dict[str, tuple[IPv4Address, IPv6Address | None]]:
    """The hub's own addresses in every tenant's realm: the first of the default allocation."""
    table = schema.subnets
    result = {}
    for row in connection.execute(select(table).where(table.c.is_default)):
        address6 = leases.hub_address6(IPv6Network(row.cidr6)) if row.cidr6 else None
        result[row.tenant_id] = (leases.hub_address(IPv4Network(row.cidr)), address6)
    return result


def held(connection: Connection, subnet_id: str, now: float) -> set[int]:
    """Addresses that are leased or rest; rests that are over end here."""
    table = schema.leases
    connection.execute(
        update(table)
        .where(table.c.subnet_id == subnet_id, table.c.is_held, table.c.quarantine_until <= now)
        .values(is_held=False)
    )
    rows = connection.execute(select(table.c.address).where(table.c.subnet_id == subnet_id, table.c.is_held))
    return set(rows.scalars())


def free(connection: Connection, subnet: Any, now: float) -> int:
    """How many addresses could be leased now, without changing anything."""
    table = schema.leases
    resting = or_(table.c.quarantine_until.is_(None), table.c.quarantine_until > now)
    count = select(func.count()).where(table.c.subnet_id == subnet.id, table.c.is_held, resting)
    return leases.capacity(IPv4Network(subnet.cidr)) - connection.execute(count).scalar_one()


def lease(
    connection: Connection, *, cluster_id: str, tenant_id: str, subnet_id: str, now: float
) -> tuple[IPv4Address, IPv6Address | None]:
    """The address of a cluster: the one that it has, or the lowest free one.

    Raises:
        Unavailable: none is left; nothing was changed that the caller's transaction would not undo.
    """
    table = schema.leases
    subnet = connection.execute(select(schema.subnets).where(schema.subnets.c.id == subnet_id)).one()
    network = IPv4Network(subnet.cidr)
    mine = select(table.c.address).where(
        table.c.cluster_id == cluster_id, table.c.is_held, table.c.released_at.is_(None)
    )
    number = connection.execute(mine).scalar_one_or_none()
    if number is None:
        free_one = leases.lowest_free(network, held(connection, subnet_id, now))
        if free_one is None:
            raise Unavailable(f"{network} has no free address", retry_after=60, code="subnet_exhausted")
        number = int(free_one)
        connection.execute(
            insert(table).values(
                tenant_id=tenant_id, subnet_id=subnet_id, address=number, cluster_id=cluster_id, leased_at=now
            )
        )
    address = IPv4Address(number)
    return address, leases.address6_for(address, network, IPv6Network(subnet.cidr6)) if subnet.cidr6 else None


def release(connection: Connection, cluster_id: str, now: float) -> None:
    """Let a cluster's address rest for a day."""
    table = schema.leases
    connection.execute(
        update(table)
        .where(table.c.cluster_id == cluster_id, table.c.released_at.is_(None))
        .values(released_at=now, quarantine_until=now + leases.QUARANTINE)
    )
