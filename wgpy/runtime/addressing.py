"""Addresses and routes of an interface, from the configuration, as wg-quick sets them.

A default route would lead the tunnel's own datagrams into the tunnel. As in wg-quick it goes into a table of its own,
which is asked for everything but the datagrams that bear the interface's mark:

    rule: not fwmark M  -> table M          the default route through the tunnel
    rule: table main, no default routes     what is reachable without one stays reachable

Source: wg-quick(8), "Table".
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wgpy import foreign
from wgpy.errors import ConfigError, DeviceError
from wgpy.tun.netlink import Netlink, Rule

if TYPE_CHECKING:
    from wgpy.config import InterfaceConfig

__all__ = ["address_link", "with_mark"]

_log = logging.getLogger("wgpy.device")

_MAIN: Final = 254
_TABLES: Final = {"main": _MAIN, "default": 253, "local": 255}
# The mark, and the table, that wg-quick tries first.
_FIRST_MARK: Final = 51820
_SOURCE_VALID_MARK: Final = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")


def _default_versions(config: InterfaceConfig) -> list[int]:
    if config.table != "auto":
        return []
    return sorted({prefix.version for peer in config.peers for prefix in peer.allowed_ips if not prefix.length})


def with_mark(config: InterfaceConfig) -> InterfaceConfig:
    """The same configuration, with a mark if its default route needs one."""
    if config.fwmark or not _default_versions(config):
        return config
    return dataclasses.replace(config, fwmark=_FIRST_MARK)


def address_link(index: int, config: InterfaceConfig) -> contextlib.ExitStack:
    """Give a link its addresses, bring it up, add its routes.

    Args:
        index: of the link; its addresses and routes go with it.
        config: as `with_mark` returns it.

    Returns:
        What to close at the end: the rules do not go with the link.

    Raises:
        DeviceError: the kernel refuses.
        ConfigError: no such routing table.
    """
    table = _table(config.table)
    rules = [
        rule
        for version in _default_versions(config)
        for rule in (
            Rule(version, config.fwmark, unless_mark=config.fwmark),
            Rule(version, _MAIN, suppress_prefixlength=0),
        )
    ]
    with contextlib.ExitStack() as undo, Netlink() as netlink:
        for address in config.addresses:
            netlink.add_address(index, ipaddress.ip_interface(str(address)))
        netlink.set_link(index, is_up=True)
        if table is not None:
            for prefix in dict.fromkeys(prefix for peer in config.peers for prefix in peer.allowed_ips):
                is_default = config.table == "auto" and not prefix.length
                into = config.fwmark if is_default else table
                netlink.add_route(index, ipaddress.ip_network(str(prefix)), table=into)
        for rule in rules:
            netlink.add_rule(rule)
            undo.callback(_delete_rule, rule)
        if any(rule.version == 4 for rule in rules):
            with contextlib.suppress(OSError):  # strict reverse path filters then look at the mark
                _SOURCE_VALID_MARK.write_text("1")
        return undo.pop_all()


def _delete_rule(rule: Rule) -> None:
    try:
        with Netlink() as netlink:
            netlink.delete_rule(rule)
    except DeviceError as problem:
        _log.warning("%s", problem)


def _table(name: str) -> int | None:
    """The number of a routing table; None for no routes.

    Raises:
        ConfigError: a name that we do not know.
    """
    if name == "off":
        return None
    if name == "auto":
        return _MAIN
    if name in _TABLES:
        return _TABLES[name]
    try:
        return foreign.decimal(name, 2**32 - 1, least=1)
    except ConfigError:
        raise ConfigError(
            f"no such routing table: {foreign.quoted(name)}; use auto, off, main or a number", field="Table"
        ) from None
