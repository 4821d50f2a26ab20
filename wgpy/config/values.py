"""Values of a configuration: prefixes, endpoints, addresses and numbers, read from the texts that files have for them.

What the texts of a file may be is what `wg` and `wg-quick` take. Where those take something that nobody means, such as
a port of 65536 for 0 or 1.2.3 for 1.2.0.3, it is refused here.

Source: config.c of wireguard-tools; wg-quick(8); ip-address(8).
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from wgpy import foreign
from wgpy.errors import ConfigError
from wgpy.foreign import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Address",
    "Endpoint",
    "Prefix",
    "changed_prefixes",
    "parse_address",
    "parse_boolean",
    "parse_dns",
    "parse_keepalive",
    "parse_mark",
    "parse_mtu",
    "parse_port",
    "parse_server",
    "parse_table",
    "words",
]

Address: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?", re.ASCII)
_ZONE: Final = re.compile(r"[^\s%/\]]{1,15}")
_BLANKS: Final = re.compile(r"[ \t\n\v\f\r,]+")
# wg-quick takes a word for a name server if it looks so; every other one is a search domain.
_LIKE_A_SERVER: Final = re.compile(r"[0-9.]+|.*:.*")
_MAX_MARK: Final = 2**32 - 1
# RFC 791: every module must be able to forward 68 octets; Linux gives no TUN less.
_MIN_MTU: Final = 68
_MAX_MTU: Final = 65535
# wg(8) takes a port by its service name too; these are the UDP services a tunnel may be hidden behind.
_SERVICES: Final = {"domain": 53, "ntp": 123, "https": 443, "ipsec-nat-t": 4500, "isakmp": 500, "openvpn": 1194}
_BITS: Final = {4: 32, 6: 128}


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
            needs_length: refuse a plain address and zeros in front of the length, as the control socket does.

        Raises:
            ConfigError: netmasks, zones, names and anything else.
        """
        if not isinstance(text, str):
            raise ConfigError(f"expected ADDRESS/LENGTH as text, got {quoted(text)}", field="AllowedIPs")
        address, slash, length = text.partition("/")
        version, number = _ip_number(address, text)
        bits = _BITS[version]
        if not slash and not needs_length:
            return cls(version, number, bits)
        try:
            if needs_length and len(length) > 3:
                raise ConfigError("zeros in front")
            count = foreign.decimal(length, bits)
        except ConfigError:
            raise ConfigError(
                f"expected ADDRESS/LENGTH with a length from 0 to {bits}, got {quoted(text)}", field="AllowedIPs"
            ) from None
        host_bits = bits - count
        return cls(version, number >> host_bits << host_bits, count)

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
        if "%" in address:
            raise ValueError
        if ":" in address:
            return 6, int(ipaddress.IPv6Address(address))
        return 4, int(ipaddress.IPv4Address(address))
    except ValueError:
        raise ConfigError(f"expected an IPv4 or IPv6 address, got {quoted(text)}", field="AllowedIPs") from None


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
        port = foreign.port(port, field="Endpoint")
        if not isinstance(host, str):
            raise ConfigError(f"expected an address or a host name as text, got {quoted(host)}", field="Endpoint")
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

    def __reduce__(self) -> tuple[type[Endpoint], tuple[str, int]]:
        """Copied and pickled by what it was made of."""
        return Endpoint, (self.host, self.port)

    @classmethod
    def parse(cls, text: str, *, needs_brackets: bool = False) -> Endpoint:
        """Read `1.2.3.4:51820`, `[2001:db8::1]:51820`, `[fe80::1%eth0]:51820` or `vpn.example.org:51820`.

        What stands behind the last colon is the port. Brackets may be missing around an IPv6 address, or stand around
        another host, as for `wg`.

        Args:
            text: the endpoint.
            needs_brackets: around IPv6 addresses and nothing else, as on the control socket.

        Raises:
            ConfigError: anything else.
        """
        if not isinstance(text, str):
            raise ConfigError(f"expected HOST:PORT as text, got {quoted(text)}", field="Endpoint")
        host, colon, port = text.rpartition(":")
        has_brackets = False
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            has_brackets = True
        if needs_brackets and has_brackets != (":" in host):
            raise ConfigError(f"brackets stand around an IPv6 address: {quoted(text)}", field="Endpoint")
        if not colon or not host or not port:
            raise ConfigError(f"expected HOST:PORT, got {quoted(text)}", field="Endpoint")
        number = _SERVICES.get(port)
        if number is None:
            number = foreign.decimal(port, foreign.MAX_PORT, least=1, what="the port", field="Endpoint")
        return cls(host, number)

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


