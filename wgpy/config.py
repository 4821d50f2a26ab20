"""What an interface and its peers shall be: frozen values, checked once, as INI and as JSON both ways.

The INI form is that of `wg` and `wg-quick`; a file is written back without loss, comments included. Names of hosts stay
names
here: whoever opens sockets resolves them.

Source: wg(8) and wg-quick(8).
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

from wgpy.errors import ConfigError
from wgpy.ini import Document, Entry, Section
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Address", "Diagnosis", "Endpoint", "InterfaceConfig", "PeerConfig", "Prefix", "check", "quoted"]

Address: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

# Python's int() also takes signs, spaces, underscores and the digits of other scripts.
_DECIMAL: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_HEXADECIMAL: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?", re.ASCII)
_ZONE: Final = re.compile(r"[^\s%/\]]{1,15}")
_MAX_PORT: Final = 65535
_MAX_MARK: Final = 2**32 - 1
# wg(8) takes a port by its service name too; these are the UDP services a tunnel may be hidden behind.
_SERVICES: Final = {
    "domain": 53,
    "ntp": 123,
    "http": 80,
    "https": 443,
    "ipsec-nat-t": 4500,
    "isakmp": 500,
    "openvpn": 1194,
}
_BITS: Final = {4: 32, 6: 128}


def quoted(value: str) -> str:
    """A value in an error message: quoted, and cut when it is long."""
    return repr(value if len(value) <= 60 else value[:57] + "...")


def _number(text: str, largest: int, what: str, path: str) -> int:
    if not _DECIMAL.fullmatch(text) or int(text) > largest:
        raise ConfigError(f"{what} must be a number from 0 to {largest}, got {quoted(text)}", field=path)
    return int(text)


class Prefix(NamedTuple):
    """An IP prefix; its host bits are zero.

    Attributes:
        version: 4 or 6.
        network: the address as a number.
        length: bits that count.

    Example:
        >>> str(Prefix.parse("192.0.2.77/24"))
        '192.0.2.0/24'
    """

    version: int
    network: int
    length: int

    @classmethod
    def parse(cls, text: str, *, needs_length: bool = False) -> Prefix:
        """Read `ADDRESS/LENGTH`, or `ADDRESS` for a single one. Host bits are cleared.

        Args:
            text: the prefix.
            needs_length: refuse a plain address, as the control socket does.

        Raises:
            ConfigError: netmasks, zones, names and anything else.
        """
        address, slash, length = text.partition("/")
        version, number = _ip_number(address, text)
        bits = _BITS[version]
        if not slash and not needs_length:
            return cls(version, number, bits)
        if not _DECIMAL.fullmatch(length) or len(length) > 3 or int(length) > bits:
            raise ConfigError(f"expected ADDRESS/LENGTH with a length from 0 to {bits}, got {quoted(text)}")
        host_bits = bits - int(length)
        return cls(version, number >> host_bits << host_bits, int(length))

    def __str__(self) -> str:
        """As `wg` prints it."""
        address: object
        address = ipaddress.IPv4Address(self.network) if self.version == 4 else ipaddress.IPv6Address(self.network)
        return f"{address}/{self.length}"

    def __repr__(self) -> str:
        """The text form."""
        return f"<Prefix {self}>"

    def holds(self, other: Prefix) -> bool:
        """Whether every address of `other` is one of this prefix."""
        if self.version != other.version or self.length > other.length:
            return False
        host_bits = _BITS[self.version] - self.length
        return self.network >> host_bits == other.network >> host_bits


def _ip_number(address: str, text: str) -> tuple[int, int]:
    try:
        if ":" in address:
            if "%" in address:
                raise ConfigError(f"a zone has no place in a prefix: {quoted(text)}")
            return 6, int(ipaddress.IPv6Address(address))
        return 4, int(ipaddress.IPv4Address(address))
    except ValueError:
        raise ConfigError(f"expected an IPv4 or IPv6 address, got {quoted(text)}") from None


class Endpoint:
    """Where a peer's UDP socket is: an address and a port, or a name and a port.

    An IPv4-mapped IPv6 address becomes IPv4: an IPv6-only socket could not reach it.

    Attributes:
        host: address, link-local ones with `%zone`, or name.
        port: UDP port.
        version: 4, 6, or 0 for a name.
        packed: octets of address and port, empty for a name; zones do not show in it.

    Example:
        >>> wgpy.Endpoint.parse("[2001:db8::1]:51820")
        Endpoint('2001:db8::1', 51820)
    """

    __slots__ = ("_hash", "host", "packed", "port", "version")

    host: str
    port: int
    version: int
    packed: bytes
    _hash: int

    def __init__(self, host: str, port: int) -> None:
        """Name a place.

        Raises:
            ConfigError: neither address nor host name, or a port that is none.
        """
        if not 0 < port <= _MAX_PORT:
            raise ConfigError(f"a port must be a number from 1 to {_MAX_PORT}, got {port}", field="Endpoint")
        address, has_zone, zone = host.partition("%")
        if has_zone and not (":" in address and _ZONE.fullmatch(zone)):
            raise ConfigError(f"a zone names an interface after an IPv6 address, got {quoted(host)}", field="Endpoint")
        octets, version = b"", 0
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            if not _HOST.fullmatch(host) or len(host) > 253 or host.replace(".", "").isdigit():
                raise ConfigError(f"expected an address or a host name, got {quoted(host)}", field="Endpoint") from None
        else:
            if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
                parsed, has_zone = parsed.ipv4_mapped, ""
            host = f"{parsed}%{zone}" if has_zone else str(parsed)
            octets, version = parsed.packed + port.to_bytes(2), parsed.version
        for name, value in (("host", host), ("port", port), ("version", version), ("packed", octets)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_hash", hash((host, port)))

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: an endpoint is a value."""
        raise AttributeError(f"an Endpoint cannot be changed: {name}")

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read `1.2.3.4:51820`, `[2001:db8::1]:51820`, `[fe80::1%eth0]:51820` or `vpn.example.org:51820`.

        Raises:
            ConfigError: anything else.
        """
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if ":" not in host:
                raise ConfigError(f"brackets hold an IPv6 address: {quoted(text)}", field="Endpoint")
        elif ":" in host:
            raise ConfigError(
                f"an IPv6 address stands in brackets: [ADDRESS]:PORT, got {quoted(text)}", field="Endpoint"
            )
        if not colon or not host or not port:
            raise ConfigError(f"expected HOST:PORT, got {quoted(text)}", field="Endpoint")
        number = _SERVICES.get(port)
        return cls(host, _number(port, _MAX_PORT, "the port", "Endpoint") if number is None else number)

    @property
    def is_name(self) -> bool:
        """Whether it must be resolved first."""
        return not self.version

    def __str__(self) -> str:
        """As `wg` prints it."""
        return f"[{self.host}]:{self.port}" if self.version == 6 else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        """As one would write it."""
        return f"Endpoint({self.host!r}, {self.port})"

    def __eq__(self, other: object) -> bool:
        """Same host, same port."""
        if not isinstance(other, Endpoint):
            return NotImplemented
        return self.host == other.host and self.port == other.port

    def __hash__(self) -> int:
        """By host and port; computed once."""
        return self._hash


@dataclass(frozen=True, slots=True, init=False)
class PeerConfig:
    """What we know of one peer.

    Attributes:
        public_key: its name.
        allowed_ips: the addresses that are routed to it and that it may send from.
        endpoint: where to find it; None when it must find us.
        preshared_key: mixed into every handshake, None for none.
        persistent_keepalive: seconds between packets that keep a NAT open, 0 for none.
        pin_endpoint: never follow it to another address.

    Example:
        >>> peer = wgpy.PeerConfig("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", allowed_ips=["10.0.0.2/32"])
        >>> [str(prefix) for prefix in peer.allowed_ips]
        ['10.0.0.2/32']
    """

    public_key: PublicKey
    allowed_ips: tuple[Prefix, ...]
    endpoint: Endpoint | None
    preshared_key: PresharedKey | None
    persistent_keepalive: int
    pin_endpoint: bool

    def __init__(
        self,
        public_key: PublicKey | str,
        *,
        allowed_ips: Iterable[Prefix | str] = (),
        endpoint: Endpoint | str | None = None,
        preshared_key: PresharedKey | str | None = None,
        persistent_keepalive: int = 0,
        pin_endpoint: bool = False,
    ) -> None:
        """Check and keep; text is read as in a configuration file.

        Raises:
            ConfigError: with the name of the field.
        """
        _set(
            self,
            public_key=PublicKey(public_key) if isinstance(public_key, str) else public_key,
            allowed_ips=tuple(_each(allowed_ips, Prefix.parse, "AllowedIPs")),
            endpoint=Endpoint.parse(endpoint) if isinstance(endpoint, str) else endpoint,
            preshared_key=PresharedKey(preshared_key) if isinstance(preshared_key, str) else preshared_key,
            persistent_keepalive=_within(persistent_keepalive, _MAX_PORT, "PersistentKeepalive"),
            pin_endpoint=bool(pin_endpoint),
        )


@dataclass(frozen=True, slots=True, init=False)
class InterfaceConfig:
    r"""Who we are and whom we talk to.

    Attributes:
        private_key: ours; without it nothing is sent or answered.
        listen_port: UDP port, 0 for any.
        fwmark: mark of outgoing datagrams, 0 for none.
        peers: each public key once.
        addresses: of the interface, with prefix lengths.
        dns: addresses of name servers inside the tunnel.
        dns_search: search domains.
        mtu: of the interface, None to choose one.
        table: routing table: `auto`, `off`, a number or a name.
        pre_up: shell lines of wg-quick; `wgpy` keeps them and runs none.
        post_up: likewise.
        pre_down: likewise.
        post_down: likewise.
        save_config: of wg-quick.

    Example:
        >>> config = wgpy.InterfaceConfig.from_ini("[Interface]\nListenPort = 51820  # the usual one\n")
        >>> config.listen_port
        51820
        >>> print(config.to_ini(), end="")
        [Interface]
        ListenPort = 51820  # the usual one
    """

    private_key: PrivateKey | None
    listen_port: int
    fwmark: int
    peers: tuple[PeerConfig, ...]
    addresses: tuple[Address, ...]
    dns: tuple[str, ...]
    dns_search: tuple[str, ...]
    mtu: int | None
    table: str
    pre_up: tuple[str, ...]
    post_up: tuple[str, ...]
    pre_down: tuple[str, ...]
    post_down: tuple[str, ...]
    save_config: bool
    # The file that it was read from, for `to_ini`.
    _document: Document | None = field(compare=False, repr=False)

    def __init__(
        self,
        private_key: PrivateKey | str | None = None,
        *,
        listen_port: int = 0,
        fwmark: int = 0,
        peers: Iterable[PeerConfig] = (),
        addresses: Iterable[Address | str] = (),
        dns: Iterable[str] = (),
        dns_search: Iterable[str] = (),
        mtu: int | None = None,
        table: str = "auto",
        pre_up: Iterable[str] = (),
        post_up: Iterable[str] = (),
        pre_down: Iterable[str] = (),
        post_down: Iterable[str] = (),
        save_config: bool = False,
        _document: Document | None = None,
    ) -> None:
        """Check and keep; text is read as in a configuration file.

        Raises:
            ConfigError: with the name of the field.
        """
        peers = tuple(peers)
        seen: set[PublicKey] = set()
        for number, peer in enumerate(peers, 1):
            if peer.public_key in seen:
                raise ConfigError(f"{peer.public_key} is the key of an earlier peer", field=f"Peer[{number}].PublicKey")
            seen.add(peer.public_key)
        if mtu is not None and not 576 <= mtu <= _MAX_PORT:
            raise ConfigError(f"an MTU is a number from 576 to {_MAX_PORT}, got {mtu}", field="MTU")
        _set(
            self,
            private_key=PrivateKey(private_key) if isinstance(private_key, str) else private_key,
            listen_port=_within(listen_port, _MAX_PORT, "ListenPort"),
            fwmark=_within(fwmark, _MAX_MARK, "FwMark"),
            peers=peers,
            addresses=tuple(_each(addresses, _parse_address, "Address")),
            dns=tuple(_each(dns, _parse_server, "DNS")),
            dns_search=tuple(dns_search),
            mtu=mtu,
            table=str(table),
            pre_up=tuple(pre_up),
            post_up=tuple(post_up),
            pre_down=tuple(pre_down),
            post_down=tuple(post_down),
            save_config=bool(save_config),
            _document=_document,
        )

    @classmethod
    def from_ini(cls, text: str) -> InterfaceConfig:
        """Read a `wg` or `wg-quick` configuration file.

        Raises:
            ConfigError: with field, line and column.
        """
        return _read(Document(text), _raise)

    def to_ini(self) -> str:
        r"""A `wg-quick` configuration file. What was read from a file comes back as it was, but for later changes.

        Example:
            >>> import dataclasses
            >>> old = wgpy.InterfaceConfig.from_ini("# home\n[Interface]\nListenPort = 1\n")
            >>> print(dataclasses.replace(old, listen_port=2).to_ini(), end="")
            # home
            [Interface]
            ListenPort = 2
        """
        if self._document is None:
            sections = [_section("Interface", _interface_lines(self))]
            sections += [_section("Peer", _peer_lines(peer)) for peer in self.peers]
            return "\n".join(sections)
        return _edit(self._document, self)

    @classmethod
    def from_json(cls, text: str) -> InterfaceConfig:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: not JSON, unknown names, wrong values.
        """
        try:
            document: object = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"not JSON: {error}") from None
        values = _json_object(document, frozenset(_JSON_INTERFACE), "")
        peers = values.pop("peers", [])
        if not isinstance(peers, list):
            raise ConfigError("expected a list", field="peers")
        parsed: list[PeerConfig] = []
        for number, peer in enumerate(cast("list[object]", peers), 1):
            path = f"peers[{number}]"
            of_peer = _json_object(peer, frozenset(_JSON_PEER), path)
            if "public_key" not in of_peer:
                raise ConfigError("a peer needs a public_key", field=path)
            try:
                parsed.append(PeerConfig(**of_peer))
            except ConfigError as error:
                raise ConfigError(error.message, field=f"{path}.{error.field}") from None
        return cls(peers=parsed, **values)

    def to_json(self) -> str:
        """The same as JSON, secrets included, for programs."""
        document: dict[str, object] = {"private_key": self.private_key and self.private_key.to_base64()}
        for name in _JSON_INTERFACE[1:-1]:
            value = getattr(self, name)
            document[name] = [str(part) for part in value] if isinstance(value, tuple) else value
        document["peers"] = [
            {
                "public_key": str(peer.public_key),
                "allowed_ips": [str(prefix) for prefix in peer.allowed_ips],
                "endpoint": peer.endpoint and str(peer.endpoint),
                "preshared_key": peer.preshared_key and peer.preshared_key.to_base64(),
                "persistent_keepalive": peer.persistent_keepalive,
                "pin_endpoint": peer.pin_endpoint,
            }
            for peer in self.peers
        ]
        return json.dumps(document, indent=2) + "\n"


