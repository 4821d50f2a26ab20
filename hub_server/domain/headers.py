"""What of a request may reach a cluster, and what of its answer may come back: product.md section 11 as pure functions.

    raw path, query -> target_untrusted  -> what is sent on, octet by octet as it came, or `Malformed`
    headers         -> request_untrusted -> an empty list, then the allow-list; `Malformed`, or `Impersonating`
    answer          -> answer_untrusted  -> likewise; what a hostile edge sends beside it is gone

The same policy is repeated by the edge. A path has one meaning here: it is percent-decoded once, and whatever could
mean something else to the next reader is refused instead of being repaired.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qs, unquote_to_bytes

from hub_server.domain.foreign import ForeignError, digits

__all__ = [
    "ANSWER_FIELDS",
    "REQUEST_FIELDS",
    "Fields",
    "Impersonating",
    "KubeRequest",
    "Malformed",
    "answer_untrusted",
    "content_length_untrusted",
    "describe",
    "request_untrusted",
    "status_document",
    "target_untrusted",
    "upgrade_untrusted",
]

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]

# What client-go and the API server say to each other beside framing and identity. The edge has the same two tables.
# What is encoded is passed on as it is, never looked into; and what is not changed is not sent again.
REQUEST_FIELDS: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"cache-control",
        b"content-encoding",
        b"content-type",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-unmodified-since",
        b"kubectl-command",
        b"kubectl-session",
        b"user-agent",
    }
)
ANSWER_FIELDS: Final = frozenset(
    {
        b"audit-id",
        b"cache-control",
        b"content-encoding",
        b"content-type",
        b"date",
        b"etag",
        b"expires",
        b"last-modified",
        b"retry-after",
        b"vary",
        b"warning",
        b"x-kubernetes-pf-flowschema-uid",
        b"x-kubernetes-pf-prioritylevel-uid",
    }
)
# Fields that may come more than once in an answer.
_REPEATED: Final = frozenset({b"cache-control", b"vary", b"warning"})
# Fields of which a second one would be a second meaning.
_ONLY_ONCE: Final = frozenset(
    {b"authorization", b"content-length", b"content-type", b"host", b"transfer-encoding", b"user-agent"}
)
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_PATH: Final = re.compile(rb"/[!$&'()*+,;=:@\-._~0-9A-Za-z/%]*")
_QUERY: Final = re.compile(rb"[!$&'()*+,;=:@\-._~0-9A-Za-z/?%\[\]{}|^\"`\\<>]*")
_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPED: Final = re.compile(rb"%[0-9A-Fa-f]{2}")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_LONGEST_FIELD: Final = 4096
_LONGEST_TARGET: Final = 16 * 1024
# Subresources that open a way into a pod, a service or a node.
_STREAMED: Final = frozenset({"exec", "attach", "portforward", "proxy"})


class Malformed(ValueError):
    """A request that means more than one thing, or nothing: 400, and the connection is closed."""


class Impersonating(ValueError):
    """A request that asks to run as somebody else."""


# --- the target ------------------------------------------------------------------------------------------------------


def target_untrusted(path: bytes, query: bytes) -> str:
    """The target to send on: path and query as they came.

    Args:
        path: below the cluster, undecoded, beginning with a slash.
        query: without the question mark.

    Raises:
        Malformed: it has two meanings, or none.
    """
    if len(path) + len(query) > _LONGEST_TARGET:
        raise Malformed("the path is too long")
    if not _PATH.fullmatch(path) or _ESCAPE.search(path):
        raise Malformed("the path holds characters that a path may not have")
    if not _QUERY.fullmatch(query):
        raise Malformed("the query holds characters that a query may not have")
    decoded = unquote_to_bytes(path)
    if decoded.count(b"/") != path.count(b"/") or b"\\" in decoded:
        raise Malformed("the path holds an encoded slash")
    if _CONTROL.search(decoded) or _CONTROL.search(unquote_to_bytes(query)):
        raise Malformed("the path or the query holds control characters")
    if _ESCAPED.search(decoded):
        raise Malformed("the path is encoded twice")
    try:
        decoded.decode()  # names may have letters of any script
    except UnicodeDecodeError:
        raise Malformed("the path is not UTF-8") from None
    segments = decoded.split(b"/")[1:]
    if b"." in segments or b".." in segments:
        raise Malformed("the path climbs")
    if b"" in segments[:-1]:
        raise Malformed("the path holds an empty segment")
    return path.decode() + ("?" + query.decode() if query else "")


# --- headers ---------------------------------------------------------------------------------------------------------


def request_untrusted(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields of a request that are sent on.

    Raises:
        Malformed: the framing is said twice, or a field is no field.
        Impersonating: it names somebody to act as.
    """
    headers = [(name.lower(), value) for name, value in headers]
    _check(headers)
    names = [name for name, _ in headers]
    if b"content-length" in names and b"transfer-encoding" in names:
        raise Malformed("both Content-Length and Transfer-Encoding")
    if any(name.replace(b"_", b"-").startswith(b"impersonate-") for name in names):
        raise Impersonating
    meant_for_us = _named_in_connection(headers)
    kept = []
    for name, value in headers:
        if name in REQUEST_FIELDS and name not in meant_for_us:
            if name == b"user-agent":
                value = bytes(octet for octet in value if 0x20 <= octet < 0x7F)[:256]
            kept.append((name, value[:_LONGEST_FIELD].strip()))
    return kept


