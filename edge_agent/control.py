"""The in-tunnel conversation with the hub: heartbeats on UDP 7000, JSON lines on TCP 7001.

    Beats    beat -> answer: seen, round-trip time, MTU probes; three misses: the tunnel looks for the hub anew
    Control  hello -> welcome, config -> config_ack, nodes and API state as they change and every 30 s

Both ends ignore types they do not know. The socket is bound to the hub's address: nobody else is heard.
"""

from __future__ import annotations

import json
import logging
import random as random_module
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from edge_agent import __version__, supervise
from edge_agent.contract import ANSWER, ASK, BEAT, GOODBYE, PROTOCOL, Datagram, HubConfig
from edge_agent.foreign import Document, ForeignError, cleaned
from edge_agent.nodes import parts_of
from edge_agent.nursery import open_plain_nursery

if TYPE_CHECKING:
    from edge_agent.facts import Facts
    from edge_agent.nodes import NodeTable
    from edge_agent.settings import Settings
    from edge_agent.tunnel import Udp

__all__ = ["BEAT_PORT", "CONTROL_PORT", "REASONS", "Beats", "Control", "beat_interval", "say_goodbye"]

_log = logging.getLogger("edge.control")

BEAT_PORT: Final = 7000
CONTROL_PORT: Final = 7001
RESEND: Final = 1.0
MISSES: Final = 3
# Inner sizes that are tried, the greatest first (section 10).
MTU_STEPS: Final = (1420, 1380, 1340, 1280)
# IPv4 and UDP headers around a heartbeat.
_HEADERS: Final = 28
REASONS: Final = {"unknown": 0, "uninstalled": 1, "restarting": 2}
_GOODBYES: Final = 3
_GOODBYE_GAP: Final = 0.05
_LINE_LIMIT: Final = 65536
_COALESCE: Final = 5.0
_REFRESH: Final = 30.0
_RECONNECT: Final = (0.5, 15.0)
_CONNECT_TIMEOUT: Final = 10.0
_REFUSED_PAUSE: Final = 60.0


def beat_interval(settings: Settings, config: HubConfig) -> float:
    """Seconds between heartbeats: the chart's where it departs from the default, else the hub's."""
    if settings.heartbeat != 5 or config.heartbeat is None:
        return settings.heartbeat * 1.0
    return config.heartbeat