def _set(value: object, **fields: object) -> None:
    for name, content in fields.items():
        object.__setattr__(value, name, content)


def _within(number: int, largest: int, path: str) -> int:
    if isinstance(number, bool) or not 0 <= number <= largest:
        raise ConfigError(f"must be a number from 0 to {largest}, got {number!r}", field=path)
    return number


def _each(values: Iterable[Any], parse: Callable[[str], Any], path: str) -> Iterable[Any]:
    if isinstance(values, str):
        raise ConfigError("expected a list of values, got one text", field=path)
    for value in values:
        try:
            yield parse(value) if isinstance(value, str) else value
        except ConfigError as error:
            raise ConfigError(error.message, field=path) from None


def _parse_address(text: str) -> Address:
    try:
        if "/" in text and not _DECIMAL.fullmatch(text.partition("/")[2]):
            raise ValueError
        return ipaddress.ip_interface(text)
    except ValueError:
        raise ConfigError(f"expected ADDRESS/LENGTH, got {quoted(text)}", field="Address") from None


def _parse_server(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ConfigError(f"expected an address, got {quoted(text)}", field="DNS") from None


# --- JSON ------------------------------------------------------------------------------------------------------------

_LISTS: Final = ("addresses", "dns", "dns_search", "pre_up", "post_up", "pre_down", "post_down")
_JSON_INTERFACE: Final = ("private_key", "listen_port", "fwmark", *_LISTS, "mtu", "table", "save_config", "peers")
_JSON_PEER: Final = (
    "public_key", "allowed_ips", "endpoint", "preshared_key", "persistent_keepalive", "pin_endpoint",
)  # fmt: skip
_JSON_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "private_key": (str, type(None)),
    "listen_port": (int,),
    "fwmark": (int,),
    "mtu": (int, type(None)),
    "table": (str,),
    "save_config": (bool,),
    "public_key": (str,),
    "endpoint": (str, type(None)),
    "preshared_key": (str, type(None)),
    "persistent_keepalive": (int,),
    "pin_endpoint": (bool,),
}


