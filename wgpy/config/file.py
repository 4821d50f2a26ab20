"""The INI form of a configuration: what its keys mean, and how a file is written back with some values changed.

Reading does what `wg-quick strip` and `wg setconf` do with a file. Of a key with one value the last one counts, over
all [Interface] sections or all sections of one peer; lists of [Interface] add up; AllowedIPs of a later section of the
same peer take the place of the earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wgpy.config import values as of
from wgpy.config.interface import InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError
from wgpy.ini import QUICK_KEYS, Change, Document, Entry, Section, meant_name, shown_name
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Reading", "read", "write"]

Report: TypeAlias = "Callable[[ConfigError], None]"
Lines: TypeAlias = dict[str, list[str]]


def _private_key(value: str) -> PrivateKey | None:
    """All zero is how `wg` says that there is none."""
    key = PrivateKey(value)
    return None if value == PresharedKey(bytes(32)).to_base64() else key


# Key of a file: attribute, and reader of one value. Of the hooks each line is one value; lists add up.
_INTERFACE_KEYS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "PrivateKey": ("private_key", _private_key),
    "ListenPort": ("listen_port", of.parse_port),
    "FwMark": ("fwmark", of.parse_mark),
    "Address": ("addresses", lambda value: [of.parse_address(part) for part in of.words(value)]),
    "DNS": ("dns", of.parse_dns),
    "MTU": ("mtu", of.parse_mtu),
    "Table": ("table", of.parse_table),
    "PreUp": ("pre_up", lambda value: [value]),
    "PostUp": ("post_up", lambda value: [value]),
    "PreDown": ("pre_down", lambda value: [value]),
    "PostDown": ("post_down", lambda value: [value]),
    "SaveConfig": ("save_config", of.parse_boolean),
}
_PEER_KEYS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "PublicKey": ("public_key", PublicKey),
    "PresharedKey": ("preshared_key", PresharedKey),
    "AllowedIPs": ("allowed_ips", str),
    "Endpoint": ("endpoint", of.Endpoint.parse),
    "PersistentKeepalive": ("persistent_keepalive", of.parse_keepalive),
}
_ADD_UP: Final = frozenset({"addresses", "pre_up", "post_up", "pre_down", "post_down"})
# An empty value of these means nothing to wg-quick.
_MAY_BE_EMPTY: Final = frozenset(QUICK_KEYS) - {"SaveConfig"}
# Keys of AmneziaWG, which hides WireGuard from censors by other messages on the wire.
_AMNEZIA: Final = frozenset(
    {"jc", "jmin", "jmax", "j1", "j2", "j3", "itime", "s1", "s2", "s3", "s4", "h1", "h2", "h3", "h4"}
    | {"i1", "i2", "i3", "i4", "i5", "advancedsecurity"}
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A file that was read.

    Attributes:
        config: what it says.
        document: its lines.
        interface: the [Interface] sections, in order.
        peers: the sections of each peer, in order.
    """

    config: InterfaceConfig
    document: Document
    interface: tuple[Section, ...]
    peers: Mapping[PublicKey, Sequence[Section]]


# --- reading ---------------------------------------------------------------------------------------------------------


def _raise(error: ConfigError) -> None:
    raise error


def read(text: str | bytes, report: Report = _raise) -> Reading:
    """Read a file.

    Args:
        text: of the file.
        report: called with each error, after which reading goes on with the next line; without it they are raised.

    Raises:
        ConfigError: with field, line and column.
    """
    document = Document(text, report)
    _refuse_amnezia(document, report)
    interface: dict[str, Any] = {}
    peers: dict[PublicKey, dict[str, Any]] = {}
    sections: dict[PublicKey, list[Section]] = {}
    count = 0
    for section in document.sections:
        if section.name == "interface":
            _read_section(section, _INTERFACE_KEYS, interface, "", report)
            continue
        count += 1
        values: dict[str, Any] = {"allowed_ips": []}
        _read_section(section, _PEER_KEYS, values, f"Peer[{count}].", report)
        if "public_key" not in values:
            report(ConfigError("a peer needs a PublicKey", field=f"Peer[{count}]", line=section.line, column=1))
        elif values["public_key"] is not None:
            peers.setdefault(values["public_key"], {}).update(values)
            sections.setdefault(values["public_key"], []).append(section)
    config = InterfaceConfig(peers=[PeerConfig(**one) for one in peers.values()], _document=document, **interface)
    return Reading(config, document, _named(document, "interface"), sections)