class Beats:
    """Heartbeats, and what is learnt from their answers."""

    def __init__(
        self,
        udp: Udp,
        facts: Facts,
        interval: Callable[[], float],
        *,
        on_lost: Callable[[], None],
        on_ask: Callable[[], None] = lambda: None,
        set_mtu: Callable[[int], None] | None = None,
    ) -> None:
        """Speak over a socket.

        Args:
            udp: to and from the hub's port.
            facts: are told of answers.
            interval: seconds between beats, asked before each.
            on_lost: called after three beats without any answer.
            on_ask: called when the hub wants everything again.
            set_mtu: called with a smaller MTU when probes of a size vanish; None for a size that is forced.
        """
        self._udp = udp
        self._facts = facts
        self._interval = interval
        self._on_lost = on_lost
        self._on_ask = on_ask
        self._set_mtu = set_mtu
        self._seq = 0
        self._answered = trio.Event()
        self._probes: dict[int, int] = {}
        self._probe_passed = trio.Event()
        self._hub_sent = 0
        self._hub_sent_at = 0.0
        self._missed = 0

    async def run(self) -> None:
        """Beat for ever."""
        async with trio.open_nursery() as nursery:
            supervise.start_kept(nursery, "answers to heartbeats", self._receive)
            if self._set_mtu is not None:
                supervise.start_kept(nursery, "MTU probes", self._probe, self._set_mtu)
            supervise.start_kept(nursery, "heartbeats", self._beat_on)

    async def _beat_on(self) -> None:
        while True:
            await self._beat()

    async def _beat(self) -> None:
        self._seq += 1
        answered = self._answered = trio.Event()
        ends_at = trio.current_time() + self._interval()
        while trio.current_time() < ends_at and not answered.is_set():
            await self._send(self._datagram(BEAT, self._seq))
            with trio.move_on_at(min(trio.current_time() + RESEND, ends_at)):
                await answered.wait()
        if answered.is_set():
            self._missed = 0
            await trio.sleep_until(ends_at)
            return
        self._missed += 1
        if self._missed % MISSES == 0:
            _log.warning("no answer to %d heartbeats: looking for the hub anew", self._missed)
            self._on_lost()

    async def _probe(self, set_mtu: Callable[[int], None]) -> None:
        """Find the largest inner packet that really arrives, at the start and whenever the way changes."""
        while True:
            while not self._facts.is_seen:
                await self._facts.changed()
            endpoint = self._facts.endpoint
            for size in (self._facts.mtu, *(step for step in MTU_STEPS if step < self._facts.mtu)):
                if await self._passes(size):
                    set_mtu(size)
                    break
                _log.warning("packets of %d octets do not arrive", size)
            while self._facts.endpoint == endpoint:
                await self._facts.changed()

    async def _passes(self, size: int) -> bool:
        """Whether one of three padded beats of this size is answered; silence of the whole hub proves nothing."""
        lost = 0
        while lost < 3:
            passed = self._probe_passed = trio.Event()
            self._seq += 1
            seq = self._seq
            self._probes[seq] = size
            seen_before = self._facts.seen_at
            await self._send(self._datagram(BEAT, seq).padded_to(size - _HEADERS))
            with trio.move_on_after(RESEND):
                await passed.wait()
            self._probes.pop(seq, None)
            if passed.is_set():
                return True
            if self._facts.seen_at is None or not self._facts.is_seen:
                await trio.sleep(RESEND)
                continue
            if self._facts.seen_at == seen_before:
                # Nothing at all was heard meanwhile: ask with a small one whether it is the size.
                await self._send(self._datagram(BEAT, self._seq))
                await trio.sleep(RESEND)
                if self._facts.seen_at == seen_before:
                    continue
            lost += 1
        return False

    def _datagram(self, kind: int, seq: int) -> Datagram:
        now = trio.current_time()
        held = round((now - self._hub_sent_at) * 1e6) if self._hub_sent else 0
        return Datagram(kind, seq, round(now * 1e6), self._hub_sent, held)

    async def _send(self, datagram: Datagram) -> None:
        try:
            await self._udp.send(datagram.encode())
        except OSError as problem:
            _log.debug("heartbeat: %s", problem)

    async def _receive(self) -> None:
        while True:
            try:
                octets = await self._udp.receive()
            except OSError as problem:
                # ICMP says that nobody listens: the hub is starting. The misses count that.
                _log.debug("heartbeat: %s", problem)
                await trio.sleep(0.1)
                continue
            datagram = Datagram.decode_untrusted(octets)
            if datagram is not None:
                self._take(datagram)

    def _take(self, datagram: Datagram) -> None:
        now = trio.current_time()
        self._hub_sent, self._hub_sent_at = datagram.sent, now
        match datagram.kind:
            case kind if kind == ANSWER:
                self._facts.seen_at = now
                self._facts.note()
                rtt = now - datagram.echo / 1e6 - datagram.held / 1e6
                if datagram.echo and 0 <= rtt < 60:
                    self._facts.rtt = rtt
                self._answered.set()
                if datagram.seq in self._probes:
                    self._probe_passed.set()
            case kind if kind == ASK:
                self._on_ask()
            case _:
                pass


async def say_goodbye(udp: Udp, reason: str) -> None:
    """Three copies, so that one lost datagram does not make us look like a failure."""
    datagram = Datagram(GOODBYE, 0, round(trio.current_time() * 1e6), rest=bytes([REASONS[reason]])).encode()
    for number in range(_GOODBYES):
        if number:
            await trio.sleep(_GOODBYE_GAP)
        await udp.send(datagram)