def _json_object(value: object, names: frozenset[str], path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("expected an object", field=path)
    values = cast("dict[str, Any]", value)
    for name, content in values.items():
        where = f"{path}.{name}" if path else name
        if name not in names:
            raise ConfigError(f"unknown name; known are {', '.join(sorted(names))}", field=where)
        types = _JSON_TYPES.get(name)
        if types is None:
            parts = cast("list[object]", content) if isinstance(content, list) else None
            if parts is None or (name != "peers" and not all(isinstance(part, str) for part in parts)):
                raise ConfigError("expected a list of texts", field=where)
        elif not isinstance(content, types) or (isinstance(content, bool) and bool not in types):
            raise ConfigError(f"expected {types[0].__name__}, got {type(content).__name__}", field=where)
    return dict(values)


# --- INI: reading ----------------------------------------------------------------------------------------------------


def _raise(error: ConfigError) -> None:
    raise error


def _split(value: str) -> list[str]:
    return [part for part in value.split(",") if part]


def _prefixes(value: str, owned: list[Prefix]) -> list[Prefix]:
    """`+` and `-` before a prefix change what was said before, as wg(8) has it; neither sign adds too."""
    for part in _split(value):
        prefix = Prefix.parse(part.removeprefix("+").removeprefix("-") if part[0] in "+-" else part)
        if part[0] == "-":
            owned = [other for other in owned if other != prefix]
        else:
            owned.append(prefix)
    return owned


def _mark(value: str) -> int:
    if value.lower() == "off":
        return 0
    if _HEXADECIMAL.fullmatch(value) and int(value, 16) <= _MAX_MARK:
        return int(value, 16)
    return _number(value, _MAX_MARK, "a mark", "")


def _port(value: str) -> int:
    number = _SERVICES.get(value)
    return _number(value, _MAX_PORT, "a port", "") if number is None else number


def _keepalive(value: str) -> int:
    return 0 if value.lower() == "off" else _number(value, _MAX_PORT, "an interval in seconds", "")


def _mtu(value: str) -> int:
    number = _number(value, _MAX_PORT, "an MTU", "")
    if number < 576:
        raise ConfigError(f"an MTU is a number from 576 to {_MAX_PORT}, got {number}")
    return number


def _boolean(value: str) -> bool:
    if value not in ("true", "false"):
        raise ConfigError(f"expected true or false, got {quoted(value)}")
    return value == "true"


# Key in a file: attribute and reader of one value. What may repeat is in _LISTS or handled by _read_entry.
_INTERFACE_KEYS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "PrivateKey": ("private_key", PrivateKey),
    "ListenPort": ("listen_port", _port),
    "FwMark": ("fwmark", _mark),
    "Address": ("addresses", lambda value: [_parse_address(part) for part in _split(value)]),
    "DNS": ("dns", _split),
    "MTU": ("mtu", _mtu),
    "Table": ("table", str),
    "PreUp": ("pre_up", lambda value: [value]),
    "PostUp": ("post_up", lambda value: [value]),
    "PreDown": ("pre_down", lambda value: [value]),
    "PostDown": ("post_down", lambda value: [value]),
    "SaveConfig": ("save_config", _boolean),
}
_PEER_KEYS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "PublicKey": ("public_key", PublicKey),
    "PresharedKey": ("preshared_key", PresharedKey),
    "AllowedIPs": ("allowed_ips", str),
    "Endpoint": ("endpoint", Endpoint.parse),
    "PersistentKeepalive": ("persistent_keepalive", _keepalive),
}


