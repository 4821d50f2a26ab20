"""What an interface and its peers shall be: frozen values, checked once.

Names of hosts stay names here: whoever opens sockets resolves them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from wgpy import foreign
from wgpy.config.values import Address, Endpoint, Prefix, parse_address, parse_mtu, parse_server, parse_table, words
from wgpy.errors import ConfigError
from wgpy.foreign import quoted
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wgpy.ini import Document

__all__ = ["InterfaceConfig", "PeerConfig"]

_MAX_MARK = 2**32 - 1
T = TypeVar("T")


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
        public_key: PublicKey | str | bytes,
        *,
        allowed_ips: Iterable[Prefix | str] = (),
        endpoint: Endpoint | str | None = None,
        preshared_key: PresharedKey | str | bytes | None = None,
        persistent_keepalive: int = 0,
        pin_endpoint: bool = False,
    ) -> None:
        """Check and keep; text is read as in a configuration file.

        Raises:
            ConfigError: with the name of the field.
        """
        _set(
            self,
            public_key=PublicKey.of(public_key),
            allowed_ips=_each(allowed_ips, Prefix, Prefix.parse, "AllowedIPs"),
            endpoint=None if endpoint is None else _one(endpoint, Endpoint, Endpoint.parse, "Endpoint"),
            preshared_key=None if preshared_key is None else PresharedKey.of(preshared_key),
            persistent_keepalive=foreign.whole(
                persistent_keepalive, 65535, what="an interval", field="PersistentKeepalive"
            ),
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
        private_key: PrivateKey | str | bytes | None = None,
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
        peers = _each(peers, PeerConfig, None, "Peer")
        seen: set[PublicKey] = set()
        for number, peer in enumerate(peers, 1):
            if peer.public_key in seen:
                raise ConfigError(f"{peer.public_key!r} is an earlier peer too", field=f"Peer[{number}].PublicKey")
            seen.add(peer.public_key)
        _set(
            self,
            private_key=None if private_key is None else PrivateKey.of(private_key),
            listen_port=foreign.port(listen_port, least=0, field="ListenPort"),
            fwmark=foreign.whole(fwmark, _MAX_MARK, what="a mark", field="FwMark"),
            peers=peers,
            addresses=_each(addresses, (ipaddress.IPv4Interface, ipaddress.IPv6Interface), parse_address, "Address"),
            dns=_each(dns, (), parse_server, "DNS"),
            dns_search=_each(dns_search, (), _domain, "DNS"),
            mtu=parse_mtu(mtu),
            table=_one(table, (), parse_table, "Table"),
            pre_up=_each(pre_up, (), _command, "PreUp"),
            post_up=_each(post_up, (), _command, "PostUp"),
            pre_down=_each(pre_down, (), _command, "PreDown"),
            post_down=_each(post_down, (), _command, "PostDown"),
            save_config=bool(save_config),
            _document=_document,
        )

    @classmethod
    def from_ini(cls, text: str | bytes) -> InterfaceConfig:
        """Read a `wg` or `wg-quick` configuration file.

        Args:
            text: of the file. As octets nothing of it is lost: a text that was read with Python's `read_text` has had
                its CRLF changed, and must be UTF-8 in its comments too.

        Raises:
            ConfigError: with field, line and column.
        """
        from wgpy.config.file import read

        return read(text).config

    def to_ini(self) -> str:
        r"""A `wg-quick` configuration file. What was read from a file comes back as it was, but for later changes.

        `to_ini().encode(errors="surrogateescape")` are the octets of the file, and so they go where that is not UTF-8.

        Example:
            >>> import dataclasses
            >>> old = wgpy.InterfaceConfig.from_ini("# home\n[Interface]\nListenPort = 1\n")
            >>> print(dataclasses.replace(old, listen_port=2).to_ini(), end="")
            # home
            [Interface]
            ListenPort = 2
        """
        from wgpy.config.file import write

        return write(self, self._document)

    @classmethod
    def from_json(cls, text: str) -> InterfaceConfig:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: not JSON, unknown names, wrong values.
        """
        from wgpy.config.jsonform import from_json

        return from_json(text)

    def to_json(self) -> str:
        """The same as JSON, secrets included, for programs."""
        from wgpy.config.jsonform import to_json

        return to_json(self)


def _set(value: object, **fields: object) -> None:
    for name, content in fields.items():
        object.__setattr__(value, name, content)


def _one(value: Any, kinds: Any, parse: Callable[[str], T] | None, path: str) -> T:
    """A value that is already what it must be, or its text."""
    try:
        if isinstance(value, kinds):
            return value  # type: ignore[no-any-return]
        if parse is None or not isinstance(value, str):
            raise ConfigError(f"{type(value).__name__} is no such value: {quoted(value)}")
        return parse(value)
    except ConfigError as error:
        raise ConfigError(error.message, field=path) from None


def _each(values: Iterable[Any], kinds: Any, parse: Callable[[str], T] | None, path: str) -> tuple[T, ...]:
    if isinstance(values, str | bytes):
        raise ConfigError("expected a list of values, got one text", field=path)
    return tuple(_one(value, kinds, parse, path) for value in values)


def _domain(text: str) -> str:
    if words(text) != [text] or "#" in text:
        raise ConfigError(f"a search domain is one word, got {quoted(text)}")
    return text


def _command(text: str) -> str:
    """A line that wg-quick hands to a shell; what it cannot say cannot stand in a file."""
    if "#" in text or "\n" in text or "\0" in text or text != text.strip(" \t\v\f\r"):
        raise ConfigError(
            "a command is one line, without # (wg-quick takes it for a comment), without blanks around it"
        )
    return text
