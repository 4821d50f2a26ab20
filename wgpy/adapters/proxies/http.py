"""HTTP proxy: CONNECT, and plain requests for `http://` addresses; Basic credentials where the gate asks for them.

    CONNECT host:port HTTP/1.1        -> 200, then octets both ways
    GET http://host/path HTTP/1.1     -> GET /path HTTP/1.1 to host, see `exchange`

A client may ask for many plain requests over one connection, and each goes where it says, with a connection of its own.
Credentials are looked at each time. Hop-by-hop fields stay here.

Source: RFC 9110 sections 7.6.1, 9.3.6 and 11.7; RFC 9112 sections 3.2.2 and 3.2.3.
"""

from __future__ import annotations

import base64
import binascii
import re
import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import trio

from wgpy.adapters.net import DIAL_ERRORS, abort
from wgpy.adapters.proxies.exchange import Request, exchange, without_hops
from wgpy.adapters.proxies.gate import Refused
from wgpy.adapters.proxies.reading import BufferedStream

if TYPE_CHECKING:
    from wgpy.adapters.net import Address, Net
    from wgpy.adapters.proxies.gate import Gate

__all__ = ["serve_client"]

_LARGEST_HEAD: Final = 65536
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Seconds that a client may take to its next request.
_KEPT_ALIVE: Final = 75.0


@dataclass(frozen=True, slots=True)
class _Head:
    """Request line and fields, the names of fields in lower case."""

    method: bytes
    target: bytes
    version: bytes
    fields: list[tuple[bytes, bytes]]

    def field(self, name: bytes) -> bytes:
        return next((value for key, value in self.fields if key.lower() == name), b"")


async def serve_client(stream: Any, net: Net, gate: Gate) -> None:
    """Speak with one client until it has gone.

    Raises:
        Refused: it was turned away.
    """
    client = BufferedStream(stream)
    with gate.greeting():
        head = await _read_head(client, gate)
    while await _serve_request(client, head, net, gate):
        with trio.move_on_after(_KEPT_ALIVE) as waiting:
            head = await _read_head(client, gate)
        if waiting.cancelled_caught:
            return


async def _read_head(client: BufferedStream, gate: Gate) -> _Head:
    text = await client.read_until(b"\r\n\r\n", _LARGEST_HEAD)
    if text is None:
        await _answer(client, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of the request is too long")
        raise Refused("malformed")
    head = _decode(text)
    if head is None:
        await _answer(client, HTTPStatus.BAD_REQUEST, "this is no HTTP/1.1 request")
        raise Refused("malformed")
    if not _is_welcome(head, gate):
        await _answer(
            *(client, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, "user and password, please"),
            more='Proxy-Authenticate: Basic realm="wgpy", charset="UTF-8"\r\n',
        )
        raise Refused("not authenticated")
    return head


async def _serve_request(client: BufferedStream, head: _Head, net: Net, gate: Gate) -> bool:
    """Carry one request out; whether there may be another."""
    is_connect = head.method == b"CONNECT"
    target = _authority(head.target.decode("latin-1")) if is_connect else _origin(head.target.decode("latin-1"))
    if target is None:
        wanted = "CONNECT HOST:PORT" if is_connect else "an absolute http:// address: this is a proxy"
        await _answer(client, HTTPStatus.BAD_REQUEST, f"expected {wanted}")
        raise Refused("malformed")
    try:
        inside = await net.open_tcp_stream(*target)
    except DIAL_ERRORS as problem:
        error = gate.failed(problem)
        status = HTTPStatus.GATEWAY_TIMEOUT if isinstance(error, TimeoutError) else HTTPStatus.BAD_GATEWAY
        what = "no such name" if isinstance(error, socket.gaierror) else "cannot connect"
        await _answer(client, status, f"{what}: {target[0]} port {target[1]}: {error.strerror or error}")
        return False
    if not is_connect:
        return await exchange(client, inside, _forwarded(head), gate, _answer)
    try:
        await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
    except BaseException:
        await abort(inside)
        raise
    await gate.relay(client, inside)
    return False


def _decode(text: bytes) -> _Head | None:
    lines = text[:-4].lstrip(b"\r\n").split(b"\r\n")
    words = lines[0].split(b" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return None
    fields = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        # RFC 9112 5.1: no space before the colon; 5.2: no folded lines. A lone CR or LF would be read in two ways.
        if not colon or not _TOKEN.fullmatch(name) or b"\r" in value or b"\n" in value or b"\0" in value:
            return None
        fields.append((name, value.strip(b" \t")))
    return _Head(words[0], words[1], words[2], fields)


def _is_welcome(head: _Head, gate: Gate) -> bool:
    if gate.credentials is None:
        return True
    scheme, _, encoded = head.field(b"proxy-authorization").partition(b" ")
    try:
        user, _, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except binascii.Error:
        return False
    return scheme.lower() == b"basic" and gate.credentials.match(user, password)


def _authority(text: str, *, default_port: int | None = None) -> Address | None:
    """HOST:PORT or [ADDRESS]:PORT; None for anything else."""
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port or default_port
    except ValueError:
        return None
    if not parts.hostname or not port or parts.path or parts.query or parts.fragment or "@" in text:
        return None
    return parts.hostname, port


def _origin(target: str) -> Address | None:
    scheme, colon, rest = target.partition("://")
    if not colon or scheme.lower() != "http":
        return None
    return _authority(re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2], default_port=80)


def _forwarded(head: _Head) -> Request:
    """The request as its origin server gets it."""
    rest = head.target.partition(b"://")[2]
    at = min((place for place in (rest.find(b"/"), rest.find(b"?")) if place >= 0), default=len(rest))
    authority, path = rest[:at].rpartition(b"@")[2], rest[at:]
    if not path.startswith(b"/"):
        path = b"/" + path
    named, kept = without_hops(head.fields)
    # RFC 9112 3.2.2: the address of the request line decides, whatever Host said.
    fields = [(b"Host", authority), *((name, value) for name, value in kept if name.lower() != b"host")]
    return Request(head.method, path, head.version, fields, is_last=b"close" in named)


async def _answer(client: BufferedStream, status: HTTPStatus, text: str, *, more: str = "") -> None:
    body = f"wgpy proxy: {text}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    )
    await client.send_all(head.encode() + body)
