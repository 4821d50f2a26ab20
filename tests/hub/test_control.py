"""Beats and control connections: what is answered, what is told on, what is refused; the hostile half of A65."""

from __future__ import annotations

import json
import random
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from hub_server import supervise
from hub_server.domain.messages import (
    CONTROL_LINE,
    NODES_MOST,
    BadMessage,
    Beat,
    BeatType,
    parse_api,
    parse_config_ack,
    parse_hello,
    parse_line,
    parse_nodes,
    round_trip,
)
from tests.hub.edges import HELLO, NODE, Edge, open_hub

# --- beats -----------------------------------------------------------------------------------------------------------


async def test_a_beat_is_answered_with_its_number_and_length_and_measured_both_ways() -> None:
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, _), edge.connected(wire):
        first = await edge.beat()
        assert first.echo > 0
        assert notes.of("beat") == [None], "nothing to measure yet"
        second = await edge.beat(bytes(1300))
        assert len(second.padding) == 1300
        [_, rtt] = notes.of("beat")
        assert 0 <= rtt < 5


async def test_a_goodbye_carries_its_reason_and_gets_no_answer() -> None:
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, _), edge.connected(wire):
        await edge.beat()
        for reason in (0, 1, 2, 77):
            await edge.send_beat(BeatType.GOODBYE, bytes([reason]))
        await edge.send_beat(BeatType.GOODBYE)
        assert await notes.until("goodbye", 5) == ["unknown", "uninstalled", "restarting", "unknown", "unknown"]


async def test_an_edge_without_control_connection_is_asked_to_open_one() -> None:
    """A48: what a hub has forgotten over a restart is asked for, now and then and not at every beat."""
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, _, control), edge.connected(wire):
        kinds = []
        control._asked_at["cl_1"] = float("-inf")
        for _ in range(3):
            await edge.send_beat()
        with trio.move_on_after(0.3):
            while True:
                kinds.append(Beat.decode_untrusted(await edge.udp.receive()).type)
        assert sorted(kinds) == [BeatType.ANSWER] * 3 + [BeatType.ASK]
        control._asked_at["cl_1"] = float("-inf")
        async with edge.control() as talk:
            await talk.receive()
            await edge.beat()
            with trio.move_on_after(0.1):
                assert Beat.decode_untrusted(await edge.udp.receive()).type != BeatType.ASK


async def test_a_flood_of_beats_is_answered_no_faster_than_beats_may_come() -> None:
    edge, other = Edge("cl_1"), Edge("cl_2", number=3)
    async with open_hub(edge, other) as (wire, notes, _), edge.connected(wire), other.connected(wire):
        await edge.beat()
        for _ in range(200):
            await edge.send_beat()
        await other.beat()
        assert len(notes.of("beat", "cl_1")) < 60
        assert len(notes.of("beat", "cl_2")) == 1


@pytest.mark.parametrize("datagram", [b"", b"DH", b"XX" + bytes(30), b"DH\2\1" + bytes(28), bytes(1400)])
async def test_what_is_no_beat_is_ignored(datagram: bytes) -> None:
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, _), edge.connected(wire):
        await edge.udp.send(datagram)
        await edge.beat()
        assert len(notes.of("beat")) == 1


def test_a_round_trip_that_cannot_be_is_none() -> None:
    assert round_trip(Beat(1, 1, 5, echo=0), 100) is None
    assert round_trip(Beat(1, 1, 5, echo=1_000_000, held=500_000), 2_000_000) == 0.5
    assert round_trip(Beat(1, 1, 5, echo=2**63), 2_000_000) is None
    assert round_trip(Beat(1, 1, 5, echo=1), 10**15) is None


# --- control ---------------------------------------------------------------------------------------------------------


async def test_hello_welcome_and_configuration_by_revision() -> None:
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, control), edge.connected(wire):
        notes.config["revision"] = 3
        async with edge.control() as talk:
            welcome = await talk.receive()
            assert welcome is not None
            assert (welcome["type"], welcome["protocol"]) == ("welcome", 1)
            config = await talk.receive()
            assert config is not None
            assert (config["type"], config["revision"], config["heartbeat"]) == ("config", 3, 5)
            await talk.send({"type": "config_ack", "revision": 3, "error": None})
            await notes.until("acknowledged")
            await control.config_changed("cl_1")
            notes.config["revision"] = 4
            await control.config_changed("cl_1")
            config = await talk.receive()
            assert config is not None
            assert config["revision"] == 4
            await talk.send({"type": "config_ack", "revision": 4, "error": "mtu is too large"})
            assert await notes.until("acknowledged", 2) == [(3, None), (4, "mtu is too large")]
        [hello] = notes.of("hello")
        assert (hello.kube_version, hello.impersonation.enabled, hello.namespace) == ("v1.36.3", False, "daalu-edge")
        await control.config_changed("cl_unknown")