def content_length_untrusted(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Octets of the body as the request says; None where it does not.

    Raises:
        Malformed: it is no number.
    """
    for name, value in headers:
        if name.lower() == b"content-length":
            try:
                text = value.decode("ascii")
                return digits("Content-Length", text.lstrip("0") or text[:1], 0, 10**18 - 1)
            except (ValueError, ForeignError):
                raise Malformed("Content-Length is no number") from None
    return None


def upgrade_untrusted(headers: Iterable[tuple[bytes, bytes]]) -> Literal["none", "websocket", "spdy", "other"]:
    """What the request wants to become."""
    fields = [(name.lower(), value) for name, value in headers]
    if b"upgrade" not in _named_in_connection(fields):
        return "none"
    wanted = b",".join(value for name, value in fields if name == b"upgrade").lower()
    if not wanted.strip():
        return "none"
    if b"spdy" in wanted:
        return "spdy"
    return "websocket" if b"websocket" in wanted else "other"


def answer_untrusted(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields of an edge's answer that are sent back; the framing is our own."""
    headers = [(name.lower(), value) for name, value in headers]
    meant_for_us = _named_in_connection(headers)
    kept: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name not in ANSWER_FIELDS or name in meant_for_us or not _VALUE.fullmatch(value):
            continue
        if name not in _REPEATED and any(name == before for before, _ in kept):
            continue
        kept.append((name, value[:_LONGEST_FIELD]))
    # A browser that is shown this answer must not guess what it is.
    return [*kept, (b"x-content-type-options", b"nosniff")]


def _check(headers: Fields) -> None:
    seen = set()
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Malformed("a header is no header")
        if name in _ONLY_ONCE and name in seen:
            raise Malformed(f"{name.decode()} is there twice")
        seen.add(name)


def _named_in_connection(headers: Fields) -> set[bytes]:
    return {word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")}


# --- what a request is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KubeRequest:
    """A request in Kubernetes' words, for the audit and for the rights.

    Attributes:
        verb: get, list, watch, create, update, patch, delete, deletecollection; `non-resource` beside the API.
        resource: with subresource after a slash.
        namespace: empty where there is none.
        name: likewise.
        needs_stream: it opens a way into a pod, a service or a node.
        is_long: it is followed for as long as somebody looks: a watch or followed logs.
    """

    verb: str
    resource: str = ""
    namespace: str = ""
    name: str = ""
    needs_stream: bool = False
    is_long: bool = False


def describe(method: str, target: str) -> KubeRequest:
    """What a request does, as the API server will understand it."""
    path, _, query = target.partition("?")
    words = [unquote_to_bytes(word).decode(errors="replace") for word in path.split("/") if word]
    match words:
        case ["api", _, *rest] | ["apis", _, _, *rest] if rest:
            pass
        case _:
            return KubeRequest("non-resource")
    asked = parse_qs(query, keep_blank_values=True, max_num_fields=None)
    is_watch = any(_is_true(value) for value in asked.get("watch", ()))
    if rest[0] in ("watch", "proxy"):
        # Old forms: /api/v1/watch/pods, /api/v1/proxy/namespaces/...
        is_watch = is_watch or rest[0] == "watch"
        if rest[0] == "proxy":
            return KubeRequest("proxy", "proxy", needs_stream=True)
        rest = rest[1:]
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = rest[0] if rest else ""
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if resource == "namespaces" and name:
        namespace = name
    verb = {
        "GET": "get" if name else "list",
        "HEAD": "get" if name else "list",
        "POST": "create",
        "PUT": "update",
        "PATCH": "patch",
        "DELETE": "delete" if name else "deletecollection",
    }.get(method, method.lower())
    if is_watch and verb in ("get", "list"):
        verb = "watch"
    follows = subresource == "log" and any(_is_true(value) for value in asked.get("follow", ()))
    return KubeRequest(
        verb,
        f"{resource}/{subresource}" if subresource else resource,
        namespace,
        name,
        needs_stream=subresource in _STREAMED,
        is_long=verb == "watch" or follows,
    )


def _is_true(value: str) -> bool:
    return value.lower() not in ("0", "f", "false")


def status_document(status: int, reason: str, message: str, *, cause: str | None = None) -> bytes:
    """A refusal as kubectl prints it: a Kubernetes `Status`."""
    document: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": status,
    }
    if cause is not None:
        document["details"] = {"causes": [{"reason": cause, "message": message}]}
    return json.dumps(document).encode()
