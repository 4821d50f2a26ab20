"""The text that `wg` speaks with a userspace device: requests to operations, state to answers. Pure text, no socket.

A request is `get=1` or `set=1`, lines of `key=value`, and an empty line. It is read and checked as a whole before
anything is
changed: a request with one wrong value changes nothing.

Source: https://www.wireguard.com/xplatform/, Configuration Protocol.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from wgpy.config import Endpoint, Prefix
from wgpy.errors import ConfigError
from wgpy.foreign import decimal, quoted
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "BadRequest",
    "DeviceState",
    "DeviceUpdate",
    "GetRequest",
    "PeerState",
    "PeerUpdate",
    "Request",
    "RequestReader",
    "format_errno",
    "format_state",
    "format_update",
    "parse_state",
]

MAX_LINE: Final = 65536
MAX_REQUEST: Final = 64 * 2**20

_HEX_KEY: Final = re.compile(rb"[0-9a-fA-F]{64}")
_DECIMAL: Final = re.compile(rb"[0-9]{1,20}")
_PROTO: Final = getattr(errno, "EPROTO", 71)
_ZERO: Final = bytes(32)
_LARGEST: Final = 2**64 - 1


# --- operations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerUpdate:
    """What one block of a `set` request changes. None and empty mean: leave as it is.

    Attributes:
        public_key: which peer; created if there is none.
        update_only: do not create it.
        remove: forget it; nothing else of the block counts then.
        preshared_key: all zero clears it.
        endpoint: a numeric address.
        persistent_keepalive: seconds, 0 switches it off.
        replace_allowed_ips: take all prefixes away first.
        allowed_ips: in order: True gives the prefix to the peer, False takes it away.
    """

    public_key: PublicKey
    update_only: bool = False
    remove: bool = False
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: Sequence[tuple[bool, Prefix]] = ()


@dataclass(frozen=True, slots=True)
class DeviceUpdate:
    """What a `set` request changes. None means: leave as it is.

    Attributes:
        private_key: become this one.
        clear_private_key: have none.
        listen_port: 0 for any.
        fwmark: 0 for none.
        replace_peers: forget all peers first.
        peers: in order.
    """

    private_key: PrivateKey | None = None
    clear_private_key: bool = False
    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: Sequence[PeerUpdate] = ()


@dataclass(frozen=True, slots=True)
class GetRequest:
    """`get=1`."""


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A request that cannot be followed.

    Attributes:
        errno: positive, for the answer.
        is_set: whether it was a `set`: then the answer carries the negative.
        reason: for the log.
        closes: the connection cannot go on after the answer.
        is_silent: not even an answer is due.
    """

    errno: int
    is_set: bool
    reason: str
    closes: bool = False
    is_silent: bool = False


Request: TypeAlias = GetRequest | DeviceUpdate | BadRequest