async def test_an_edge_that_is_too_old_is_told_and_let_go() -> None:
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, control), edge.connected(wire):
        notes.refusal = "the edge speaks protocol 0"
        async with edge.control() as talk:
            assert await talk.receive() == {
                "type": "refused", "code": "VersionTooOld", "detail": "the edge speaks protocol 0",
            }  # fmt: skip
            assert await talk.receive() is None
        assert not control.is_connected("cl_1")


async def test_nodes_arrive_in_parts_and_replace_the_table_as_a_whole() -> None:
    """A20, the hub's end."""
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, _), edge.connected(wire), edge.control() as talk:
        for part, name in enumerate(["a", "b", "c"]):
            node = NODE | {"name": name}
            await talk.send({"type": "nodes", "generation": 9, "part": part, "last": part == 2, "nodes": [node]})
        [nodes] = await notes.until("nodes")
        assert [node.name for node in nodes] == ["a", "b", "c"]
        assert nodes[0].roles == ("control-plane",)
        await talk.send({"type": "nodes", "generation": 10, "part": 0, "last": True, "nodes": []})
        assert (await notes.until("nodes", 2))[1] == []
        await talk.send({"type": "of the future", "x": [1]})
        await talk.send({"type": "api", "state": "unreachable", "errno": "ECONNREFUSED", "detail": "no"})
        assert await notes.until("api") == [("unreachable", "ECONNREFUSED", "no")]


async def test_a_second_connection_of_an_edge_ends_the_first() -> None:
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, _, control), edge.connected(wire), edge.control() as first:
        assert await first.receive() is not None
        async with edge.control() as second:
            assert await second.receive() is not None
            assert await first.receive() is None
            assert control.is_connected("cl_1")
            control.forget("cl_1")
            assert await second.receive() is None


async def test_who_says_nothing_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, _, _), edge.connected(wire):
        async with edge.control(None) as talk:
            assert await talk.receive() is None
        async with edge.control() as talk:
            assert await talk.receive() is not None
            assert await talk.receive() is None


async def test_a_fault_of_the_sink_ends_one_connection_and_nothing_else() -> None:
    before = supervise.failures.get("control connection", 0)
    edge, other = Edge("cl_1"), Edge("cl_2", number=3)
    async with open_hub(edge, other) as (wire, notes, _), edge.connected(wire), other.connected(wire):

        def fails(*arguments: object) -> None:
            raise RuntimeError("a fault")

        notes.api_state = fails  # type: ignore[method-assign]
        async with edge.control() as talk, other.control() as kept:
            assert await kept.receive() is not None
            assert await talk.receive() is not None
            await talk.send({"type": "api", "state": "ok", "errno": None, "detail": ""})
            assert await talk.receive() is None
            await kept.send({"type": "nodes", "generation": 1, "part": 0, "last": True, "nodes": []})
            await notes.until("nodes")
    assert supervise.failures["control connection"] == before + 1


# --- hostile ---------------------------------------------------------------------------------------------------------

HOSTILE = [
    b"\n",
    b"{}\n",
    b"[]\n",
    b"null\n",
    b'{"type": 5}\n',
    b'{"type": "nodes"}\n',
    b"\xff\xfe\n",
    b"[" * 60_000 + b"\n",
    b'{"type": "hello", "a": ' + b'{"b":' * 5000 + b"}\n",
    b'{"type": "api", "state": "lovely"}\n',
    b'{"type": "config_ack", "revision": -1}\n',
    b'{"type": "config_ack", "revision": true}\n',
    b'{"type": "config_ack", "revision": ' + b"9" * 5000 + b"}\n",
    b'{"type": "nodes", "generation": 1, "part": 1, "last": true, "nodes": []}\n',
    b'{"type": "nodes", "generation": 1, "part": 0, "last": 1, "nodes": []}\n',
    b'{"type": "nodes", "generation": 1, "part": 0, "last": true, "nodes": [{"name": null}]}\n',
    b'{"type": "nodes", "generation": 1, "part": 0, "last": true, "nodes": [{"name": "a", "created": NaN}]}\n',
    b'{"type": "nodes", "generation": 1, "part": 0, "last": true, "nodes": '
    b'[{"name": "a", "ready": true, "created": 1e12}]}\n',
    b'{"type": "nodes", "generation": 1' + b"0" * 400 + b', "part": 0, "last": true, "nodes": []}\n',
    b'{"type": "api", "state": "ok", "detail": "\\ud800"}\n',
    b'{"type": "api", "type": "hello", "state": "ok"}\n',
    b"x" * (CONTROL_LINE + 2),
    b" " * CONTROL_LINE * 3 + b"\n",
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_line_costs_itself_and_nothing_else(line: bytes) -> None:
    """A65: as the first line it ends the connection; after a good hello it is refused, and what follows is taken."""
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, _), edge.connected(wire):
        async with edge.control(None) as talk:
            with suppress(trio.BrokenResourceError):
                await talk.stream.send_all(line)
                assert await talk.receive() is None
        async with edge.control() as talk:
            assert (await talk.receive() or {})["type"] == "welcome"
            await talk.stream.send_all(line)
            if line != b"\n":
                assert (await talk.receive() or {})["type"] == "message_refused"
                assert "refused" in (await notes.until("misbehaved", 2))[1]
            if not line.endswith(b"\n"):
                await talk.stream.send_all(b"\n")
            await talk.send({"type": "api", "state": "ok", "errno": None, "detail": ""})
            assert await notes.until("api") == [("ok", None, "")]
        async with edge.control() as talk:
            assert await talk.receive() is not None
        await edge.beat()
        assert len(notes.of("hello")) == 2


