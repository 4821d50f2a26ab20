"""The edge's end of the in-tunnel protocol, by a clock that jumps: a scripted socket, and lines over memory."""

from __future__ import annotations

import collections
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from edge_agent.contract import ANSWER, ASK, BEAT, GOODBYE, Datagram, HubConfig
from edge_agent.control import Beats, Control, beat_interval, say_goodbye
from edge_agent.facts import ApiState, Facts
from edge_agent.nodes import NodeTable, parts_of
from edge_agent.settings import Settings
from tests.edge.fakehub import FakeHub

CONFIG = HubConfig.from_document({**FakeHub().public_config(), "config_revision": 1})


class ScriptedUdp:
    """A way to a hub that answers after a while, or does not."""

    def __init__(self, answer: Callable[[int, Datagram], float | None] = lambda number, beat: 0.04) -> None:
        """`answer` is told the number of the datagram and says after how long it is answered, None for never."""
        self.answer = answer
        self.sent: list[tuple[float, Datagram]] = []
        self.send_channel, self.inbox = trio.open_memory_channel[tuple[float, bytes]](1000)

    async def send(self, payload: bytes) -> None:
        datagram = Datagram.decode_untrusted(payload)
        assert datagram is not None
        now = trio.current_time()
        self.sent.append((now, datagram))
        delay = self.answer(len(self.sent), datagram)
        if delay is not None:
            answer = Datagram(ANSWER, datagram.seq, int(now * 1e6) + 77, datagram.sent, 0)
            self.send_channel.send_nowait((now + delay, answer.encode()))

    async def receive(self) -> bytes:
        at, octets = await self.inbox.receive()
        await trio.sleep_until(at)
        return octets

    def times(self, kind: int = BEAT) -> list[float]:
        start = self.sent[0][0]
        return [round(at - start, 2) for at, datagram in self.sent if datagram.kind == kind]


async def beat_for(
    seconds: float, udp: ScriptedUdp, facts: Facts, *, set_mtu: Callable[[int], None] | None = None
) -> tuple[list[float], list[float]]:
    """Beat for a while; when the hub was taken for lost, and when it asked for everything again."""
    lost: list[float] = []
    asked: list[float] = []
    start = trio.current_time()
    beats = Beats(
        udp,
        facts,
        lambda: 5.0,
        on_lost=lambda: lost.append(round(trio.current_time() - start, 2)),
        on_ask=lambda: asked.append(round(trio.current_time() - start, 2)),
        set_mtu=set_mtu,
    )
    with trio.move_on_after(seconds):
        await beats.run()
    return lost, asked