def _read_entry(
    entry: Entry, keys: Mapping[str, tuple[str, Callable[[str], Any]]], values: dict[str, Any], path: str
) -> None:
    name = next((known for known in keys if known.lower() == entry.key), None)
    where = f"{path}{name or entry.name}"
    try:
        if name is None:
            raise ConfigError(f"unknown key; known here are {', '.join(keys)}")
        attribute, parse = keys[name]
        if attribute == "allowed_ips":
            values[attribute] = _prefixes(entry.value, values.get(attribute, []))
            return
        if not entry.value:
            raise ConfigError("has no value")
        value = parse(entry.value)
        if attribute == "dns":
            for part in value:
                kind, item = "dns", part
                try:
                    item = _parse_server(part)
                except ConfigError:
                    kind = "dns_search"
                values.setdefault(kind, []).append(item)
        elif attribute in _LISTS:
            values.setdefault(attribute, []).extend(value)
        else:
            values[attribute] = value
    except ConfigError as error:
        raise ConfigError(error.message, field=where, line=entry.line, column=entry.column) from None


def _read(document: Document, report: Callable[[ConfigError], None]) -> InterfaceConfig:
    interface: dict[str, Any] = {}
    peers: list[tuple[PeerConfig, int]] = []
    count = 0
    for section in document.sections:
        if section.name == "interface":
            keys, values, path = _INTERFACE_KEYS, interface, ""
        elif section.name == "peer":
            count += 1
            keys, values, path = _PEER_KEYS, {}, f"Peer[{count}]."
        else:
            report(ConfigError(f"[{section.name}] is neither [Interface] nor [Peer]", line=section.line, column=1))
            continue
        for entry in section.entries:
            try:
                _read_entry(entry, keys, values, path)
            except ConfigError as error:
                report(error)
                # The value is wrong, but it is there.
                if entry.key == "publickey" and section.name == "peer":
                    values["public_key"] = None
        if section.name == "peer":
            if "public_key" not in values:
                report(ConfigError("a peer needs a PublicKey", field=path[:-1], line=section.line, column=1))
            elif values["public_key"] is not None:
                peers.append((PeerConfig(**values), section.line))
    # wg(8) lets a second section of one peer change what the first one said. A library must not guess.
    seen: set[PublicKey] = set()
    unique: list[PeerConfig] = []
    for peer, line in peers:
        if peer.public_key in seen:
            report(
                ConfigError(f"{peer.public_key} is the key of an earlier peer", field="PublicKey", line=line, column=1)
            )
        else:
            unique.append(peer)
        seen.add(peer.public_key)
    return InterfaceConfig(peers=unique, _document=document, **interface)