# --- texts of a file -------------------------------------------------------------------------------------------------


def words(value: str) -> list[str]:
    """The parts of a list as wg-quick takes it: between commas and white space, any number of either."""
    return [word for word in _BLANKS.split(value) if word]


def changed_prefixes(value: str, owned: Iterable[Prefix]) -> list[Prefix]:
    """AllowedIPs behind those that were said before.

    `+` and `-` before a prefix add it and take it away, as in newer releases of wg(8); neither sign adds too.

    Raises:
        ConfigError: a part is no prefix, or is missing between two commas.
    """
    prefixes = list(owned)
    for part in value.split(","):
        if not part:
            raise ConfigError(f"nothing stands before or behind a comma in {quoted(value)}", field="AllowedIPs")
        prefix = Prefix.parse(part[1:] if part[0] in "+-" else part)
        if part[0] == "-":
            prefixes = [other for other in prefixes if other != prefix]
        else:
            prefixes.append(prefix)
    return prefixes


def parse_address(text: str) -> Address:
    """An address of the interface, with or without a length.

    Raises:
        ConfigError: something else.
    """
    try:
        address, slash, length = text.partition("/")
        if "%" in address:
            raise ValueError
        if slash:
            # Not a netmask, which ipaddress takes too.
            foreign.decimal(length, 128)
        return ipaddress.ip_interface(text)
    except ValueError:  # ConfigError is one
        raise ConfigError(f"expected ADDRESS/LENGTH, got {quoted(text)}", field="Address") from None


def parse_server(text: str) -> str:
    """The address of a name server.

    Raises:
        ConfigError: something else.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ConfigError(f"expected an address, got {quoted(text)}", field="DNS") from None


def parse_dns(value: str) -> tuple[list[str], list[str]]:
    """Name servers and search domains.

    Raises:
        ConfigError: what looks like an address is none.
    """
    servers, domains = [], []
    for word in words(value):
        if _LIKE_A_SERVER.fullmatch(word):
            servers.append(parse_server(word))
        else:
            domains.append(word)
    return servers, domains


def parse_mark(value: str) -> int:
    """FwMark: decimal, hexadecimal behind 0x, or off."""
    if value.lower() == "off":
        return 0
    if value.startswith("0x"):
        return foreign.hexadecimal(value[2:], _MAX_MARK, what="a mark")
    return foreign.decimal(value, _MAX_MARK, what="a mark")


def parse_port(value: str) -> int:
    """ListenPort: a number, 0 for any, or the name of a service."""
    number = _SERVICES.get(value)
    return foreign.decimal(value, foreign.MAX_PORT, what="a port") if number is None else number


def parse_keepalive(value: str) -> int:
    """PersistentKeepalive: seconds, or off."""
    return 0 if value.lower() == "off" else foreign.decimal(value, 65535, what="an interval in seconds")


def parse_mtu(value: object) -> int | None:
    """An MTU, as text or number; None and nothing choose one."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return foreign.decimal(value, _MAX_MTU, least=_MIN_MTU, what="an MTU", field="MTU")
    return foreign.whole(value, _MAX_MTU, least=_MIN_MTU, what="an MTU", field="MTU")


def parse_table(value: str) -> str:
    """A routing table: auto, off, a number or a name; nothing is auto."""
    if len(value.split()) > 1 or "#" in value:
        raise ConfigError(f"expected auto, off, a number or a name, got {quoted(value)}", field="Table")
    return value or "auto"


def parse_boolean(value: str) -> bool:
    """SaveConfig: true or false, in any case."""
    if value.lower() not in ("true", "false"):
        raise ConfigError(f"expected true or false, got {quoted(value)}")
    return value.lower() == "true"
