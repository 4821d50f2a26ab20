"""One failure, one victim: what a task may end, how it is told, and what ends the process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import structlog
import trio

from hub_server import supervise
from hub_server.domain.errors import Unavailable
from hub_server.supervise import DataLost, Fatal, KeyLost, PortLost


class Planted(Exception):
    """What the tests raise."""


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[structlog.typing.EventDict]]:
    """What is logged; as if nothing had failed before."""
    monkeypatch.setattr(supervise, "_told", {})
    with structlog.testing.capture_logs() as caught:
        yield caught


async def fail(problem: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise problem


async def test_one_off_work_that_fails_ends_alone_and_is_told_once(lines: list[structlog.typing.EventDict]) -> None:
    before = supervise.failures.get("delivery", 0)
    done = trio.Event()

    async def other() -> None:
        await trio.testing.wait_all_tasks_blocked()
        done.set()

    async with trio.open_nursery() as nursery:
        supervise.start_once(nursery, "delivery", fail, Planted("no"), victim="ch_1")
        supervise.start_once(nursery, "another", other)
    assert done.is_set()
    assert supervise.failures["delivery"] == before + 1
    [line] = lines
    assert (line["task"], line["victim"], line["error"]) == ("delivery", "ch_1", "Planted: no")
    assert isinstance(line["exc_info"], Planted)


async def test_a_failure_that_repeats_is_one_line_a_minute_with_its_number(
    lines: list[structlog.typing.EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(supervise.time, "monotonic", lambda: now[0])
    for _ in range(50):
        await supervise.run_once("request", fail, Planted("again"))
    assert len(lines) == 1
    now[0] += 60
    await supervise.run_once("request", fail, Planted("again"))
    assert [line.get("times") for line in lines] == [None, 50]


async def test_different_failures_are_told_apart(lines: list[structlog.typing.EventDict]) -> None:
    await supervise.run_once("request", fail, Planted("one"))
    await supervise.run_once("request", fail, ValueError("two"))
    await supervise.run_once("answer", fail, Planted("three"))
    assert [line["error"] for line in lines] == ["Planted: one", "ValueError: two", "Planted: three"]


async def test_a_loop_that_must_live_begins_again_later_each_time(
    lines: list[structlog.typing.EventDict], autojump_clock: trio.testing.MockClock
) -> None:
    began: list[float] = []

    async def loop() -> None:
        began.append(trio.current_time())
        if len(began) == 12:
            await trio.sleep(supervise.WELL_AFTER)
        if len(began) == 14:
            return
        raise Planted

    await supervise.run_kept("rows", loop)
    pauses = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert pauses[:6] == [0.5, 1, 2, 4, 8, 16]
    assert pauses[6:11] == [30] * 5
    assert pauses[11:] == [supervise.WELL_AFTER + 0.5, 1]


@pytest.mark.parametrize("kind", [DataLost, KeyLost, PortLost])
async def test_what_is_named_ends_the_process(kind: type[Fatal], lines: list[structlog.typing.EventDict]) -> None:
    lost = kind("the file is gone")
    with pytest.raises(kind) as caught:
        await supervise.run_kept("rows", fail, lost)
    assert caught.value is lost
    # Out of a nursery in the work it comes as it is, whatever else failed there.
    with pytest.raises(kind) as caught:
        await supervise.run_once("rows", fail, BaseExceptionGroup("", [ExceptionGroup("", [lost]), Planted()]))
    assert caught.value is lost
    assert [line["error"] for line in lines] == ["Planted"]


async def test_cancellation_passes_and_is_no_failure(lines: list[structlog.typing.EventDict]) -> None:
    before = dict(supervise.failures)
    with trio.move_on_after(0) as scope:
        await supervise.run_kept("rows", trio.sleep_forever)
    assert scope.cancelled_caught
    assert (lines, dict(supervise.failures)) == ([], before)


async def test_a_failure_during_cancellation_is_told_and_cancellation_passes(
    lines: list[structlog.typing.EventDict],
) -> None:
    async def work() -> None:
        async with trio.open_nursery() as nursery:
            supervise.start_part(nursery, trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise Planted  # in place of the cancellation, beside that of the part

    with trio.CancelScope() as scope:
        scope.cancel()
        await supervise.run_once("stream", work)
        await trio.lowlevel.checkpoint()
        pytest.fail("the cancellation was swallowed")
    assert scope.cancelled_caught
    assert [line["error"] for line in lines] == ["Planted"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_failure_passes_unchanged(
    kind: type[BaseException], lines: list[structlog.typing.EventDict]
) -> None:
    alone = kind()
    with pytest.raises(kind) as caught, supervise.confined("callback"):
        raise alone
    assert caught.value is alone
    with pytest.raises(BaseExceptionGroup) as group, supervise.confined("callback"):
        raise BaseExceptionGroup("", [alone, Planted()])
    assert group.value.exceptions == (alone,)
    assert [line["error"] for line in lines] == ["Planted"]


async def test_a_part_that_fails_is_the_failure_of_the_whole(lines: list[structlog.typing.EventDict]) -> None:
    async def work() -> None:
        async with trio.open_nursery() as nursery:
            supervise.start_part(nursery, fail, Planted("part"))
            await trio.sleep_forever()

    assert await supervise.run_once("request", work, victim="u1") is False
    assert [(line["error"], line["victim"]) for line in lines] == [("Planted: part", "u1")]


async def test_a_server_that_ends_has_lost_its_port() -> None:
    async def serve(task_status: trio.TaskStatus[int]) -> None:
        task_status.started(7)
        raise ExceptionGroup("", [OSError("the socket is gone")])

    with pytest.RaisesGroup(pytest.RaisesExc(PortLost, match="the HTTPS port ended: OSError: the socket is gone")):
        async with trio.open_nursery() as nursery:
            assert await supervise.start_server(nursery, "the HTTPS port", serve) == 7
            await trio.sleep_forever()


async def test_that_the_database_cannot_be_written_is_counted_and_not_told_again(
    lines: list[structlog.typing.EventDict],
) -> None:
    before = supervise.failures.get("records", 0)
    await supervise.run_once("records", fail, Unavailable("the disk is full"))
    assert supervise.failures["records"] == before + 1
    assert lines == []


def test_failures_without_end_do_not_fill_the_memory(lines: list[structlog.typing.EventDict]) -> None:
    for number in range(3000):
        with supervise.confined(f"callback {number}"):
            raise Planted
    assert len(lines) == 3000
    assert len(supervise._told) <= 1000