# --- state -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerState:
    """One peer as `get` shows it.

    Attributes:
        public_key: its name.
        preshared_key: all zero for none.
        endpoint: where it was seen last, None if unknown.
        last_handshake_time: Unix seconds, 0 if never. Not an age.
        tx_bytes: sent to it.
        rx_bytes: received from it.
        persistent_keepalive: seconds, 0 for off.
        allowed_ips: in order of insertion.
    """

    public_key: PublicKey
    preshared_key: PresharedKey
    endpoint: Endpoint | None
    last_handshake_time: float
    tx_bytes: int
    rx_bytes: int
    persistent_keepalive: int
    allowed_ips: Sequence[Prefix]


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device as `get` shows it.

    Attributes:
        private_key: clamped, None if cleared.
        listen_port: as bound, 0 if not.
        fwmark: 0 for none.
        peers: in order of creation.
    """

    private_key: PrivateKey | None
    listen_port: int
    fwmark: int
    peers: Sequence[PeerState]


def format_update(update: DeviceUpdate) -> bytes:
    """A `set` request that changes what the update changes."""
    lines = ["set=1\n"]
    if update.clear_private_key or update.private_key is not None:
        lines.append(f"private_key={(bytes(update.private_key) if update.private_key is not None else _ZERO).hex()}\n")
    if update.listen_port is not None:
        lines.append(f"listen_port={update.listen_port}\n")
    if update.fwmark is not None:
        lines.append(f"fwmark={update.fwmark}\n")
    if update.replace_peers:
        lines.append("replace_peers=true\n")
    for peer in update.peers:
        lines.append(f"public_key={bytes(peer.public_key).hex()}\n")
        if peer.update_only:
            lines.append("update_only=true\n")
        if peer.remove:
            lines.append("remove=true\n")
        if peer.preshared_key is not None:
            lines.append(f"preshared_key={bytes(peer.preshared_key).hex()}\n")
        if peer.endpoint is not None:
            lines.append(f"endpoint={peer.endpoint}\n")
        if peer.persistent_keepalive is not None:
            lines.append(f"persistent_keepalive_interval={peer.persistent_keepalive}\n")
        if peer.replace_allowed_ips:
            lines.append("replace_allowed_ips=true\n")
        lines += [f"allowed_ip={'' if is_added else '-'}{prefix}\n" for is_added, prefix in peer.allowed_ips]
    lines.append("\n")
    return "".join(lines).encode()


def format_state(state: DeviceState) -> Iterator[bytes]:
    """The answer to `get`, peer by peer, with its closing `errno=0`."""
    lines: list[str] = []
    if state.private_key is not None:
        lines.append(f"private_key={bytes(state.private_key).hex()}\n")
    if state.listen_port:
        lines.append(f"listen_port={state.listen_port}\n")
    if state.fwmark:
        lines.append(f"fwmark={state.fwmark}\n")
    for peer in state.peers:
        lines.append(f"public_key={bytes(peer.public_key).hex()}\n")
        lines.append(f"preshared_key={bytes(peer.preshared_key).hex()}\n")
        lines.append("protocol_version=1\n")
        if peer.endpoint is not None:
            lines.append(f"endpoint={peer.endpoint}\n")
        # Apart: as nanoseconds since 1970 it would no longer be exact.
        seconds, fraction = divmod(peer.last_handshake_time, 1)
        lines.append(f"last_handshake_time_sec={int(seconds)}\nlast_handshake_time_nsec={int(fraction * 1e9)}\n")
        lines.append(f"tx_bytes={peer.tx_bytes}\nrx_bytes={peer.rx_bytes}\n")
        lines.append(f"persistent_keepalive_interval={peer.persistent_keepalive}\n")
        lines += [f"allowed_ip={prefix}\n" for prefix in peer.allowed_ips]
        yield "".join(lines).encode()
        lines = []
    lines.append("errno=0\n\n")
    yield "".join(lines).encode()


def parse_state(answer: bytes) -> DeviceState:
    """Read the answer to `get`, from any implementation: what we do not know is passed over.

    Args:
        answer: everything up to and including the empty line.

    Raises:
        ConfigError: it is no such answer, or says that `get` failed.
    """
    device: dict[str, str] = {}
    peers: list[tuple[dict[str, str], list[str]]] = []
    number = ""
    for line in answer.decode(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key == "public_key":
            peers.append(({"public_key": value}, []))
        elif key == "errno":
            number = value
        elif key == "allowed_ip" and peers:
            peers[-1][1].append(value)
        else:
            (peers[-1][0] if peers else device)[key] = value
    if number != "0":
        raise ConfigError(f"the daemon answered errno={number or 'nothing'}")
    try:
        private_key = bytes.fromhex(device.get("private_key", ""))
        return DeviceState(
            private_key=PrivateKey(private_key) if any(private_key) else None,
            listen_port=decimal(device.get("listen_port", "0"), 65535),
            fwmark=decimal(device.get("fwmark", "0"), 2**32 - 1),
            peers=[_parse_peer(values, prefixes) for values, prefixes in peers],
        )
    except ValueError as problem:  # ConfigError is one too
        raise ConfigError(f"the daemon's answer cannot be read: {problem}") from None


def _parse_peer(values: dict[str, str], prefixes: list[str]) -> PeerState:
    seconds, nanoseconds = (
        decimal(values.get(f"last_handshake_time_{unit}", "0"), _LARGEST) for unit in ("sec", "nsec")
    )
    return PeerState(
        public_key=PublicKey(bytes.fromhex(values["public_key"])),
        preshared_key=PresharedKey(bytes.fromhex(values.get("preshared_key", "")) or bytes(32)),
        endpoint=Endpoint.parse(values["endpoint"]) if "endpoint" in values else None,
        last_handshake_time=seconds + nanoseconds / 1e9,
        tx_bytes=decimal(values.get("tx_bytes", "0"), _LARGEST),
        rx_bytes=decimal(values.get("rx_bytes", "0"), _LARGEST),
        persistent_keepalive=decimal(values.get("persistent_keepalive_interval", "0"), 65535),
        allowed_ips=[Prefix.parse(prefix) for prefix in prefixes],
    )


def format_errno(number: int, *, is_set: bool) -> bytes:
    """The end of an answer.

    The sign differs: `wg` negates what it reads after a `set`, and takes digits only after a `get`.
    """
    return f"errno={-number if is_set else number}\n\n".encode()


# --- requests --------------------------------------------------------------------------------------------------------


class _Wrong(Exception):
    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number
        self.reason = reason


def _invalid(reason: str) -> _Wrong:
    return _Wrong(errno.EINVAL, reason)


class RequestReader:
    """Octets of one connection in, requests out, in order; any number of them, cut anywhere."""

    __slots__ = ("_buffer", "_device", "_is_closed", "_kind", "_peer", "_seen", "_size", "_wrong")

    def __init__(self) -> None:
        """Start between two requests."""
        self._buffer = b""
        self._is_closed = False
        self._start_over()

    def _start_over(self) -> None:
        self._kind: bytes | None = None
        self._size = 0
        self._wrong: _Wrong | None = None
        self._device = _DeviceBlock()
        self._peer: _PeerBlock | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the connection stands between two requests."""
        return self._kind is None and not self._buffer

    def feed(self, octets: bytes) -> list[Request]:
        """Take what arrived.

        Returns:
            The requests that are complete now. Nothing is read after one that closes the connection.
        """
        requests: list[Request] = []
        if self._is_closed:
            return requests
        lines = (self._buffer + octets).split(b"\n") if self._buffer else octets.split(b"\n")
        self._buffer = lines.pop()
        for line in lines:
            request = self._take_line(line)
            if request is not None:
                requests.append(request)
            if self._is_closed:
                return requests
        if len(self._buffer) > MAX_LINE or self._size + len(self._buffer) > MAX_REQUEST:
            requests.append(self._close("a line or request is too long"))
        elif self._kind == b"get=1" and self._buffer:
            # No need to wait for the end of a line that must be empty.
            requests.append(self._refuse_get())
        return requests

    def _take_line(self, line: bytes) -> Request | None:
        if self._kind is None:
            if line in (b"get=1", b"set=1"):
                self._kind = line
                return None
            self._is_closed = True
            return BadRequest(errno.EINVAL, False, "neither get=1 nor set=1", closes=True, is_silent=True)
        if self._kind == b"get=1":
            if line:
                return self._refuse_get()
            self._start_over()
            return GetRequest()
        self._size += len(line) + 1
        if len(line) > MAX_LINE or self._size > MAX_REQUEST:
            return self._close("a line or request is too long")
        if line:
            if self._wrong is None:
                try:
                    self._take_pair(line)
                except _Wrong as error:
                    self._wrong = error
                except ConfigError as error:
                    self._wrong = _invalid(str(error))
            return None
        wrong, device, peer = self._wrong, self._device, self._peer
        self._start_over()
        if wrong is not None:
            return BadRequest(wrong.number, True, wrong.reason)
        if peer is not None:
            device.peers.append(peer.update())
        return device.update()

    def _refuse_get(self) -> BadRequest:
        # What follows cannot be told from the start of another request.
        self._is_closed = True
        return BadRequest(errno.EINVAL, False, "something other than an empty line after get=1", closes=True)

    def _close(self, reason: str) -> BadRequest:
        self._is_closed = True
        is_set = self._kind != b"get=1"
        return BadRequest(errno.EIO, is_set, reason, closes=True, is_silent=self._kind is None)

    def _take_pair(self, line: bytes) -> None:
        key, equals, value = line.partition(b"=")
        if not equals:
            raise _Wrong(_PROTO, "a line without =")
        if key == b"public_key":
            if self._peer is not None:
                self._device.peers.append(self._peer.update())
            self._peer = _PeerBlock(PublicKey(_key(value)))
        elif self._peer is None:
            self._device.take(key, value)
        else:
            self._peer.take(key, value)