# --- INI: writing ----------------------------------------------------------------------------------------------------

Lines: TypeAlias = dict[str, list[str]]


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


def _differences(section: Section, before: Lines, after: Lines) -> list[tuple[Section, str, list[str]]]:
    return [(section, key, after[key]) for key in after if before[key] != after[key]]


def _edit(document: Document, config: InterfaceConfig) -> str:
    before = _read(document, _raise)
    of_interface = [section for section in document.sections if section.name == "interface"]
    of_peer = dict(zip(
        (peer.public_key for peer in before.peers),
        (section for section in document.sections if section.name == "peer"),
        strict=True,
    ))  # fmt: skip
    old = {peer.public_key: peer for peer in before.peers}
    new = {peer.public_key: peer for peer in config.peers}
    changes: list[tuple[Section, str, list[str]]] = []
    added: list[str] = []
    was, shall_be = _interface_lines(before), _interface_lines(config)
    if of_interface:
        # What stands in several [Interface] sections is changed in the last that names it: the last one counts.
        for section, key, values in _differences(of_interface[0], was, shall_be):
            holders = [s for s in of_interface if any(entry.key == key.lower() for entry in s.entries)]
            changes += [(holder, key, []) for holder in holders[:-1]]
            changes.append((holders[-1] if holders else section, key, values))
    elif was != shall_be:
        added.append(_section("Interface", shall_be))
    for public_key, peer in new.items():
        if public_key in old:
            changes += _differences(of_peer[public_key], _peer_lines(old[public_key]), _peer_lines(peer))
        else:
            added.append(_section("Peer", _peer_lines(peer)))
    removed = [section for public_key, section in of_peer.items() if public_key not in new]
    return document.edited(changes, removed, added) if changes or removed or added else document.text