def _named(document: Document, name: str) -> tuple[Section, ...]:
    return tuple(section for section in document.sections if section.name == name)


def _refuse_amnezia(document: Document, report: Report) -> None:
    found = [entry for section in document.sections for entry in section.entries if entry.key in _AMNEZIA]
    if found:
        names = ", ".join(dict.fromkeys(entry.name for entry in found))
        report(
            ConfigError(
                f"{names}: of AmneziaWG, whose messages WireGuard does not understand. A server that insists on them "
                "cannot be reached from here; ask for a configuration of plain WireGuard",
                line=found[0].line, column=1,
            )
        )  # fmt: skip


def _read_section(
    section: Section,
    keys: Mapping[str, tuple[str, Callable[[str], Any]]],
    values: dict[str, Any],
    path: str,
    report: Report,
) -> None:
    names = {name.lower(): name for name in keys}
    for entry in section.entries:
        if entry.key in _AMNEZIA:
            continue
        name = names.get(entry.key)
        try:
            if name is None:
                raise ConfigError(f"unknown key{meant_name(entry.name)}; known here are {', '.join(keys)}")
            if entry.value:
                _take(keys[name], entry.value, values)
            elif name not in _MAY_BE_EMPTY:
                raise ConfigError("has no value")
            elif name in ("MTU", "Table"):
                values.pop(keys[name][0], None)
        except ConfigError as error:
            field = f"{path}{name or shown_name(entry.name)}"
            report(ConfigError(error.message, field=field, line=entry.line, column=entry.column))
            # The value is wrong, but it is there.
            if name == "PublicKey":
                values["public_key"] = None


def _take(key: tuple[str, Callable[[str], Any]], value: str, values: dict[str, Any]) -> None:
    attribute, parse = key
    if attribute == "allowed_ips":
        values[attribute] = of.changed_prefixes(value, values[attribute])
    elif attribute == "dns":
        servers, domains = of.parse_dns(value)
        values.setdefault("dns", []).extend(servers)
        values.setdefault("dns_search", []).extend(domains)
    elif attribute in _ADD_UP:
        values.setdefault(attribute, []).extend(parse(value))
    else:
        values[attribute] = parse(value)


# --- writing ---------------------------------------------------------------------------------------------------------


def _interface_lines(config: InterfaceConfig) -> Lines:
    return {
        "PrivateKey": [config.private_key.to_base64()] if config.private_key else [],
        "ListenPort": [str(config.listen_port)] if config.listen_port else [],
        "FwMark": [f"{config.fwmark:#x}"] if config.fwmark else [],
        "Address": [", ".join(map(str, config.addresses))] if config.addresses else [],
        "DNS": [", ".join((*config.dns, *config.dns_search))] if config.dns or config.dns_search else [],
        "MTU": [str(config.mtu)] if config.mtu is not None else [],
        "Table": [config.table] if config.table != "auto" else [],
        "PreUp": list(config.pre_up),
        "PostUp": list(config.post_up),
        "PreDown": list(config.pre_down),
        "PostDown": list(config.post_down),
        "SaveConfig": ["true"] if config.save_config else [],
    }


def _peer_lines(peer: PeerConfig) -> Lines:
    return {
        "PublicKey": [str(peer.public_key)],
        "PresharedKey": [peer.preshared_key.to_base64()] if peer.preshared_key else [],
        "AllowedIPs": [", ".join(map(str, peer.allowed_ips))] if peer.allowed_ips else [],
        "Endpoint": [str(peer.endpoint)] if peer.endpoint else [],
        "PersistentKeepalive": [str(peer.persistent_keepalive)] if peer.persistent_keepalive else [],
    }


def _section(name: str, lines: Lines) -> str:
    return "".join([f"[{name}]\n", *(f"{key} = {value}\n" for key, values in lines.items() for value in values)])


