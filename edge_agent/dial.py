"""The one place that opens TCP connections of the pod: to the API server, and to the hub, by a proxy if there is one.

    dial -> socket that notices a dead peer -> (CONNECT through the proxy) -> (TLS) -> stream

A peer that dies without a word, by a power cut or a firewall that forgot the connection, is noticed within 14 seconds:
an idle connection by the kernel's keepalive, one with something on its way by TCP_USER_TIMEOUT.
"""

from __future__ import annotations

import base64
import errno
import ipaddress
import os
import socket
import ssl
import urllib.parse
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import h11
import trio

from edge_agent.tls import TlsStream, client_context

__all__ = [
    "DEAD_AFTER",
    "Origin",
    "Proxy",
    "bypasses",
    "cause_of",
    "dial",
    "dial_from",
    "open_stream",
    "proxy_of",
    "watch_over",
]

_IDLE, _INTERVAL, _PROBES = 5, 3, 3
# Seconds after which a silent peer counts as gone, whether something was sent to it or not.
DEAD_AFTER: Final = _IDLE + _INTERVAL * _PROBES
_PROXY_HEAD: Final = 16384

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Origin(NamedTuple):
    """Whom to dial."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    @property
    def authority(self) -> str:
        """For the Host field."""
        return self.place if self.port != (443 if self.tls else 80) else self.place.rpartition(":")[0]

    @property
    def place(self) -> str:
        """Host and port, always both."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# --- sockets ---------------------------------------------------------------------------------------------------------


async def dial(host: str, port: int) -> trio.SocketStream:
    """Connect; the socket notices a peer that is gone.

    Raises:
        OSError: with an errno, gaierror for a name without address.
    """
    return _watched(await trio.open_tcp_stream(host, port))


async def dial_from(address: str, host: str, port: int, *, bound: Callable[[int], None]) -> trio.SocketStream:
    """Connect from an address of ours to one of IPv4.

    Args:
        address: ours.
        host: an address.
        port: of it.
        bound: told our port before anything is sent from it.

    Raises:
        OSError: with an errno.
    """
    one = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        await one.bind((address, 0))
        bound(one.getsockname()[1])
        await one.connect((host, port))
    except BaseException:
        one.close()
        raise
    return _watched(trio.SocketStream(one))


def _watched(stream: trio.SocketStream) -> trio.SocketStream:
    watch_over(stream.socket)
    # Something that is sent and never acknowledged would be tried again for a quarter of an hour.
    stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER * 1000)
    return stream


def watch_over(one: trio.socket.SocketType) -> None:
    """Let the kernel ask an idle peer whether it is still there; small pieces leave at once."""
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, _IDLE),
        (socket.TCP_KEEPINTVL, _INTERVAL),
        (socket.TCP_KEEPCNT, _PROBES),
    ):
        one.setsockopt(socket.IPPROTO_TCP, option, value)


async def open_stream(origin: Origin, proxy: Proxy | None = None) -> tuple[trio.abc.Stream, trio.SocketStream]:
    """A stream to an origin, and the socket below it.

    Raises:
        OSError: with an errno, gaierror for a name without address, SSLError for what TLS refused, ProxyRefused for
            what the proxy did.
    """
    raw = await dial(proxy.origin.host, proxy.origin.port) if proxy else await dial(origin.host, origin.port)
    stream: trio.abc.Stream = raw
    try:
        if proxy is not None:
            if proxy.origin.tls is not None:
                stream = await _shake_hands(stream, proxy.origin)
            await _connect(stream, origin, proxy)
        if origin.tls is not None:
            stream = await _shake_hands(stream, origin)
    except BaseException as problem:
        with trio.CancelScope(shield=True, deadline=0):
            await trio.aclose_forcefully(raw)
        if isinstance(problem, trio.BrokenResourceError):
            raise cause_of(problem) from None  # it is in there already: another link would make a ring
        raise
    return stream, raw


async def _shake_hands(stream: trio.abc.Stream, origin: Origin) -> TlsStream:
    assert origin.tls is not None
    tls = TlsStream(stream, origin.tls, origin.host)
    await tls.do_handshake()
    return tls


# --- proxies ---------------------------------------------------------------------------------------------------------


class Proxy(NamedTuple):
    """An HTTP proxy that is asked to CONNECT.

    Attributes:
        origin: of the proxy itself; with TLS for an https:// one.
        credentials: of the field Proxy-Authorization, None without any; secret.
    """

    origin: Origin
    credentials: bytes | None

    def __repr__(self) -> str:
        """Where it is, and nothing of its password."""
        return f"<Proxy {self.origin.place}>"


