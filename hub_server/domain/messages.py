"""What edges and the hub say to each other inside the tunnel, taken apart and checked.

    beat     one UDP datagram on port 7000: `Beat.decode`, `Beat.encode`
    control  one JSON object per line on TCP port 7001: `parse_line`, then one function per type

Everything here reads what a hostile edge may have written: it raises `BadMessage` and nothing else, bounds every string
and every list, and takes control characters out. What a string says is still the edge's word: escape it where it is
shown.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from hub_server.domain.foreign import Document, ForeignError, cleaned, integer, time, truth
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
# Of a node: labels of Kubernetes have at most 63 characters, and a node few roles and fewer bad conditions.
_LABEL: Final = 63
_LABELS: Final = 16
_U31: Final = 2**31 - 1  # what a column of numbers holds
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


def parse_line(line: bytes) -> tuple[str, Document]:
    """One line to its type and fields.

    Raises:
        BadMessage: it is no JSON object with a type.
    """
    with _told():
        message = Document.parse(line, CONTROL_LINE, path="a line")
        return _text(message, "type", 64), message


def parse_hello(message: Document) -> Hello:
    """Fields of `hello`.

    Raises:
        BadMessage: one is missing or of the wrong type.
    """
    with _told():
        impersonation = message.get("impersonation")
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
                enabled=impersonation.truth("enabled") or False,
                users=_texts(impersonation, "users", _SHORT_LIST, _NAME),
                groups=_texts(impersonation, "groups", _SHORT_LIST, _NAME),
            ),
            # An edge may hold what another hub, or a broken one, gave it: the number is only compared.
            config_revision=_number(message, "config_revision", 2**53),
            boot_id=_text(message, "boot_id", _NAME),
            service_account=_text(message, "service_account", 2 * _NAME),
            namespace=_text(message, "namespace", _NAME),
            job=_optional(message, "job", _NAME),
            clock_skew=message.integer("clock_skew", least=-(10**12), most=10**12),
        )


def parse_nodes(message: Document) -> NodesPart:
    """Fields of `nodes`.

    Raises:
        BadMessage: one is missing or of the wrong type.
    """
    with _told():
        if message.raw("nodes") is None:
            raise BadMessage("nodes: missing")
        return NodesPart(
            generation=_number(message, "generation", _U63),
            part=_number(message, "part"),
            is_last=truth("last", message.raw("last")),
            nodes=tuple(_node(node) for node in message.items("nodes")),
        )


def parse_api(message: Document) -> ApiReport:
    """Fields of `api`.

    Raises:
        BadMessage: one is missing or of the wrong type.
    """
    with _told():
        state = _text(message, "state", 32)
        if state not in ("ok", "unreachable", "forbidden"):
            raise BadMessage("state: none of ok, unreachable, forbidden")
        return ApiReport(
            cast("ApiState", state), _optional(message, "errno", 40), _optional(message, "detail", _TEXT) or ""
        )


def parse_config_ack(message: Document) -> ConfigAck:
    """Fields of `config_ack`.

    Raises:
        BadMessage: one is missing or of the wrong type.
    """
    with _told():
        return ConfigAck(_number(message, "revision"), _optional(message, "error", _TEXT))


def _node(node: Document) -> NodeSummary:
    created = node.raw("created")
    schedulable = node.truth("schedulable")
    return NodeSummary(
        name=_text(node, "name", _NAME),
        ready=truth(node.where("ready"), node.raw("ready")),
        schedulable=True if schedulable is None else schedulable,
        roles=_texts(node, "roles", _LABELS, _LABEL),
        version=_optional(node, "version", _LABEL) or "",
        created=0.0 if created is None else time(node.where("created"), created),
        conditions=_texts(node, "conditions", _LABELS, _LABEL),
    )


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with a foreign value is what is wrong with the message."""
    try:
        yield
    except ForeignError as error:
        raise BadMessage(str(error)) from None


def _text(message: Document, field: str, most: int) -> str:
    """A text, cut, and without what could move a cursor or end a line."""
    found = message.text(field, most=CONTROL_LINE)
    if found is None:
        raise BadMessage(f"{message.where(field)}: missing")
    return cleaned(found, most)


def _optional(message: Document, field: str, most: int) -> str | None:
    return None if message.raw(field) is None else _text(message, field, most)


def _texts(message: Document, field: str, many: int, most: int) -> tuple[str, ...]:
    return tuple(cleaned(one, most) for one in message.texts(field, most=CONTROL_LINE)[:many])


def _number(message: Document, field: str, most: int = _U31) -> int:
    return integer(message.where(field), message.raw(field), 0, most)
