"""Which fields of a request reach the API server, and which of its answer reach the hub: allow-lists, from empty.

The hub applies the same policy; it is repeated here because the edge alone holds the account's token, and trusts nobody
with it. Pure: fields in, fields out.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable
from typing import Final

__all__ = [
    "ANSWER_FIELDS",
    "REQUEST_FIELDS",
    "Refused",
    "answer_fields",
    "check_target",
    "framing_of",
    "is_proxied",
    "request_fields",
    "why_private",
]

# What kubectl, client-go and kube-apiserver say to each other. Caching and encoding are between those two: a body is
# passed on as it is encoded, and `Vary`, `ETag` and the conditions go with it, or a client would keep what is not so.
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
_IDENTITY: Final = b"daalu-identity"
_UNCLEAN: Final = re.compile(rb"[^\x20-\x7e]")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_LONGEST: Final = 4096
_TARGET: Final = re.compile(rb"/[\x21-\x7e]*", re.ASCII)


class Refused(Exception):
    """A request that must not be sent on; the message says why, to people."""


def request_fields(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields to send on; names as h11 gives them, in lower case.

    Raises:
        Refused: it speaks for a user, and this edge cannot.
    """
    kept: list[tuple[bytes, bytes]] = []
    named = _named_hop_by_hop(fields := list(fields))
    for name, value in fields:
        if name == _IDENTITY:
            raise Refused("this edge was not given the right to act as single users (impersonation): nothing was sent")
        if name == b"upgrade":
            raise Refused("streaming (exec, attach, port-forward) is not available through this edge yet")
        if name in REQUEST_FIELDS and name not in named:
            kept.append((name, _UNCLEAN.sub(b"?", value)[:_LONGEST]))
    return kept


def answer_fields(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields to send back."""
    named = _named_hop_by_hop(fields := list(fields))
    return [(name, value) for name, value in fields if name in ANSWER_FIELDS and name not in named]


def framing_of(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """How long the body is; h11 has made sure that there is one answer to that."""
    found = dict(fields)
    if b"transfer-encoding" in found:
        return [(b"transfer-encoding", b"chunked")]
    if b"content-length" in found:
        return [(b"content-length", found[b"content-length"])]
    return []


def check_target(target: bytes) -> None:
    """Whether a path means the same to everybody on the way.

    Raises:
        Refused: it does not.
    """
    path, _, _ = target.partition(b"?")
    if not _TARGET.fullmatch(target):
        raise Refused("a request needs a plain absolute path")
    decoded = urllib.parse.unquote_to_bytes(path)
    segments = decoded.split(b"/")[1:]
    if b"%2f" in path.lower() or b"%5c" in path.lower() or b"\\" in decoded or b"#" in target:
        raise Refused("encoded slashes are not allowed in a path")
    if b"" in segments[:-1] or b"." in segments or b".." in segments or _CONTROL.search(_readable(decoded)):
        raise Refused("empty, '.' and '..' segments and control characters are not allowed in a path")


def _readable(path: bytes) -> str:
    """The path as the API server reads it: names may have any letters, in UTF-8."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        raise Refused("a path is UTF-8") from None


def is_proxied(target: bytes) -> bool:
    """Whether an application behind the API server answers: the subresource `proxy` of a pod, service or node."""
    return b"proxy" in urllib.parse.unquote_to_bytes(target.partition(b"?")[0]).split(b"/")


def why_private(method: bytes, target: bytes, namespace: str, config_map: str) -> str:
    """Why a request, whose target was checked, is not sent on: it touches what the tunnel lives on. Empty if it may.

    Our account may read the Secret with the private key, and patch our ConfigMap: for us, not for whoever asks through
    the tunnel. So no Secret of our namespace is shown, neither by name nor in a list of all, and the ConfigMap is not
    changed.
    """
    segments = _readable(urllib.parse.unquote_to_bytes(target.partition(b"?")[0])).strip("/").split("/")
    if segments[:2] != ["api", "v1"]:
        return ""
    rest = segments[3:] if segments[2:3] == ["watch"] else segments[2:]
    if rest[:1] == ["secrets"]:
        return (
            "Secrets of all namespaces at once are not shown through the tunnel, because the edge's own key is among "
            f"them: name one namespace other than {namespace} (helm list needs -n; it keeps releases in Secrets)"
        )
    if rest[:2] != ["namespaces", namespace]:
        return ""
    if rest[2:3] == ["secrets"]:
        return (
            f"Secrets of the namespace {namespace} are not shown through the tunnel: the edge's own key is among them"
        )
    is_config = rest[2:3] == ["configmaps"] and rest[3:4] in ([], [config_map])
    if is_config and method not in (b"GET", b"HEAD"):
        return f"the ConfigMap {config_map}, by which the edge finds the hub, is not changed through the tunnel"
    return ""


def _named_hop_by_hop(fields: list[tuple[bytes, bytes]]) -> set[bytes]:
    """Names that `Connection` lists: they were meant for the last hop only."""
    return {word.strip().lower() for name, value in fields if name == b"connection" for word in value.split(b",")}
