"""The hub's end of the in-tunnel protocol: heartbeats on UDP 7000, one control connection per edge on TCP 7001.

    datagram -> whose inner address? -> Beat -> Sink.beat, Sink.goodbye -> an answer, or `ask`
    line     -> the same             -> message of its type -> Sink.hello, nodes, api_state, config_acknowledged

Who speaks is told by the tunnel (`Wire.cluster_at`), never by a field. What an edge sends is bounded in every way: the
length of a line, lines and octets a second, beats a second, nodes and what their table takes. A message that breaks the
rules costs itself: edge and operator are told why. Budgets are the edge's, not the connection's; one that sends more is
slowed down, which the operator is told too. One edge can slow down nobody but itself.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio

import wgpy
from hub_server import supervise
from hub_server.domain.foreign import Document
from hub_server.domain.messages import (
    CONTROL_LINE,
    NODES_MOST,
    BadMessage,
    Beat,
    BeatType,
    goodbye_reason,
    parse_api,
    parse_config_ack,
    parse_hello,
    parse_line,
    parse_nodes,
    round_trip,
)
from hub_server.domain.records import NodeSummary, Sink
from hub_server.nursery import unwrapped
from hub_server.wire import ALIVE, Wire

__all__ = ["BEAT_PORT", "CONTROL_PORT", "PROTOCOL", "Control", "serve_control"]

_log = logging.getLogger("hub.control")

PROTOCOL: Final = 1
BEAT_PORT: Final = 7000
CONTROL_PORT: Final = 7001
# An edge says hello at once, and the state of its API server every 30 s.
_HELLO_WITHIN: Final = 10.0
_SILENCE: Final = 120.0
# A beat every 5 s, one a second when answers are lost, a few more when the MTU is probed.
_BEATS_PER_SECOND: Final = 10.0
_BEATS_BURST: Final = 20.0
# The node table of 5,000 nodes is about 1.5 MB, and may come again at once when something changed.
_OCTETS_PER_SECOND: Final = 256 * 1024
_OCTETS_BURST: Final = 4 * 2**20
# What a line costs beside its octets: a parser, a call, and what follows from it, down to a row of the database.
# Sixteen lines a second for ever, 256 at once; a table of 5,000 nodes has thirty.
_LINE_COST: Final = 16 * 1024
# What a node table may have in all; Python needs some three times as much while it comes.
_TABLE_OCTETS: Final = 3 * 2**20
# How often the sink is told of each thing that an edge should not do.
_TELL_EVERY: Final = 60.0
# A hub that was restarted has forgotten the control connections; the edges notice when they are asked.
_ASK_EVERY: Final = 10.0
_DATAGRAMS_AT_ONCE: Final = 32


async def serve_control(
    wire: Wire,
    sink: Sink,
    *,
    wall_clock: Callable[[], float] = time.time,
    task_status: trio.TaskStatus[Control] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen in every realm of the wire, those that appear later included, until cancelled.

    Args:
        wire: whose realms.
        sink: is told what edges say.
        wall_clock: Unix seconds.
        task_status: gets the `Control`, for pushing configuration.
    """
    control = Control(wire, sink, wall_clock)
    async with trio.open_nursery() as nursery:
        task_status.started(control)
        async for tenant_id, realm in wire.new_realms:
            supervise.start_kept(nursery, "heartbeats", control.serve_beats, tenant_id, realm, victim=tenant_id)
            supervise.start_kept(nursery, "control port", control.serve_connections, tenant_id, realm, victim=tenant_id)


