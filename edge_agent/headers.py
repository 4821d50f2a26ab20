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
    "is_private",
    "request_fields",
]

REQUEST_FIELDS: Final = frozenset({b"accept", b"content-type", b"kubectl-command", b"kubectl-session", b"user-agent"})
ANSWER_FIELDS: Final = frozenset({b"content-type", b"warning", b"audit-id", b"retry-after", b"cache-control", b"date"})
_IDENTITY: Final = b"daalu-identity"
_UNCLEAN: Final = re.compile(rb"[^\x20-\x7e]")
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
    if b"" in segments[:-1] or b"." in segments or b".." in segments or _UNCLEAN.search(decoded):
        raise Refused("empty, '.' and '..' segments and control characters are not allowed in a path")


def is_private(method: bytes, target: bytes, namespace: str, config_map: str) -> bool:
    """Whether a request, whose target was checked, touches what the tunnel itself lives on.

    Our account may read the Secret with the private key, and patch our ConfigMap: for us, not for whoever asks through
    the tunnel. So no Secret of our namespace is shown, neither by name nor in a list of all, and the ConfigMap is not
    changed.
    """
    path = urllib.parse.unquote_to_bytes(target.partition(b"?")[0]).decode("latin-1")
    segments = path.strip("/").split("/")
    if segments[:2] != ["api", "v1"]:
        return False
    rest = segments[3:] if segments[2:3] == ["watch"] else segments[2:]
    if rest[:1] == ["secrets"]:
        return True
    if rest[:2] != ["namespaces", namespace]:
        return False
    is_config = rest[2:3] == ["configmaps"] and rest[3:4] in ([], [config_map])
    return rest[2:3] == ["secrets"] or (is_config and method not in (b"GET", b"HEAD"))


def _named_hop_by_hop(fields: list[tuple[bytes, bytes]]) -> set[bytes]:
    """Names that `Connection` lists: they were meant for the last hop only."""
    return {word.strip().lower() for name, value in fields if name == b"connection" for word in value.split(b",")}