class Control:
    """The line to the hub, opened again and again."""

    def __init__(
        self,
        settings: Settings,
        facts: Facts,
        nodes: NodeTable,
        *,
        dial: Callable[[int], Awaitable[trio.abc.HalfCloseableStream]],
        config: Callable[[], HubConfig],
        apply: Callable[[HubConfig], Awaitable[None]],
        check: Callable[[HubConfig], None] = lambda _: None,
        on_older: Callable[[], None] = lambda: None,
        job: Callable[[], str | None] = lambda: None,
        unit: Callable[[], float] = random_module.random,
    ) -> None:
        """Say who we are and what we see.

        Args:
            settings: of the chart.
            facts: of the agent.
            nodes: of the cluster.
            dial: a connection to a port of the hub.
            config: the configuration that is held.
            apply: takes a new one and keeps it.
            check: raises ValueError for one that is refused.
            on_older: called when the hub sends an older one than is held.
            job: name of the bootstrap Job, for the hub's texts.
            unit: numbers from 0 to 1.
        """
        self._settings = settings
        self._facts = facts
        self._nodes = nodes
        self._dial = dial
        self._config = config
        self._apply = apply
        self._check = check
        self._on_older = on_older
        self._job = job
        self._unit = unit
        self._again = trio.Event()
        self._was_refused = False

    def reconnect(self) -> None:
        """Open the line anew and say everything again: the hub asks for it."""
        self._again.set()

    async def run(self) -> None:
        """Keep a line open for ever."""
        delay, most = _RECONNECT
        while True:
            self._again = trio.Event()
            pause = 0.0
            with supervise.confined("control line"):
                try:
                    with trio.fail_after(_CONNECT_TIMEOUT):
                        stream = await self._dial(CONTROL_PORT)
                    try:
                        pause = await self._converse(stream)
                        delay = _RECONNECT[0]
                    finally:
                        await trio.aclose_forcefully(stream)
                except (OSError, trio.BrokenResourceError, trio.TooSlowError) as problem:
                    _log.debug("control: %s", problem or "no answer")
            with trio.move_on_after(max(pause, delay * (0.5 + self._unit() / 2))):
                await self._again.wait()
            delay = min(delay * 2, most)

    async def _converse(self, stream: trio.abc.HalfCloseableStream) -> float:
        """Speak until the line ends; seconds to wait at least before the next one."""
        line = _Line(stream)
        said = self.hello()
        await line.send(said)
        pause = 0.0
        async with open_plain_nursery() as nursery:

            async def listen() -> None:
                nonlocal pause
                async for message in line:
                    match kind_of(message):
                        case "welcome":
                            _log.info("the hub says welcome")
                            self._compare_clocks(message)
                            if self._was_refused:
                                self._facts.code = self._facts.problem = ""
                                self._was_refused = False
                            nursery.start_soon(self._tell_changes, line, said)
                            nursery.start_soon(self._tell_nodes, line)
                            nursery.start_soon(self._tell_api, line)
                        case "refused":
                            facts = self._facts
                            facts.code, facts.problem = (
                                cleaned(message.text(name), 400) for name in ("code", "detail")
                            )
                            _log.error("%s: the hub refuses us: %s", facts.code, facts.problem)
                            self._was_refused = True
                            pause = _REFUSED_PAUSE
                            break
                        case "config":
                            await self._take_config(line, message)
                        case _:
                            pass
                nursery.cancel_scope.cancel()

            async def leave_when_asked() -> None:
                await self._again.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(leave_when_asked)
            nursery.start_soon(listen)
        return pause

    def hello(self) -> dict[str, Any]:
        """Who we are."""
        settings, facts, config = self._settings, self._facts, self._config()
        return {
            "type": "hello",
            "protocol": PROTOCOL,
            "agent_version": __version__,
            "chart_version": settings.chart_version,
            "kube_version": facts.kube_version,
            "cluster_uid": facts.cluster_uid,
            "mode": facts.mode,
            "mode_reason": facts.mode_reason,
            "mtu": facts.mtu,
            # Per-user identity is not granted by this chart: the hub must not ask for it.
            "impersonation": {"enabled": False, "users": [], "groups": []},
            "config_revision": config.revision,
            "boot_id": facts.boot_id,
            "service_account": settings.account_name,
            "namespace": settings.namespace,
            "job": self._job(),
            "heartbeat": beat_interval(settings, config),
            # Seconds that our clock is ahead of the hub's, where they differ by more than a handshake forgives.
            "clock_skew": facts.clock_skew,
        }

    async def _take_config(self, line: _Line, message: Document) -> None:
        held = self._config()
        revision = None
        try:
            revision = message.integer("revision", least=0, most=2**53)
            changed = held.changed_by(message)
            self._check(changed)
            if changed.revision > held.revision:
                await self._apply(changed)
                _log.info("configuration %d is in force", changed.revision)
            elif changed.revision < held.revision:
                # A hub that came back from an older backup counts from there. What it signs decides, not the number;
                # our next hello says what came of it.
                _log.warning("the hub sent configuration %d after %d: asking it", changed.revision, held.revision)
                self._on_older()
                return
        except ValueError as problem:
            _log.warning("configuration %s is refused: %s", revision, problem)
            await line.send({"type": "config_ack", "revision": revision, "error": str(problem)[:400]})
            return
        await line.send({"type": "config_ack", "revision": revision, "error": None})

    def _compare_clocks(self, welcome: Document) -> None:
        """Our clock beside the hub's: handshakes carry ours, and a hub that has seen a later one refuses them."""
        try:
            now = welcome.time("now")
        except ForeignError:
            return
        if now is not None:
            self._facts.note_clock(time.time() - now)

    async def _tell_changes(self, line: _Line, said: dict[str, Any]) -> None:
        """Hello again, when something in it changed: the API server answers by now, the way carries smaller packets."""
        while True:
            while (hello := self.hello()) == said:
                await self._facts.changed()
            said = hello
            await line.send(said)

    async def _tell_nodes(self, line: _Line) -> None:
        """The table at once, then when it changed, at most every 5 s and at least every 30 s."""
        while True:
            if self._nodes.rows is not None:
                for part in parts_of(self._nodes):
                    await line.send(part)
            told = self._nodes.generation
            started = trio.current_time()
            with trio.move_on_at(started + _REFRESH):
                while self._nodes.generation == told:
                    await self._nodes.changed()
                if self._nodes.rows is not None and told:
                    await trio.sleep_until(started + _COALESCE)

    async def _tell_api(self, line: _Line) -> None:
        """How the API server answers: at once, at every change and every 30 s."""
        while True:
            api = self._facts.api
            if api.state:
                await line.send(
                    {"type": "api", "state": api.state, "errno": api.errno_name, "detail": api.detail[:1024]}
                )
            with trio.move_on_after(_REFRESH):
                while self._facts.api == api:
                    await self._facts.changed()


class _Line:
    """JSON lines over a stream, bounded, one sender at a time."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self._lock = trio.Lock()
        self._rest = bytearray()

    async def send(self, message: dict[str, Any]) -> None:
        async with self._lock:
            await self._stream.send_all(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def __aiter__(self) -> _Line:
        return self

    async def __anext__(self) -> Document:
        while True:
            end = self._rest.find(b"\n")
            if end >= 0:
                text = bytes(self._rest[:end])
                del self._rest[: end + 1]
                try:
                    return Document.parse(text, _LINE_LIMIT)
                except ForeignError as problem:
                    _log.debug("control: a line of the hub is passed over: %s", problem)
                continue
            if len(self._rest) > _LINE_LIMIT:
                raise StopAsyncIteration
            data = await self._stream.receive_some(16384)
            if not data:
                raise StopAsyncIteration
            self._rest += data


def kind_of(message: Document) -> str:
    """Its type, empty where it has none that we could know."""
    try:
        return message.text("type", most=40)
    except ForeignError:
        return ""