class _DeviceBlock:
    __slots__ = ("clear_private_key", "fwmark", "listen_port", "peers", "private_key", "replace_peers")

    def __init__(self) -> None:
        self.private_key: PrivateKey | None = None
        self.clear_private_key = False
        self.listen_port: int | None = None
        self.fwmark: int | None = None
        self.replace_peers = False
        self.peers: list[PeerUpdate] = []

    def take(self, key: bytes, value: bytes) -> None:
        match key:
            case b"private_key":
                octets = _key(value)
                self.clear_private_key = octets == _ZERO
                self.private_key = None if self.clear_private_key else PrivateKey(octets)
            case b"listen_port":
                self.listen_port = _number(value, 65535)
            case b"fwmark":
                self.fwmark = _number(value, 2**32 - 1)
            case b"replace_peers":
                self.replace_peers = _true(value)
            case _:
                raise _invalid(f"unknown device key {quoted(key)}")

    def update(self) -> DeviceUpdate:
        return DeviceUpdate(
            private_key=self.private_key,
            clear_private_key=self.clear_private_key,
            listen_port=self.listen_port,
            fwmark=self.fwmark,
            replace_peers=self.replace_peers,
            peers=self.peers,
        )


class _PeerBlock:
    __slots__ = (
        "allowed_ips", "endpoint", "persistent_keepalive", "preshared_key", "public_key", "remove",
        "replace_allowed_ips", "update_only",
    )  # fmt: skip

    def __init__(self, public_key: PublicKey) -> None:
        self.public_key = public_key
        self.update_only = False
        self.remove = False
        self.preshared_key: PresharedKey | None = None
        self.endpoint: Endpoint | None = None
        self.persistent_keepalive: int | None = None
        self.replace_allowed_ips = False
        self.allowed_ips: list[tuple[bool, Prefix]] = []

    def take(self, key: bytes, value: bytes) -> None:
        match key:
            case b"allowed_ip":
                is_added = value[:1] != b"-"
                prefix = Prefix.parse(_text(value if is_added else value[1:]), needs_length=True)
                self.allowed_ips.append((is_added, prefix))
            case b"update_only":
                self.update_only = _true(value)
            case b"remove":
                self.remove = _true(value)
            case b"preshared_key":
                self.preshared_key = PresharedKey(_key(value))
            case b"endpoint":
                self.endpoint = Endpoint.parse(_text(value), needs_brackets=True)
                if self.endpoint.is_name:
                    raise _invalid("an endpoint is an address here, not a name")
            case b"persistent_keepalive_interval":
                self.persistent_keepalive = _number(value, 65535)
            case b"replace_allowed_ips":
                self.replace_allowed_ips = _true(value)
            case b"protocol_version":
                if value != b"1":
                    raise _invalid("protocol_version is 1")
            case _:
                raise _invalid(f"unknown peer key {quoted(key)}")

    def update(self) -> PeerUpdate:
        return PeerUpdate(
            public_key=self.public_key,
            update_only=self.update_only,
            remove=self.remove,
            preshared_key=self.preshared_key,
            endpoint=self.endpoint,
            persistent_keepalive=self.persistent_keepalive,
            replace_allowed_ips=self.replace_allowed_ips,
            allowed_ips=self.allowed_ips,
        )


def _key(value: bytes) -> bytes:
    # bytes.fromhex would skip spaces. The value may be secret: never quote it.
    if not _HEX_KEY.fullmatch(value):
        raise _invalid("a key is 64 hexadecimal digits")
    return bytes.fromhex(value.decode())


def _number(value: bytes, largest: int) -> int:
    if not _DECIMAL.fullmatch(value):
        raise _invalid(f"expected a number from 0 to {largest}, got {quoted(value)}")
    return decimal(value.decode(), largest)


def _true(value: bytes) -> bool:
    if value != b"true":
        raise _invalid(f"only true is allowed, got {quoted(value)}")
    return True


def _text(value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise _invalid("octets outside ASCII") from None
