"""The head of a request as h11 read it -> an ASGI scope, or a refusal. RFC 9112, by its stricter choices.

What an intermediary could read otherwise than we do is refused rather than guessed at: two framings at once, two hosts,
a target that is none of the four forms.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

import h11

from hub_server.http.limits import HEAD, TARGET

__all__ = ["Head", "Refused", "read_head_untrusted", "scope_of", "wants_websocket_untrusted", "without_quotes"]

_HOST: Final = re.compile(rb"(?:[0-9A-Za-z._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_NUL: Final = re.compile(rb"%00")
_VERSION: Final = ((b"sec-websocket-version", b"13"), (b"upgrade", b"websocket"), (b"connection", b"upgrade"))
_ALLOW: Final = (b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")


# h11 quotes what it was sent, which may be a secret: what it says about it comes before.
_QUOTED: Final = re.compile(r": |\(|bytearray|b['\"]")


def without_quotes(problem: h11.ProtocolError) -> str:
    """What h11 says, without the octets it says it about."""
    return _QUOTED.split(str(problem), maxsplit=1)[0].strip() or "it is malformed"


class Refused(Exception):
    """A request that no application sees."""

    def __init__(self, status: int, detail: str, *fields: tuple[bytes, bytes]) -> None:
        """Say with which status, why, and with which fields."""
        super().__init__(detail)
        self.status, self.detail, self.fields = status, detail, fields


@dataclass(frozen=True, slots=True)
class Head:
    """What a request asks for.

    Attributes:
        method: as it was sent.
        path: raw, without the query.
        query: raw.
        fields: names in lower case; the host is that of the target where it has one.
        version: 1.0 or 1.1.
    """

    method: str
    path: bytes
    query: bytes
    fields: list[tuple[bytes, bytes]] = field(repr=False)
    version: str


def read_head_untrusted(request: h11.Request) -> Head:
    """Check what h11 leaves open.

    Raises:
        Refused: the request is not served.
    """
    major, _, minor = request.http_version.partition(b".")
    if major != b"1":
        raise Refused(505, "this server speaks HTTP/1.1 only")
    fields = [(bytes(name), bytes(value)) for name, value in request.headers]
    names = [name for name, _ in fields]
    if b"transfer-encoding" in names and (b"content-length" in names or minor == b"0"):
        # RFC 9112 section 6.1: an intermediary that knows only one of the two sees another request than we do.
        raise Refused(400, "Transfer-Encoding cannot stand beside Content-Length, nor in HTTP/1.0")
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (hosts and not _HOST.fullmatch(hosts[0])):
        raise Refused(400, "the Host field is not one host")
    if sum(len(name) + len(value) + 4 for name, value in fields) > HEAD:
        raise Refused(431, f"the fields of a request have at most {HEAD} octets")
    if len(request.target) > TARGET:
        raise Refused(414, f"a request target has at most {TARGET} octets")
    path, query, host = _target_untrusted(bytes(request.method), bytes(request.target))
    if host is not None:
        fields = [(b"host", host), *((name, value) for name, value in fields if name != b"host")]
    return Head(request.method.decode("ascii"), path, query, fields, f"1.{'0' if minor == b'0' else '1'}")


def _target_untrusted(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Path, query, and the host of an absolute form (RFC 9112 section 3.2)."""
    if method == b"CONNECT":
        raise Refused(501, "this is no proxy")
    if target == b"*":
        raise Refused(204, "", _ALLOW) if method == b"OPTIONS" else Refused(400, "the target * is for OPTIONS")
    host = None
    if absolute := _ABSOLUTE.fullmatch(target):
        host, target = absolute[1], absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
        if not host or not _HOST.fullmatch(host):
            raise Refused(400, "the target names no host")
    path, _, query = target.partition(b"?")
    if not path.startswith(b"/") or b"#" in target or _NUL.search(path):
        raise Refused(400, "the request target is no path")
    return path, query, host


def wants_websocket_untrusted(head: Head) -> bool:
    """Whether the request is the opening of a WebSocket (RFC 6455 section 4.2.1); any other upgrade is ignored.

    Raises:
        Refused: it is one that is wrong.
    """
    fields = dict(head.fields)
    if head.version == "1.0" or b"upgrade" not in _words(head, b"connection"):
        return False
    if b"websocket" not in _words(head, b"upgrade"):
        return False
    if fields.get(b"sec-websocket-version", b"").strip() != b"13":
        raise Refused(426, "WebSocket of version 13 only", *_VERSION)
    if head.method != "GET" or b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0":
        raise Refused(400, "a WebSocket opens with a GET without a body")
    keys = [value for name, value in head.fields if name == b"sec-websocket-key"]
    try:
        is_key = len(keys) == 1 and len(base64.b64decode(keys[0].strip(), validate=True)) == 16
    except (binascii.Error, ValueError):
        is_key = False
    if not is_key:
        raise Refused(400, "Sec-WebSocket-Key is not 16 octets in base64")
    return True


def _words(head: Head, name: bytes) -> list[bytes]:
    values = b",".join(value for one, value in head.fields if one == name)
    return [word.strip().lower() for word in values.split(b",")]


def scope_of(
    head: Head,
    request_id: str,
    *,
    is_websocket: bool,
    is_tls: bool,
    client: tuple[str, int],
    server: tuple[str, int],
) -> dict[str, Any]:
    """The ASGI scope."""
    scheme = ("wss" if is_tls else "ws") if is_websocket else ("https" if is_tls else "http")
    scope: dict[str, Any] = {
        "type": "websocket" if is_websocket else "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": head.version,
        "method": head.method,
        "scheme": scheme,
        "path": unquote(head.path.decode("ascii"), errors="replace"),
        "raw_path": head.path,
        "query_string": head.query,
        "root_path": "",
        "headers": head.fields,
        "client": client,
        "server": server,
        "state": {"request_id": request_id},
        "extensions": {},
    }
    if is_websocket:
        scope["extensions"] = {"websocket.http.response": {}}
        offered = b",".join(value for name, value in head.fields if name == b"sec-websocket-protocol")
        scope["subprotocols"] = [word.strip().decode("latin-1") for word in offered.split(b",") if word.strip()]
    return scope