def mutated(rng: random.Random, value: Any) -> Any:
    """The same document, a little wrong."""
    strange = [
        None,
        True,
        -1,
        2**70,
        1.5,
        "",
        "x" * 5000,
        "<img src=x onerror=alert(1)>",
        "\x00\x1b[2J\r\n",
        [],
        {},
        [[]],
        {"a": {}},
    ]
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        match rng.randrange(3):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return value | {key: mutated(rng, value[key])}
            case _:
                return value | {key: rng.choice(strange)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], mutated(rng, value[at]), *value[at + 1 :]]
    return rng.choice(strange)


def test_mutated_messages_raise_nothing_but_bad_message_and_keep_no_memory() -> None:
    """A65: 20,000 of them here, and octets turned at random; every string that passes is bounded and printable."""
    rng = random.Random(65)
    documents: list[dict[str, Any]] = [
        HELLO,
        {"type": "nodes", "generation": 1, "part": 0, "last": True, "nodes": [NODE, NODE]},
        {"type": "api", "state": "ok", "errno": None, "detail": "x"},
        {"type": "config_ack", "revision": 3, "error": None},
    ]
    parsers = {"hello": parse_hello, "nodes": parse_nodes, "api": parse_api, "config_ack": parse_config_ack}
    tracemalloc.start()
    passed = 0
    for _ in range(20_000):
        line = bytearray(json.dumps(mutated(rng, rng.choice(documents))).encode())
        if rng.random() < 0.5:
            for _ in range(rng.randrange(4)):
                line[rng.randrange(len(line))] = rng.randrange(256)
        try:
            kind, message = parse_line(bytes(line))
            if kind in parsers:
                said = str(parsers[kind](message))  # type: ignore[operator]
                passed += 1
                assert len(said) < 20_000
                assert "\x1b" not in said
        except BadMessage:
            continue
    assert passed > 1000
    assert tracemalloc.get_traced_memory()[0] < 2**20
    tracemalloc.stop()


async def test_a_node_table_without_end_is_cut_at_the_limit() -> None:
    """A65: 1 GB of nodes costs the hub the 5,000 it takes, and slows nobody else down."""
    edge, other = Edge("cl_1"), Edge("cl_2", number=3)
    async with open_hub(edge, other) as (wire, notes, control), edge.connected(wire), other.connected(wire):
        async with edge.control() as talk, trio.open_nursery() as nursery:

            async def flood() -> None:
                part = 0
                while True:
                    nodes = [NODE | {"name": f"n{part}-{n}"} for n in range(400)]
                    await talk.send({"type": "nodes", "generation": 1, "part": part, "last": False, "nodes": nodes})
                    part += 1

            nursery.start_soon(flood)
            while not control.is_connected("cl_1") or len(control._connections["cl_1"].nodes) < NODES_MOST:  # noqa: ASYNC110
                await trio.sleep(0.01)
            for _ in range(20):
                await other.beat()
            assert len(control._connections["cl_1"].nodes) <= NODES_MOST
            assert "node table has more than" in (await notes.until("misbehaved"))[0]
            nursery.cancel_scope.cancel()
        assert len(notes.of("beat", "cl_2")) == 20


async def test_a_flood_of_messages_is_slowed_down_told_once_and_not_forgiven_for_coming_back() -> None:
    """The budget is the edge's: a new connection brings no new one; other edges do not notice."""
    edge, other = Edge("cl_1"), Edge("cl_2", number=3)
    async with open_hub(edge, other) as (wire, notes, _), edge.connected(wire), other.connected(wire):
        said = b'{"type": "api", "state": "ok", "errno": null, "detail": ""}\n'
        async with edge.control() as talk:
            assert await talk.receive() is not None
            await talk.stream.send_all(said * 1000)
            assert "slowed down" in (await notes.until("misbehaved"))[0]
        heard = len(notes.of("api"))
        assert heard < 600
        async with edge.control() as talk:
            assert await talk.receive() is not None
            await talk.stream.send_all(said * 100)
            async with other.control() as calm:
                assert await calm.receive() is not None
                await calm.stream.send_all(said * 100)
                while len(notes.of("api", "cl_2")) < 100:
                    await notes.until("api", len(notes.of("api")) + 1)
        assert len(notes.of("misbehaved")) == 1
