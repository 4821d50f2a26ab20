"""Addresses: which subnets a tenant may have, and which address a cluster gets.

The first address of a subnet is the hub's, the last (broadcast) is never given; a cluster gets the lowest free one when
its token is redeemed. Freed addresses rest a day. Source: product.md section 10.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

QUARANTINE = 24 * 3600  # seconds before a freed address may be given again
DEFAULT_POOL = IPv4Network("100.96.0.0/11")
MIN_PREFIX, MAX_PREFIX = 8, 29
TENANT_PREFIX, TENANT_PREFIX6 = 24, 64
_PRIVATE = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),
)


def check_subnet(text: str, existing: Iterable[IPv4Network]) -> IPv4Network:
    """Read an allocation that an admin wishes.

    Raises:
        ValueError: malformed, public, too small or large, or overlapping one of the tenant's own; the message says
        which.
    """
    try:
        network = ip_network(text.strip(), strict=True)
    except ValueError:
        raise ValueError(f"{text!r} is not a network such as 10.20.0.0/24 (no bits set behind the prefix)") from None
    if not isinstance(network, IPv4Network):
        raise ValueError("an allocation is an IPv4 network; its IPv6 half is chosen by the hub")
    if not any(network.subnet_of(private) for private in _PRIVATE):
        raise ValueError(f"{network} is not private: take one from {', '.join(map(str, _PRIVATE))}")
    if network.prefixlen > MAX_PREFIX:
        raise ValueError(f"{network} is too small: at least a /{MAX_PREFIX}, which has room for five clusters")
    if network.prefixlen < MIN_PREFIX:
        raise ValueError(f"{network} is too large: at most a /{MIN_PREFIX}")
    for other in existing:
        if network.overlaps(other):
            raise ValueError(f"{network} overlaps {other}, which this tenant has already")
    return network


def hub_address(network: IPv4Network) -> IPv4Address:
    """The hub's own address in an allocation: the first."""
    return network.network_address + 1


def hub_address6(network: IPv6Network) -> IPv6Address:
    """Likewise for IPv6."""
    return network.network_address + 1


def capacity(network: IPv4Network) -> int:
    """How many clusters fit: all but network, hub and broadcast."""
    return network.num_addresses - 3


def lowest_free(network: IPv4Network, taken: Collection[int]) -> IPv4Address | None:
    """The lowest address that is neither the hub's nor taken (addresses as int); None when there is none left."""
    first, last = int(network.network_address) + 2, int(network.broadcast_address) - 1
    for candidate in range(first, last + 1):
        if candidate not in taken:
            return IPv4Address(candidate)
    return None


def address6_for(address: IPv4Address, network: IPv4Network, network6: IPv6Network) -> IPv6Address:
    """The IPv6 address beside an IPv4 one: the same number, counted in the other network."""
    return network6.network_address + (int(address) - int(network.network_address))


def default_subnet(pool: IPv4Network, taken: Collection[int]) -> IPv4Network | None:
    """The lowest /24 of the pool whose network address is not taken."""
    for network in pool.subnets(new_prefix=max(TENANT_PREFIX, pool.prefixlen)):
        if int(network.network_address) not in taken:
            return network
    return None


def subnet6(pool: IPv6Network, number: int) -> IPv6Network:
    """The /64 with a number within the hub's /48."""
    return IPv6Network((int(pool.network_address) + (number << 64), TENANT_PREFIX6))


def subnet6_beside(network6: IPv6Network, number: int) -> IPv6Network:
    """The IPv6 half of a tenant's further allocation: a /96 of its /64, apart from all others by its number."""
    return IPv6Network((int(network6.network_address) + (number << 32), 96))