class Bucket:
    """So many units a second, and a burst."""

    __slots__ = ("_burst", "_filled_at", "_level", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        """Start full."""
        self._rate = rate
        self._burst = self._level = burst
        self._filled_at = trio.current_time()

    def take(self, cost: float) -> float:
        """Take a cost out; seconds to wait until the bucket is no longer in debt."""
        now = trio.current_time()
        self._level = min(self._burst, self._level + (now - self._filled_at) * self._rate) - cost
        self._filled_at = now
        return max(0.0, -self._level / self._rate)

    def try_take(self, cost: float) -> bool:
        """Take a cost out if it is there."""
        if self.take(0.0) or self._level < cost:
            return False
        self._level -= cost
        return True


class _Connection:
    """One control connection: what is sent to the edge, and what it has said so far."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.scope = trio.CancelScope()
        self.revision: int | None = None
        self.generation = -1
        self.next_part = 0
        self.nodes: list[NodeSummary] = []
        self.table_octets = 0
        self.refused = 0
        self._sending = trio.Lock()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one line."""
        async with self._sending:
            await self.stream.send_all(json.dumps(message, separators=(",", ":")).encode() + b"\n")


class Control:
    """Everything that edges say inside the tunnel."""

    def __init__(self, wire: Wire, sink: Sink, wall_clock: Callable[[], float]) -> None:
        """Use `serve_control`."""
        self._wire = wire
        self._sink = sink
        self._wall_clock = wall_clock
        self._connections: dict[str, _Connection] = {}
        self._beats: dict[str, Bucket] = {}
        self._octets: dict[str, Bucket] = {}
        self._asked_at: dict[str, float] = {}
        self._told_at: dict[str, dict[str, float]] = {}

    def is_connected(self, cluster_id: str) -> bool:
        """Whether an edge has a control connection."""
        return cluster_id in self._connections

    async def config_changed(self, cluster_id: str) -> None:
        """Send an edge its configuration if it holds an older revision; one that is away gets it when it says hello."""
        connection = self._connections.get(cluster_id)
        if connection is not None and connection.revision is not None:
            try:
                await self._send_config(cluster_id, connection)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                connection.scope.cancel()

    def forget(self, cluster_id: str) -> None:
        """A cluster is gone: so is its connection and all that was counted for it."""
        connection = self._connections.get(cluster_id)
        if connection is not None:
            connection.scope.cancel()
        self._beats.pop(cluster_id, None)
        self._octets.pop(cluster_id, None)
        self._asked_at.pop(cluster_id, None)
        self._told_at.pop(cluster_id, None)

    @contextmanager
    def _until_removed(self, tenant_id: str, realm: wgpy.Tunnel) -> Iterator[None]:
        """End a block in peace when its realm is removed."""
        try:
            with unwrapped():
                yield
        except trio.ClosedResourceError:
            if self._wire.has_realm(tenant_id, realm):
                raise

    # --- beats -------------------------------------------------------------------------------------------------------

    async def serve_beats(self, tenant_id: str, realm: wgpy.Tunnel) -> None:
        """Take and answer the beats of one realm until it is removed."""
        with self._until_removed(tenant_id, realm):
            async with await realm.net.open_udp(local=(None, BEAT_PORT)) as udp:
                while True:
                    try:
                        datagrams = await udp.receive_many(_DATAGRAMS_AT_ONCE)
                    except OSError:
                        continue  # ICMP about an answer: whoever sent it will say so by silence
                    for datagram, address in datagrams:
                        self._answer_beat(tenant_id, udp, datagram, address)

    def _answer_beat(self, tenant_id: str, udp: Any, datagram: bytes, address: tuple[str, int]) -> None:
        cluster_id = self._wire.cluster_at(tenant_id, address[0])
        if cluster_id is None:
            return
        with supervise.confined("heartbeat", cluster_id), suppress(BadMessage, trio.WouldBlock, OSError):
            for answer in self._answers_untrusted(cluster_id, datagram):
                udp.send_nowait(answer, address)

    def _answers_untrusted(self, cluster_id: str, datagram: bytes) -> list[bytes]:
        """Take one datagram, and give what must be sent back: the answer, and `ask` where no control connection is."""
        bucket = self._beats.get(cluster_id)
        if bucket is None:
            bucket = self._beats[cluster_id] = Bucket(_BEATS_PER_SECOND, _BEATS_BURST)
        if not bucket.try_take(1.0):
            self._tell(cluster_id, "beats are dropped", f"more than {_BEATS_PER_SECOND:g} a second")
            return []
        beat = Beat.decode_untrusted(datagram)
        at, now = self._wall_clock(), _microseconds()
        if beat.type == BeatType.GOODBYE:
            self._sink.goodbye(cluster_id, at, goodbye_reason(beat))
            return []
        if beat.type != BeatType.BEAT:
            return []
        self._sink.beat(cluster_id, at, round_trip(beat, now), self._wire.endpoint(cluster_id))
        if not self._wire.has_session(cluster_id):
            # One that must be shaken hands with first would hold up the answers to the others.
            return []
        answers = [Beat(BeatType.ANSWER, beat.seq, now, beat.sent, 0, bytes(len(beat.padding))).encode()]
        if cluster_id not in self._connections and self._may_ask(cluster_id):
            answers.append(Beat(BeatType.ASK, beat.seq, now, beat.sent).encode())
        return answers

    def _may_ask(self, cluster_id: str) -> bool:
        """A connection that is on its way is given one beat to arrive; after that, now and then."""
        now = trio.current_time()
        asked_at = self._asked_at.get(cluster_id)
        if asked_at is None:
            self._asked_at[cluster_id] = now - _ASK_EVERY / 2
            return False
        if now - asked_at < _ASK_EVERY:
            return False
        self._asked_at[cluster_id] = now
        return True

    # --- connections -------------------------------------------------------------------------------------------------

    async def serve_connections(self, tenant_id: str, realm: wgpy.Tunnel) -> None:
        """Serve the control connections of one realm until it is removed."""

        async def serve(stream: Any) -> None:
            cluster_id = self._wire.cluster_at(tenant_id, stream.remote_address[0])
            if cluster_id is None:
                stream.abort()
                return
            await supervise.run_once(
                "control connection", self._serve_connection, cluster_id, stream, victim=cluster_id
            )

        with self._until_removed(tenant_id, realm):
            await realm.net.serve_tcp(serve, CONTROL_PORT, keepalive=ALIVE, user_timeout=ALIVE.dead_after)

    async def _serve_connection(self, cluster_id: str, stream: Any) -> None:
        connection = _Connection(stream)
        before = self._connections.get(cluster_id)
        if before is not None:
            # The edge has come back; the old connection is a corpse that nobody told us of.
            before.scope.cancel()
        self._connections[cluster_id] = connection
        try:
            with connection.scope:
                await self._converse(cluster_id, connection)
        except (BadMessage, _Unwelcome) as bad:
            self._tell(cluster_id, "the control connection was closed", str(bad))
        except trio.TooSlowError:
            _log.warning("control connection of %s closed: silent for too long", cluster_id)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            if self._connections.get(cluster_id) is connection:
                del self._connections[cluster_id]
                self._asked_at.pop(cluster_id, None)
            if connection.scope.cancelled_caught:
                stream.abort()
            else:
                await stream.aclose()

    async def _converse(self, cluster_id: str, connection: _Connection) -> None:
        bucket = self._octets.setdefault(cluster_id, Bucket(_OCTETS_PER_SECOND, _OCTETS_BURST))
        lines = _Lines(connection.stream)
        with trio.fail_after(_HELLO_WITHIN):
            line = await lines.next()
        if line is None:
            return
        kind, message = parse_line(line)
        if kind != "hello":
            raise BadMessage("the first line is no hello")
        hello = parse_hello(message)
        refusal = self._sink.hello(cluster_id, hello)
        if refusal is not None:
            await connection.send({"type": "refused", "code": "VersionTooOld", "detail": refusal})
            return
        connection.revision = hello.config_revision
        await connection.send({"type": "welcome", "protocol": PROTOCOL, "now": self._wall_clock()})
        await self._send_config(cluster_id, connection)
        cost = _LINE_COST + len(line)
        while True:
            if delay := bucket.take(cost):
                self._tell(cluster_id, "slowed down", f"more than {_OCTETS_PER_SECOND} octets a second, or 16 messages")
                await trio.sleep(delay)
            cost = _LINE_COST
            try:
                with trio.fail_after(_SILENCE):
                    line = await lines.next()
                if line is None:
                    return
                cost += len(line)
                self._take_line(cluster_id, connection, line)
            except BadMessage as bad:
                # It costs this message and nothing else; the edge and the operator are told why.
                connection.refused += 1
                self._tell(cluster_id, "a message was refused", f"{bad} ({connection.refused} on this connection)")
                with trio.fail_after(_SILENCE):
                    await connection.send({"type": "message_refused", "detail": str(bad)[:500]})

    def _tell(self, cluster_id: str, what: str, detail: str) -> None:
        """Tell the sink, but of the same thing not again and again."""
        now = trio.current_time()
        told_at = self._told_at.setdefault(cluster_id, {})
        if now - told_at.get(what, -_TELL_EVERY) >= _TELL_EVERY:
            told_at[what] = now
            _log.warning("%s: %s: %s", cluster_id, what, detail)
            self._sink.misbehaved(cluster_id, f"{what}: {detail}")

    async def _send_config(self, cluster_id: str, connection: _Connection) -> None:
        config = self._sink.config_for(cluster_id)
        # Not only a newer one: a hub that came back from an older backup has lower numbers than its edges.
        if connection.revision is None or config["revision"] != connection.revision:
            with trio.fail_after(_SILENCE):
                await connection.send({"type": "config", **config})

    def _take_line(self, cluster_id: str, connection: _Connection, line: bytes) -> None:
        if not line:
            return
        kind, message = parse_line(line)
        match kind:
            case "hello":
                # Something of it changed: the API server answers by now, the way carries smaller packets.
                hello = parse_hello(message)
                connection.revision = hello.config_revision
                refusal = self._sink.hello(cluster_id, hello)
                if refusal is not None:
                    raise _Unwelcome(refusal)
            case "nodes":
                self._take_nodes(cluster_id, connection, message, len(line))
            case "api":
                report = parse_api(message)
                self._sink.api_state(cluster_id, report.state, report.errno, report.detail)
            case "config_ack":
                ack = parse_config_ack(message)
                if ack.error is None:
                    connection.revision = ack.revision
                self._sink.config_acknowledged(cluster_id, ack.revision, ack.error)
            case _:
                pass  # of a later version: to be ignored

    def _take_nodes(self, cluster_id: str, connection: _Connection, message: Document, octets: int) -> None:
        part = parse_nodes(message)
        if part.part == 0:
            connection.generation, connection.next_part = part.generation, 0
            connection.nodes, connection.table_octets = [], 0
        if part.generation != connection.generation or part.part != connection.next_part:
            raise BadMessage("parts of the node table are not in order")
        connection.next_part += 1
        connection.table_octets += octets
        if connection.table_octets > _TABLE_OCTETS:
            connection.nodes, connection.generation = [], -1
            raise BadMessage(f"the node table has more than {_TABLE_OCTETS} octets")
        connection.nodes += part.nodes[: NODES_MOST - len(connection.nodes)]
        if part.is_last:
            nodes, connection.nodes, connection.generation = connection.nodes, [], -1
            self._sink.nodes(cluster_id, nodes)


class _Unwelcome(Exception):
    """The edge said something of itself for which it is sent away."""


class _Lines:
    """Lines of a stream, none longer than CONTROL_LINE: one that is costs itself, what follows is read."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._searched = 0
        self._is_skipping = False

    async def next(self) -> bytes | None:
        """The next line without its end, empty for more of one that was refused, None at the end of the stream."""
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > CONTROL_LINE:
                self._buffer.clear()
                self._searched = 0
                if not self._is_skipping:
                    self._is_skipping = True
                    raise BadMessage(f"a line is longer than {CONTROL_LINE} octets")
                return b""
            data = await self._stream.receive_some(CONTROL_LINE)
            if not data:
                return None
            self._buffer += data
        line, self._searched = bytes(self._buffer[:end]), 0
        del self._buffer[: end + 1]
        if self._is_skipping:
            self._is_skipping = False
            return b""
        if end > CONTROL_LINE:
            raise BadMessage(f"a line is longer than {CONTROL_LINE} octets")
        return line


def _microseconds() -> int:
    return math.floor(trio.current_time() * 1e6)
