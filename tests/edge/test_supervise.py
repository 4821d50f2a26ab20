"""One failure, one victim: parts of the edge fail alone, are counted, and begin again."""

from __future__ import annotations

import functools
import itertools
import pathlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from edge_agent.supervise import Fatal, PortLost, confined, failures, run_kept, run_once, start_kept
from tests.edge.joined import Joined, open_joined

PATIENCE = 60.0


async def fail() -> None:
    raise KeyError("broken")


async def test_a_failure_ends_the_work_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    before = failures.get("a test of one", 0)
    assert not await run_once("a test of one", fail)
    assert failures["a test of one"] == before + 1
    assert "a test of one failed: KeyError" in caplog.text


async def test_a_loop_begins_again_a_little_later_each_time(autojump_clock: trio.testing.MockClock) -> None:
    started: list[float] = []

    async def work() -> None:
        started.append(trio.current_time())
        if len(started) < 4:
            raise ValueError

    await run_kept("a test of loops", work)
    pauses = [round(after - before, 2) for before, after in itertools.pairwise(started)]
    assert pauses == [0.5, 1, 2]


async def test_a_failure_that_repeats_is_told_once_a_minute(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        start_kept(nursery, "a test of repeating", fail)
        await trio.sleep(600)
        nursery.cancel_scope.cancel()
    lines = [record for record in caplog.records if "a test of repeating" in record.getMessage()]
    assert 5 <= len(lines) <= 12
    assert [bool(record.exc_info) for record in lines[:2]] == [True, False]
    assert failures["a test of repeating"] > len(lines)


@pytest.mark.parametrize("problem", [PortLost("the port is taken"), ExceptionGroup("", [KeyError(), PortLost("")])])
async def test_only_what_is_named_ends_the_process(problem: Exception) -> None:
    with pytest.raises(Fatal), confined("a test of ends"):
        raise problem


async def test_cancellation_passes() -> None:
    with trio.move_on_after(0) as scope:
        await run_kept("a test of cancelling", trio.sleep_forever)
    assert scope.cancelled_caught


# --- each task of the agent, killed once -----------------------------------------------------------------------------

TASKS = {
    "state": "edge_agent.state.State.run",
    "watch of the Secret": "edge_agent.state.State._take_secret",
    "watch of the ConfigMap": "edge_agent.state.State._take_config",
    "tunnel": "edge_agent.agent.Agent._hold",
    "questions about ourselves": "edge_agent.agent.Agent._heal",
    "look at the API server": "edge_agent.agent.Agent._api_state",
    "watch of the nodes": "edge_agent.nodes._row_of",
    "way to the hub": "edge_agent.tunnel.HubTunnel._find",
    "events of the tunnel": "edge_agent.tunnel.HubTunnel._follow_events",
    "renewal of sessions": "edge_agent.tunnel.HubTunnel._rekey",
    "look at the hub's name": "edge_agent.tunnel.HubTunnel._follow_names",
    "heartbeats": "edge_agent.control.Beats._beat",
    "answers to heartbeats": "edge_agent.control.Beats._take",
    "MTU probes": "edge_agent.control.Beats._probe",
    "control line": "edge_agent.control.Control.hello",
    "requests of the hub": "edge_agent.apiproxy.ApiProxy.serve",
}


def killed_once(name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the first call of a function fail as nobody foresaw; what was killed."""
    real: Callable[..., Any] = pkgutil.resolve_name(name)
    killed: list[str] = []

    @functools.wraps(real)
    def wrapper(*args: Any, **more: Any) -> Any:
        if not killed:
            killed.append(name)
            raise LookupError(f"killed: {name}")
        return real(*args, **more)

    monkeypatch.setattr(name, wrapper)
    return killed


@pytest.mark.parametrize("task", TASKS)
async def test_each_task_of_the_edge_fails_alone(
    task: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed by raising in it: the edge joins nevertheless, answers, and says what failed."""
    killed = killed_once(TASKS[task], monkeypatch)
    before = failures.get(task, 0)
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path, heartbeat=1) as joined:
            while failures.get(task, 0) == before:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.1)
            assert killed
            while not (joined.agent.facts.is_seen and await answers(joined)):  # noqa: ASYNC110 - likewise
                await trio.sleep(0.1)


async def answers(joined: Joined) -> bool:
    """Whether a request of the hub is answered by now."""
    try:
        return (await joined.ask("/version")).status == 200
    except OSError:
        return False


async def test_a_request_that_fails_is_the_only_one(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            beside = await joined.begin("/api/v1/namespaces/default/pods/web/log?octets=1000&follow=1")
            assert await beside.receive_some()
            killed = killed_once("edge_agent.apiproxy._Conversation._answer", monkeypatch)
            before = failures.get("request of the hub", 0)
            broken = await joined.begin("/version")
            with pytest.raises(trio.BrokenResourceError):
                await broken.receive_some()
            assert killed
            assert (await joined.ask("/version")).status == 200
            assert failures["request of the hub"] == before + 1
            await beside.send_all(b"")
            assert joined.agent.facts.streams == 1, "the log is still followed"
            await trio.aclose_forcefully(beside)


async def test_a_probe_that_fails_is_the_only_one(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            killed_once("edge_agent.health.respond", monkeypatch)
            for expected in (b"", b"HTTP/1.1 200"):
                async with await trio.open_tcp_stream("127.0.0.1", joined.port) as stream:
                    await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    answer = b""
                    while data := await stream.receive_some():
                        answer += data
                assert answer.startswith(expected)
            assert b'daalu_edge_failures_total{task="probe"} ' in answer