def write(config: InterfaceConfig, document: Document | None) -> str:
    """A file that says what a configuration says.

    Args:
        config: what shall be said.
        document: the file that it was read from; what did not change stays as it is there.
    """
    if document is None:
        sections = [_section("Interface", _interface_lines(config))]
        sections += [_section("Peer", _peer_lines(peer)) for peer in config.peers]
        return "\n".join(sections)
    before = read(document.text)
    changes: list[Change] = []
    added: list[str] = []
    was, shall_be = _interface_lines(before.config), _interface_lines(config)
    differs = [key for key in shall_be if shall_be[key] != was[key]]
    # A new key of wg-quick needs a heading that wg-quick knows.
    homes = [section for section in before.interface if section.is_quick] or list(before.interface)
    homeless = [key for key in differs if not homes or (key in QUICK_KEYS and not homes[0].is_quick)]
    if homeless:
        added.append(_section("Interface", {key: shall_be[key] for key in homeless}))
    changes += [_change(before.interface, homes[0], key, shall_be[key]) for key in differs if key not in homeless]
    old = {peer.public_key: peer for peer in before.config.peers}
    new = {peer.public_key: peer for peer in config.peers}
    for public_key, peer in new.items():
        if public_key not in old:
            added.append(_section("Peer", _peer_lines(peer)))
            continue
        sections_, was, shall_be = before.peers[public_key], _peer_lines(old[public_key]), _peer_lines(peer)
        for key in (key for key in shall_be if shall_be[key] != was[key]):
            # AllowedIPs of earlier sections count for nothing.
            holders = sections_[-1:] if key == "AllowedIPs" else sections_
            changes.append(_change(holders, sections_[-1], key, shall_be[key]))
    removed = [section for public_key in old.keys() - new.keys() for section in before.peers[public_key]]
    return document.edited(changes, removed, added)


def _change(holders: Sequence[Section], home: Section, key: str, wanted: list[str]) -> Change:
    entries = [entry for section in holders for entry in section.entries if entry.key == key.lower()]
    if key in ("Address", "DNS", "AllowedIPs"):
        return Change(key, entries, _spread(entries, wanted[0] if wanted else "", key), home)
    if key.startswith(("Pre", "Post")) and key != "PresharedKey":
        return Change(key, entries, _spread_lines(entries, wanted), home)
    if not wanted:
        return Change(key, entries, [None] * len(entries), home)
    # Of several lines the last one counts; the others are as dead as before.
    return Change(key, entries, [*(entry.value for entry in entries[:-1]), *wanted], home)


def _parts(value: str, key: str) -> list[str]:
    """The values of a list as they are written new."""
    if key == "AllowedIPs":
        return list(map(str, of.changed_prefixes(value, []))) if value else []
    if key == "Address":
        return [str(of.parse_address(word)) for word in of.words(value)]
    servers, domains = of.parse_dns(value)
    return servers + domains


def _spread(entries: Sequence[Entry], wanted: str, key: str) -> list[str | None]:
    """The values of a list over the lines that hold it: a line of which all remains is not touched."""
    shall_be = _parts(wanted, key)
    left = list(shall_be)
    lines: list[list[str]] = []
    for entry in entries:
        lines.append([])
        for part in _parts(entry.value, key):
            if part in left:
                left.remove(part)
                lines[-1].append(part)
    at = max((number for number, kept in enumerate(lines) if kept), default=0)
    in_order = [*(part for kept in lines for part in kept), *left]
    has_signs = key == "AllowedIPs" and any(set("+-") & set(entry.value) for entry in entries)
    if has_signs or not entries or _parts(", ".join(in_order), key) != shall_be:
        return [", ".join(shall_be) or None, *([None] * (len(entries) - 1))]
    values = [
        entry.value if kept == _parts(entry.value, key) else ", ".join(kept)
        for entry, kept in zip(entries, lines, strict=True)
    ]
    if left:
        values[at] = ", ".join(filter(None, (values[at].rstrip(" \t,"), *left)))
    # An empty line of wg-quick means nothing; it stays if it was so before.
    return [value if value or not entry.value else None for entry, value in zip(entries, values, strict=True)]


def _spread_lines(entries: Sequence[Entry], wanted: list[str]) -> list[str | None]:
    """Commands over the lines that hold them, where an empty one means nothing."""
    left = list(wanted)
    if sum(bool(entry.value) for entry in entries) == len(wanted):
        return [left.pop(0) if entry.value else "" for entry in entries]
    values: list[str | None] = []
    for entry in entries:
        is_kept = bool(left) and entry.value == left[0]
        values.append(left.pop(0) if is_kept else None if entry.value else "")
    return values + left
