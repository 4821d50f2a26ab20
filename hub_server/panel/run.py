"""Lines of the panel from the hub's side: whose turn it is, the process of each, and the requests that it asks for."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog
import trio

from hub_server.domain.errors import TooMany, Unavailable
from hub_server.domain.panel import LineRefused, parse
from hub_server.domain.records import PanelResult, ProxyGrant
from hub_server.kubeproxy import identity_fields
from hub_server.panel.frames import LONGEST_OUTPUT, PREFIX, Question, Reply, packed
from hub_server.upstream import EdgeFault, Upstream
from hub_server.wire import Wire

__all__ = ["LONGEST_OUTPUT", "TIME_LIMIT", "Panel"]

TIME_LIMIT: Final = 30.0
# A worker that does not come back with its result after the time of its line is ended.
_GRACE: Final = 5.0
_OCTETS_OF_LINE: Final = 64 * 2**20
_LONGEST_ANSWER: Final = 3 * 2**20
# JSON writes a control character in six octets; and a line knows little beside its output.
_LONGEST_FRAME: Final = 6 * LONGEST_OUTPUT + 2**16
_LINES_OF_USER: Final = 2
_LINES_AT_ONCE: Final = 4
# A cluster that answers slowly, on purpose or not, delays the lines of its own tenant and leaves room for others.
_LINES_OF_TENANT: Final = 3
_WAIT_FOR_TURN: Final = 10.0
# The only bodies that a line sends.
_REVIEWS: Final = (
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
)

log = structlog.get_logger("hub.panel")


class Panel:
    """Runs lines, a few at once: more of one user are refused, more of all wait for their turn."""

    def __init__(self, *, wall_clock: Callable[[], float] = time.time) -> None:
        """Take the clock, Unix seconds, by which ages are printed."""
        self._wall_clock = wall_clock
        self._of_user: Counter[str] = Counter()
        self._turns = trio.Semaphore(_LINES_AT_ONCE)
        self._turns_of_tenant: WeakValueDictionary[str, trio.Semaphore] = WeakValueDictionary()

    async def run(self, line: str, wire: Wire, grant: ProxyGrant) -> PanelResult:
        """Run what was typed after `kubectl`.

        Args:
            line: as typed.
            wire: the tunnels.
            grant: whose identity is used, for which cluster.

        Raises:
            TooMany: this user's earlier lines are still running.
            Unavailable: the lines of others take too long.
        """
        try:
            command = parse(line)
        except LineRefused as refusal:
            return PanelResult("", 1, refused=str(refusal))
        job = {"verb": command.verb, "words": command.words, "flags": dict(command.flags), "now": self._wall_clock()}
        with self._place(grant.user_id):
            async with self._turn(grant.tenant_id):
                return await _run(job, wire, grant)

    @contextlib.contextmanager
    def _place(self, user: str) -> Iterator[None]:
        if self._of_user[user] >= _LINES_OF_USER:
            raise TooMany(f"{_LINES_OF_USER} lines of yours are running: wait for one to end", retry_after=5)
        self._of_user[user] += 1
        try:
            yield
        finally:
            self._of_user[user] -= 1
            if not self._of_user[user]:
                del self._of_user[user]

    @contextlib.asynccontextmanager
    async def _turn(self, tenant_id: str) -> AsyncIterator[None]:
        of_tenant = self._turns_of_tenant.setdefault(tenant_id, trio.Semaphore(_LINES_OF_TENANT))
        async with contextlib.AsyncExitStack() as turns:
            with trio.move_on_after(_WAIT_FOR_TURN) as patience:
                await turns.enter_async_context(of_tenant)
                await turns.enter_async_context(self._turns)
            if patience.cancelled_caught:
                raise Unavailable("the panel is busy with the lines of others: try again")
            yield


async def _run(job: dict[str, Any], wire: Wire, grant: ProxyGrant) -> PanelResult:
    asker = _Asker(Upstream(wire), grant, trio.current_time() + TIME_LIMIT)
    fault = ""
    try:
        with trio.move_on_after(TIME_LIMIT + _GRACE):
            async with _worker() as worker:
                await worker.send(job)
                while "ask" in (frame := await worker.receive()):
                    reply = await asker.ask(Question(**frame["ask"]))
                    header = dataclasses.asdict(dataclasses.replace(reply, octets=b""))
                    del header["octets"]
                    await worker.send(header, reply.octets)
                result = frame["result"]
                if "fault" not in result:
                    return PanelResult(**result)
                fault = result["fault"]
    except trio.BrokenResourceError:
        fault = "it ended"
    finally:
        asker.close()
    log.warning("a worker of the panel failed", cluster=grant.cluster_id, fault=fault or "out of time")
    text = "error: what the cluster answered is too much for the panel: narrow the request\n"
    if fault not in ("", "memory", "it ended"):
        text = "error: the cluster's answer could not be read\n"
    return PanelResult(text, 1)


@contextlib.asynccontextmanager
async def _worker() -> AsyncIterator[_Pipes]:
    """A process for one line, which is gone when the block ends, however it ends."""
    # Of the hub's environment it needs nothing but the way to its own code.
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "hub_server.panel.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=kept,
    )
    assert process.stdin is not None, "asked for"
    assert process.stdout is not None, "asked for"
    try:
        yield _Pipes(process.stdin, process.stdout)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()


class _Pipes:
    """Frames to and from a worker."""

    def __init__(self, sink: trio.abc.SendStream, source: trio.abc.ReceiveStream) -> None:
        self._sink = sink
        self._source = source
        self._buffer = bytearray()

    async def send(self, header: Mapping[str, Any], octets: bytes | bytearray = b"") -> None:
        """One frame. Raises BrokenResourceError when the worker is gone."""
        await self._sink.send_all(packed(header, len(octets)))
        if octets:
            await self._sink.send_all(octets)

    async def receive(self) -> dict[str, Any]:
        """The header of the next frame; a worker sends no octets. Raises BrokenResourceError when it is gone."""
        await self._have(PREFIX.size)
        length, _ = PREFIX.unpack_from(self._buffer)
        end = PREFIX.size + length
        if end > _LONGEST_FRAME:
            raise trio.BrokenResourceError
        await self._have(end)
        header: dict[str, Any] = json.loads(self._buffer[PREFIX.size : end])
        del self._buffer[:end]
        return header

    async def _have(self, octets: int) -> None:
        while len(self._buffer) < octets:
            more = await self._source.receive_some(2**16)
            if not more:
                raise trio.BrokenResourceError
            self._buffer += more


class _Asker:
    """Sends a worker's requests to the edge, with one budget of octets and time for all of them."""

    def __init__(self, upstream: Upstream, grant: ProxyGrant, until: float) -> None:
        self._upstream = upstream
        self._grant = grant
        self._until = until
        self._left = _OCTETS_OF_LINE

    def close(self) -> None:
        """Let go of the connections."""
        self._upstream.close()

    async def ask(self, question: Question) -> Reply:
        """One request; every trouble is a reply."""
        reply = Reply(0, b"", is_over=True)
        # A log's own limit comes first, since what came of it until then counts.
        with trio.move_on_at(self._until + (1 if question.is_text else 0)):
            try:
                reply = await self._ask(question)
            except OSError as problem:
                text = f"the cluster cannot be reached through its tunnel: {problem.strerror}"
                reply = Reply(0, b"", problem=text)
            except EdgeFault as fault:
                reply = Reply(0, b"", problem=str(fault))
        return reply

    async def _ask(self, question: Question) -> Reply:
        fields = [
            (b"accept", question.accept.encode()),
            (b"user-agent", b"daalu-panel"),
            (b"daalu-request-id", secrets.token_hex(8).encode()),
            *identity_fields(self._grant),
        ]
        body = None if question.review is None else json.dumps(question.review).encode()
        if body is not None:
            if question.target not in _REVIEWS:
                return Reply(0, b"", problem="the panel only reads")
            fields.append((b"content-type", b"application/json"))

        async def send(out: Callable[[bytes], Awaitable[None]]) -> None:
            await out(body or b"")

        async with self._upstream.request(
            self._grant.cluster_id,
            "GET" if body is None else "POST",
            question.target,
            fields,
            None if body is None else send,
            length=None if body is None else len(body),
        ) as answer:
            most = min(question.most, _LONGEST_ANSWER, self._left)
            content = bytearray()
            is_over = True
            # What came of a log counts, also when it was not its end that ended it.
            with trio.move_on_at(self._until if question.is_text else float("inf")):
                while len(content) <= most and (piece := await answer.piece()):
                    content += piece
                is_over = False
            self._left -= len(content)
            is_too_large = len(content) > most
            # Nothing of an answer that is too large is of use to anybody, but the beginning of a text.
            del content[most if question.is_text or not is_too_large else 0 :]
            return Reply(answer.status, content, "", is_too_large, is_over)
