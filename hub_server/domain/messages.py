"""What edges and the hub say to each other inside the tunnel, taken apart and checked.

    beat     one UDP datagram on port 7000: `Beat.decode`, `Beat.encode`
    control  one JSON object per line on TCP port 7001: `parse_line`, then one function per type

Everything here reads what a hostile edge may have written: it raises `BadMessage` and nothing else, bounds every string
and every list, and takes control characters out. What a string says is still the edge's word: escape it where it is
shown.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from hub_server.domain.records import ApiState, GoodbyeReason, Hello, Impersonation, NodeSummary

__all__ = [
    "BEAT_SIZE",
    "CONTROL_LINE",
    "NODES_MOST",
    "ApiReport",
    "BadMessage",
    "Beat",
    "BeatType",
    "ConfigAck",
    "NodesPart",
    "goodbye_reason",
    "parse_api",
    "parse_config_ack",
    "parse_hello",
    "parse_line",
    "parse_nodes",
    "round_trip",
]

CONTROL_LINE: Final = 64 * 1024
NODES_MOST: Final = 5000
BEAT_SIZE: Final = 32
_BEAT: Final = struct.Struct(">2sBBQQQI")
_MAGIC: Final = b"DH"
_VERSION: Final = 1
# A round trip longer than this is a clock that jumped, or a lie.
_LONGEST_ROUND_TRIP: Final = 60.0
_REASONS: Final[tuple[GoodbyeReason, ...]] = ("unknown", "uninstalled", "restarting")
# Kubernetes names are at most 253 characters; versions, uids and account names are shorter.
_NAME: Final = 253
_TEXT: Final = 1024
_SHORT_LIST: Final = 64
_U63: Final = 2**63 - 1


class BadMessage(ValueError):
    """What came is not what the protocol says; the text names the field."""


# --- beats -----------------------------------------------------------------------------------------------------------


class BeatType:
    """The types of datagrams on port 7000."""

    BEAT = 1
    ANSWER = 2
    GOODBYE = 3
    ASK = 4


@dataclass(frozen=True, slots=True)
class Beat:
    """One datagram of the heartbeat.

    Attributes:
        type: see `BeatType`.
        seq: counted by the edge; an answer repeats it.
        sent: the sender's own clock, microseconds.
        echo: the last `sent` that came from the other side, 0 if none.
        held: microseconds from receiving that to sending this.
        padding: what follows; its length probes the MTU, its first octet is the reason of a goodbye.
    """

    type: int
    seq: int
    sent: int
    echo: int = 0
    held: int = 0
    padding: bytes = b""

    def encode(self) -> bytes:
        """The datagram."""
        return _BEAT.pack(_MAGIC, _VERSION, self.type, self.seq, self.sent, self.echo, self.held) + self.padding

    @classmethod
    def decode_untrusted(cls, datagram: bytes) -> Beat:
        """Take a datagram apart.

        Raises:
            BadMessage: it is too short or speaks another version.
        """
        if len(datagram) < BEAT_SIZE:
            raise BadMessage(f"{len(datagram)} octets are too short for a beat")
        magic, version, kind, seq, sent, echo, held = _BEAT.unpack_from(datagram)
        if magic != _MAGIC or version != _VERSION:
            raise BadMessage("not a beat of version 1")
        return cls(kind, seq, sent, echo, held, datagram[BEAT_SIZE:])


def round_trip(beat: Beat, now: int) -> float | None:
    """Seconds from our datagram to this one, less what the other side held it; None if it cannot be told."""
    if not beat.echo:
        return None
    seconds = (now - beat.echo - beat.held) / 1e6
    return seconds if 0 <= seconds <= _LONGEST_ROUND_TRIP else None


def goodbye_reason(beat: Beat) -> GoodbyeReason:
    """Why the edge leaves."""
    number = beat.padding[0] if beat.padding else 0
    return _REASONS[number] if number < len(_REASONS) else "unknown"


# --- control ---------------------------------------------------------------------------------------------------------


class NodesPart(NamedTuple):
    """A part of the node table; the hub takes it when the last one came."""

    generation: int
    part: int
    is_last: bool
    nodes: tuple[NodeSummary, ...]


class ApiReport(NamedTuple):
    """Whether the edge reaches its API server."""

    state: ApiState
    errno: str | None
    detail: str


class ConfigAck(NamedTuple):
    """Which revision the edge holds now, or why not."""

    revision: int
    error: str | None


def parse_line(line: bytes) -> tuple[str, Mapping[str, Any]]:
    """One line to its type and fields.

    Raises:
        BadMessage: it is no JSON object with a type.
    """
    try:
        message = json.loads(line.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadMessage("a line is no JSON") from None
    if not isinstance(message, dict):
        raise BadMessage("a line is no JSON object")
    return _text(message, "type", 64), message


def parse_hello(message: Mapping[str, Any]) -> Hello:
    """Fields of `hello`.

    Raises:
        BadMessage: one is missing or of the wrong type.
    """
    impersonation = message.get("impersonation") or {}
    if not isinstance(impersonation, dict):
        raise BadMessage("impersonation is no object")
    return Hello(
        protocol=_number(message, "protocol"),
        agent_version=_text(message, "agent_version", _NAME),
        chart_version=_text(message, "chart_version", _NAME),
        kube_version=_text(message, "kube_version", _NAME),
        cluster_uid=_optional(message, "cluster_uid", _NAME),
        mode=_text(message, "mode", 32),
        mode_reason=_optional(message, "mode_reason", _TEXT),
        mtu=_number(message, "mtu"),
        impersonation=Impersonation(
            enabled=_truth(impersonation, "enabled", default=False),
            users=_texts(impersonation, "users"),
            groups=_texts(impersonation, "groups"),
        ),
        config_revision=_number(message, "config_revision"),
        boot_id=_text(message, "boot_id", _NAME),
        service_account=_text(message, "service_account", 2 * _NAME),
        namespace=_text(message, "namespace", _NAME),
        job=_optional(message, "job", _NAME),
        clock_skew=_skew(message),
    )


def _skew(message: Mapping[str, Any]) -> int | None:
    """Seconds, of either sign; None where the clock is well, or the edge too old to say."""
    value = message.get("clock_skew")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not -_U63 <= value <= _U63:
        raise BadMessage("clock_skew is no number")
    return value


def parse_nodes(message: Mapping[str, Any]) -> NodesPart:
    """Fields of `nodes`.

    Raises:
        BadMessage: one is missing or of the wrong type.
    """
    nodes = message.get("nodes")
    if not isinstance(nodes, list):
        raise BadMessage("nodes is no list")
    return NodesPart(
        generation=_number(message, "generation"),
        part=_number(message, "part"),
        is_last=_truth(message, "last"),
        nodes=tuple(_node(node) for node in nodes),
    )


def parse_api(message: Mapping[str, Any]) -> ApiReport:
    """Fields of `api`.

    Raises:
        BadMessage: one is missing or of the wrong type.
    """
    state = _text(message, "state", 32)
    if state not in ("ok", "unreachable", "forbidden"):
        raise BadMessage("state is none of ok, unreachable, forbidden")
    return ApiReport(
        cast("ApiState", state), _optional(message, "errno", 64), _optional(message, "detail", _TEXT) or ""
    )


def parse_config_ack(message: Mapping[str, Any]) -> ConfigAck:
    """Fields of `config_ack`.

    Raises:
        BadMessage: one is missing or of the wrong type.
    """
    return ConfigAck(_number(message, "revision"), _optional(message, "error", _TEXT))


def _node(node: object) -> NodeSummary:
    if not isinstance(node, dict):
        raise BadMessage("a node is no object")
    created = node.get("created", 0)
    if isinstance(created, bool) or not isinstance(created, int | float) or not math.isfinite(created):
        raise BadMessage("created is no time")
    return NodeSummary(
        name=_text(node, "name", _NAME),
        ready=_truth(node, "ready"),
        schedulable=_truth(node, "schedulable", default=True),
        roles=_texts(node, "roles"),
        version=_optional(node, "version", _NAME) or "",
        created=float(created),
        conditions=_texts(node, "conditions"),
    )


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _clean(text: str, most: int) -> str:
    """Cut, and without what could move a cursor or end a line."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text[:most])


def _text(message: Mapping[str, Any], field: str, most: int) -> str:
    value = message.get(field)
    if not isinstance(value, str):
        raise BadMessage(f"{field} is no string")
    return _clean(value, most)


def _optional(message: Mapping[str, Any], field: str, most: int) -> str | None:
    return None if message.get(field) is None else _text(message, field, most)


def _texts(message: Mapping[str, Any], field: str) -> tuple[str, ...]:
    values = message.get(field) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadMessage(f"{field} is no list of strings")
    return tuple(_clean(value, _NAME) for value in values[:_SHORT_LIST])


def _number(message: Mapping[str, Any], field: str) -> int:
    value = message.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _U63:
        raise BadMessage(f"{field} is no number")
    return value


def _truth(message: Mapping[str, Any], field: str, *, default: bool | None = None) -> bool:
    value = message.get(field, default)
    if not isinstance(value, bool):
        raise BadMessage(f"{field} is neither true nor false")
    return value
