"""Where a webhook may go: to public addresses, and to networks that the hub's administrator allows. Nothing else.

One function judges, when a channel is made and again at each delivery, since a name can lead elsewhere by then. What is
public is listed by what it is, not by what it is not: of IPv6 the one block that is given out, less what is set apart
in it; of IPv4 everything but the special-purpose blocks. An address that holds another one is judged by that.

Source: the special-purpose address registries of IANA (RFC 6890), RFC 4291, RFC 6052, RFC 3056.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

__all__ = ["is_allowed", "is_of_one_machine"]

_NOT_PUBLIC: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
_GIVEN_OUT: Final = IPv6Network("2000::/3")
# Protocol assignments (Teredo and ORCHID among them) and two blocks of documentation.
_SET_APART: Final = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
_6TO4: Final = IPv6Network("2002::/16")


def is_allowed(address: IPv4Address | IPv6Address, allowed: Sequence[IPv4Network | IPv6Network] = ()) -> bool:
    """Whether a webhook may go to an address.

    Args:
        address: one to which the name of its URL leads.
        allowed: networks of addresses that are not public, and allowed.
    """
    if any(address in network for network in allowed):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC)
    if address in _MAPPED or address in _TRANSLATED:
        return is_allowed(IPv4Address(int(address) & 0xFFFFFFFF), allowed)
    if address in _6TO4:
        return is_allowed(IPv4Address(int(address) >> 80 & 0xFFFFFFFF), allowed)
    return address in _GIVEN_OUT and not any(address in network for network in _SET_APART)


def is_of_one_machine(host: str) -> bool:
    """Whether a host's name or address means another machine to each that asks (RFC 6761, loopback, unspecified)."""
    name = host.rstrip(".").casefold()
    if name in ("localhost", "localhost.localdomain", "ip6-localhost") or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified or address.is_link_local