class ProxyRefused(OSError):
    """The proxy answered, and does not let us through."""


def proxy_of(url: str) -> Proxy | None:
    """Read the value of HTTPS_PROXY.

    Raises:
        ValueError: says what is wrong, and nothing of a password.
    """
    if not url:
        return None
    parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"a proxy has the form http://host:port or https://host:port, not {parts.scheme}://")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if not parts.hostname or port == 0:
        raise ValueError("a proxy has the form http://host:port: its host or port is missing or wrong")
    is_tls = parts.scheme == "https"
    credentials = None
    if parts.username is not None:
        user, password = (urllib.parse.unquote(one or "") for one in (parts.username, parts.password))
        credentials = b"Basic " + base64.b64encode(f"{user}:{password}".encode())
    origin = Origin(parts.hostname, port or (443 if is_tls else 80), client_context(None) if is_tls else None)
    return Proxy(origin, credentials)


def bypasses(no_proxy: str, host: str, port: int) -> bool:
    """Whether NO_PROXY names a host: `*`, a name and all below it, an address, a network, each with or without a port.

    Loopback is never asked for through a proxy. Source: golang.org/x/net/http/httpproxy, which kubectl and helm use.
    """
    host = host.lower().rstrip(".")
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_names(entry.strip(), host, address, port) for entry in no_proxy.lower().split(","))


def _names(entry: str, host: str, address: _Address | None, port: int) -> bool:
    """Whether one entry of NO_PROXY names a host."""
    if entry == "*":
        return True
    if entry.count(":") == 1 or "]:" in entry:
        entry, _, wanted = entry.rpartition(":")
        if wanted != str(port):
            return False
    entry = entry.strip("[]")
    if address is None:
        # `name` means itself and all below it, `.name` and `*.name` only those.
        below = entry.removeprefix("*")
        return bool(below.strip(".")) and (host == entry or host.endswith("." + below.lstrip(".")))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _address(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


async def _connect(stream: trio.abc.Stream, origin: Origin, proxy: Proxy) -> None:
    """Ask the proxy for a way to the origin (RFC 9110 section 9.3.6)."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_PROXY_HEAD)
    fields = [(b"host", origin.place.encode()), (b"user-agent", b"daalu-edge")]
    if proxy.credentials is not None:
        fields.append((b"proxy-authorization", proxy.credentials))
    request = h11.Request(method=b"CONNECT", target=origin.place.encode(), headers=fields)
    await stream.send_all((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    try:
        while not isinstance(event := http.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                # Not one octet more than the head: what follows belongs to the origin. Before we speak, it is silent.
                http.receive_data(bytes(await stream.receive_some(_PROXY_HEAD)))
            elif not isinstance(event, h11.InformationalResponse):
                raise ProxyRefused(errno.ECONNRESET, f"the proxy {proxy.origin.place} hung up")
    except h11.RemoteProtocolError:
        raise ProxyRefused(errno.EPROTO, f"the proxy {proxy.origin.place} does not speak HTTP") from None
    if not 200 <= event.status_code < 300:
        hint = {407: "it wants a name and a password, as in http://name:password@host:port", 403: "it forbids this"}
        why = hint.get(event.status_code, "it cannot or will not")
        raise ProxyRefused(
            errno.ECONNREFUSED,
            f"the proxy {proxy.origin.place} opens no way to {origin.place}: status {event.status_code}, {why}",
        )


# --- errors ----------------------------------------------------------------------------------------------------------


def cause_of(problem: BaseException) -> OSError:
    """The OSError behind what trio and h11 say, with an errno where there is one.

    An SSLError stays what it is, and so does a gaierror: who asks wants to tell them apart. What is no HTTP is EPROTO.
    """
    seen: BaseException | None = problem
    best: OSError | None = None
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
            continue
        if isinstance(seen, OSError) and (best is None or best.errno is None):
            best = seen
        seen = seen.__cause__
    if best is not None:
        return best
    if isinstance(problem, trio.TooSlowError):
        return OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    if isinstance(problem, h11.ProtocolError):
        return OSError(errno.EPROTO, str(problem) or os.strerror(errno.EPROTO))
    return OSError(errno.ECONNRESET, str(problem) or os.strerror(errno.ECONNRESET))