async def test_a_beat_every_five_seconds_and_the_round_trip_is_measured(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A18: the heartbeat of D2; the hub's time is echoed with how long it was held."""
    udp, facts = ScriptedUdp(), Facts()
    lost, _ = await beat_for(21, udp, facts)
    assert udp.times() == [0, 5, 10, 15, 20]
    assert lost == []
    assert facts.rtt == pytest.approx(0.04, abs=0.001)
    assert facts.is_seen
    second = udp.sent[1][1]
    assert second.echo == int(udp.sent[0][0] * 1e6) + 77
    assert second.held == pytest.approx(4.96e6, abs=1000)


async def test_a_single_loss_is_made_good_after_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """A18: at 1 % loss nothing is ever noticed."""
    udp = ScriptedUdp(lambda number, _: None if number == 2 else 0.04)
    lost, _ = await beat_for(11, udp, Facts())
    assert udp.times() == [0, 5, 6, 10]
    assert udp.sent[1][1].seq == udp.sent[2][1].seq
    assert lost == []


async def test_after_three_misses_the_hub_is_looked_for_anew(autojump_clock: trio.testing.MockClock) -> None:
    """A30, A48: fifteen seconds of silence, and again after each further fifteen."""
    udp, facts = ScriptedUdp(lambda number, _: None), Facts()
    lost, _ = await beat_for(31, udp, facts)
    assert lost == [15, 30]
    assert not facts.is_seen


async def test_an_answer_in_between_begins_the_count_anew(autojump_clock: trio.testing.MockClock) -> None:
    udp = ScriptedUdp(lambda _, beat: 0.04 if beat.seq % 3 == 0 else None)
    lost, _ = await beat_for(60, udp, Facts())
    assert lost == []


async def test_the_hub_may_ask_for_everything_again(autojump_clock: trio.testing.MockClock) -> None:
    """A48: a restarted hub has forgotten the control line."""
    udp = ScriptedUdp()
    udp.send_channel.send_nowait((trio.current_time() + 1, Datagram(ASK, 1, 5, 0).encode()))
    udp.send_channel.send_nowait((trio.current_time() + 1, b"DHx"))
    assert (await beat_for(3, udp, Facts()))[1] == [1]


async def test_the_largest_packet_that_arrives_is_found(autojump_clock: trio.testing.MockClock) -> None:
    """Section 10: a size that vanishes three times in a row is given up for the next smaller one."""
    chosen: list[int] = []
    facts = Facts(mtu=1420, endpoint="192.0.2.1:51820")
    udp = ScriptedUdp(lambda _, beat: None if len(beat.encode()) + 28 > 1350 else 0.04)
    await beat_for(60, udp, facts, set_mtu=chosen.append)
    assert chosen == [1340]
    sizes = collections.Counter(len(beat.encode()) + 28 for _, beat in udp.sent)
    assert (sizes[1420], sizes[1380], sizes[1340]) == (3, 3, 1)


async def test_a_silent_hub_is_no_small_mtu(autojump_clock: trio.testing.MockClock) -> None:
    chosen: list[int] = []
    facts = Facts(mtu=1420, endpoint="192.0.2.1:51820")
    udp = ScriptedUdp(lambda number, _: 0.04 if number == 1 or number > 30 else None)
    await beat_for(120, udp, facts, set_mtu=chosen.append)
    assert chosen == [1420]


@pytest.mark.parametrize(("reason", "octet"), [("unknown", 0), ("uninstalled", 1), ("restarting", 2)])
async def test_goodbye_is_said_three_times(autojump_clock: trio.testing.MockClock, reason: str, octet: int) -> None:
    """A35: 50 ms apart, so that one lost datagram does not look like a failure."""
    udp = ScriptedUdp(lambda number, _: None)
    await say_goodbye(udp, reason)
    assert udp.times(GOODBYE) == [0, 0.05, 0.1]
    assert {datagram.rest for _, datagram in udp.sent} == {bytes([octet])}


def test_the_chart_decides_over_the_heartbeat_where_it_says_something() -> None:
    """D29: `wg.heartbeat` other than the default wins, else the hub's wish."""
    asked = CONFIG.changed_by({"revision": 2, "heartbeat": 10})
    assert beat_interval(Settings(), asked) == 10
    assert beat_interval(Settings(heartbeat=20), asked) == 20
    assert beat_interval(Settings(), CONFIG) == 5


# --- control lines ----------------------------------------------------------------------------------------------------


class Hub:
    """The other end of control lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, dict[str, Any]]] = []
        self.dialled: list[float] = []
        self.streams: list[trio.StapledStream[Any, Any]] = []
        self.first: list[dict[str, Any]] = [{"type": "welcome", "protocol": 1, "now": time.time()}]
        self.nursery: trio.Nursery | None = None
        self.start = trio.current_time()

    async def dial(self, port: int) -> trio.StapledStream[Any, Any]:
        assert port == 7001
        self.dialled.append(round(trio.current_time() - self.start, 1))
        ours, theirs = trio.testing.memory_stream_pair()
        self.streams.append(ours)
        assert self.nursery is not None
        self.nursery.start_soon(self.listen, ours)
        return theirs

    async def listen(self, stream: trio.StapledStream[Any, Any]) -> None:
        rest = b""
        for message in self.first:
            await stream.send_all(json.dumps(message).encode() + b"\n")
        while data := await stream.receive_some(65536):
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [(round(trio.current_time() - self.start, 1), json.loads(line)) for line in lines]

    def of_type(self, kind: str) -> list[tuple[float, dict[str, Any]]]:
        return [(at, message) for at, message in self.lines if message["type"] == kind]


class Held:
    """A configuration that is applied by being kept."""

    def __init__(self) -> None:
        self.config = CONFIG

    async def apply(self, config: HubConfig) -> None:
        self.config = config


async def talk(
    seconds: float, hub: Hub, facts: Facts, nodes: NodeTable, held: Held, story: Callable[[Control], Any] | None = None
) -> None:
    control = Control(
        Settings(), facts, nodes, dial=hub.dial, config=lambda: held.config, apply=held.apply, unit=lambda: 1.0
    )
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as hub.nursery:
            hub.nursery.start_soon(control.run)
            if story is not None:
                hub.nursery.start_soon(story, control)


def row(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "ready": True, "schedulable": True, "roles": [], "version": "v1", "created": 1, **more}


async def test_hello_comes_first_then_what_is_known(autojump_clock: trio.testing.MockClock) -> None:
    hub, nodes = Hub(), NodeTable()
    nodes.replace({"a": row("a")})
    facts = Facts(boot_id="b", mode="userspace", mtu=1420, api=ApiState("ok"))
    await talk(1, hub, facts, nodes, Held())
    kinds = [message["type"] for _, message in hub.lines]
    assert (kinds[0], sorted(kinds[1:])) == ("hello", ["api", "nodes"])
    hello = hub.lines[0][1]
    assert hello["service_account"] == "system:serviceaccount:daalu-edge:daalu-edge"
    assert hello["config_revision"] == 1


async def test_nodes_come_at_a_change_at_most_every_five_seconds_and_at_least_every_thirty(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A20: within 30 s at any rate; a storm of changes is one message."""
    hub, nodes = Hub(), NodeTable()
    nodes.replace({"a": row("a")})

    async def story(_: Control) -> None:
        await trio.sleep(40)
        for number in range(30):
            nodes.put(row("a", created=number))
            await trio.sleep(0.1)

    await talk(59, hub, Facts(api=ApiState("ok")), nodes, Held(), story)
    assert [at for at, _ in hub.of_type("nodes")] == [0, 30, 40, 45]
    assert hub.of_type("nodes")[-1][1]["nodes"][0]["created"] == 29
    assert [at for at, _ in hub.of_type("api")] == [0, 30]


def test_five_thousand_nodes_fit_into_lines() -> None:
    """Each line below 64 KiB, together all of them, the last one marked."""
    nodes = NodeTable()
    nodes.replace({f"node-{number}": row(f"node-{number}" + "x" * 200) for number in range(5000)})
    parts = parts_of(nodes)
    assert max(len(json.dumps(part)) for part in parts) < 65536
    assert sum(len(part["nodes"]) for part in parts) == 5000
    assert [part["last"] for part in parts] == [False] * (len(parts) - 1) + [True]


async def test_a_change_of_the_api_server_is_told_at_once(autojump_clock: trio.testing.MockClock) -> None:
    hub, facts = Hub(), Facts(api=ApiState("ok"))

    async def story(_: Control) -> None:
        await trio.sleep(7)
        facts.api = ApiState("unreachable", "ECONNREFUSED", "Connection refused")
        facts.note()

    await talk(10, hub, facts, NodeTable(), Held(), story)
    assert [(at, message["state"]) for at, message in hub.of_type("api")] == [(0, "ok"), (7, "unreachable")]


async def test_hello_is_said_again_when_something_in_it_changed(autojump_clock: trio.testing.MockClock) -> None:
    """The API server answers only later, or the way carries smaller packets: the row shows it without reconnecting."""
    hub, facts = Hub(), Facts(mtu=1420)

    async def story(_: Control) -> None:
        await trio.sleep(3)
        facts.note()
        await trio.sleep(3)
        facts.kube_version, facts.mtu = "v1.36.3", 1340
        facts.note()

    await talk(10, hub, facts, NodeTable(), Held(), story)
    assert [(at, message["mtu"]) for at, message in hub.of_type("hello")] == [(0, 1420), (6, 1340)]
    assert hub.dialled == [0]


async def test_a_newer_configuration_is_applied_and_acknowledged_and_a_wrong_one_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A41: a change of the hub's settings needs no restart; a rejected revision leaves the old one in force."""
    hub, held = Hub(), Held()
    hub.first += [
        {"type": "config", "revision": 2, "keepalive": 10},
        {"type": "config", "revision": 3, "keepalive": 0x10000},
        {"type": "of a later version"},
    ]
    await talk(1, hub, Facts(), NodeTable(), held)
    acks = [message for _, message in hub.of_type("config_ack")]
    assert acks[0] == {"type": "config_ack", "revision": 2, "error": None}
    assert (acks[1]["revision"], "keepalive" in acks[1]["error"]) == (3, True)
    assert (held.config.revision, held.config.keepalive) == (2, 10)


async def test_a_refusal_is_shown_and_the_hub_left_alone_for_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    """A76 in small: VersionTooOld says which side is old; welcome ends it."""
    hub, facts = Hub(), Facts(problem="")
    hub.first = [{"type": "refused", "code": "VersionTooOld", "detail": "the edge is too old"}]

    async def story(_: Control) -> None:
        await trio.sleep(50)
        assert facts.why_not_ready()[0] == "VersionTooOld: the edge is too old"
        hub.first = [{"type": "welcome", "protocol": 1, "now": time.time()}]

    await talk(70, hub, facts, NodeTable(), Held(), story)
    assert hub.dialled == [0, 60]
    assert facts.problem == ""


async def test_a_lost_line_is_opened_again_and_more_slowly_each_time(autojump_clock: trio.testing.MockClock) -> None:
    """A48: back-off from half a second to fifteen; the hub may call it sooner."""
    hub = Hub()

    async def refuse(port: int) -> Any:
        hub.dialled.append(round(trio.current_time() - hub.start, 1))
        raise ConnectionRefusedError

    hub.dial = refuse  # type: ignore[method-assign]

    async def story(control: Control) -> None:
        await trio.sleep(40)
        control.reconnect()

    await talk(42, hub, Facts(), NodeTable(), Held(), story)
    assert hub.dialled == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 30.5, 40]


async def test_an_endless_line_of_the_hub_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    hub = Hub()

    async def story(_: Control) -> None:
        await trio.sleep(1)
        await hub.streams[0].send_all(b"x" * 70000)

    await talk(1.8, hub, Facts(), NodeTable(), Held(), story)
    assert hub.dialled == [0, 1.5]