# --- for `wgpy check` ------------------------------------------------------------------------------------------------


class Diagnosis(NamedTuple):
    """One thing that is wrong with a file, or may be.

    Attributes:
        is_error: whether the file cannot be used as it is.
        line: counted from 1.
        column: counted from 1.
        field: which key, empty if none applies.
        message: what is wrong and how to mend it.
    """

    is_error: bool
    line: int
    column: int
    field: str
    message: str


def check(text: str) -> list[Diagnosis]:
    """Everything that is wrong or doubtful in a configuration file, in order of lines."""
    found: list[Diagnosis] = []

    def report(error: ConfigError) -> None:
        found.append(Diagnosis(True, error.line or 1, error.column or 1, error.field, error.message))

    document = Document(text, report)
    config = _read(document, report)
    if not found:
        found += _doubts(document, config)
    return sorted(found, key=lambda diagnosis: (diagnosis.line, diagnosis.column))


def _doubts(document: Document, config: InterfaceConfig) -> Iterable[Diagnosis]:
    interface = next((section for section in document.sections if section.name == "interface"), None)
    heading = interface.line if interface else 1

    def doubt(section: Section | None, key: str, message: str) -> Diagnosis:
        entries = [entry for entry in section.entries if entry.key == key.lower()] if section else []
        if entries:
            return Diagnosis(False, entries[0].line, entries[0].column, key, message)
        return Diagnosis(False, section.line if section else heading, 1, key, message)

    if config.private_key is None:
        yield doubt(
            interface, "PrivateKey", "without a private key nothing is sent or answered; make one with `wgpy genkey`"
        )
    if not config.peers:
        yield doubt(interface, "Peer", "there is no [Peer]: nobody can be reached")
    if config.mtu is not None:
        # Outer headers: 40 of IPv6, or 20 of IPv4, 8 of UDP and 32 of WireGuard, within the 1500 of an Ethernet.
        largest = 1440 if all(p.endpoint and p.endpoint.version == 4 for p in config.peers) and config.peers else 1420
        if config.mtu > largest:
            yield doubt(
                interface,
                "MTU",
                f"{config.mtu} will not fit through a path of 1500: packets are fragmented or lost; use {largest}",
            )
        elif config.mtu < 1280 and any(address.version == 6 for address in config.addresses):
            yield doubt(interface, "MTU", f"IPv6 needs an MTU of 1280 (RFC 8200), and this is {config.mtu}")
    owners: list[tuple[Prefix, int]] = []
    sections = [section for section in document.sections if section.name == "peer"]
    for number, (peer, section) in enumerate(zip(config.peers, sections, strict=True), 1):
        if config.private_key is not None and peer.public_key == config.private_key.public_key:
            yield doubt(section, "PublicKey", "this is our own public key: the peer will be ignored")
        if not peer.allowed_ips:
            yield doubt(
                section, "AllowedIPs", "the peer has no AllowedIPs: nothing is routed to it or accepted from it"
            )
        if peer.endpoint is not None and not peer.persistent_keepalive and not config.listen_port:
            yield doubt(
                section,
                "PersistentKeepalive",
                "behind NAT the peer cannot reach us after a silence; PersistentKeepalive = 25 keeps the way open",
            )
        for prefix in peer.allowed_ips:
            for other, owner in owners:
                if owner != number and (other.holds(prefix) or prefix.holds(other)):
                    if other == prefix:
                        message = f"{prefix} belongs to Peer[{owner}] too: only this later one keeps it"
                    else:
                        narrow, wide = (prefix, other) if other.holds(prefix) else (other, prefix)
                        message = (
                            f"{prefix} overlaps {other} of Peer[{owner}]: within {wide}, {narrow} goes to its own peer"
                        )
                    yield doubt(section, "AllowedIPs", message)
                    break
        owners += [(prefix, number) for prefix in peer.allowed_ips[:_OVERLAPS_CHECKED]]


# Every pair of prefixes is compared, which is for files that people write.
_OVERLAPS_CHECKED: Final = 512
