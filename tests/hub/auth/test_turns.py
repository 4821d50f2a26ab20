"""Turns: bounded waiting, sources in rotation, the known ones first; whoever gives up leaves no trace."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from hub_server.auth.turns import WAITING, WAITING_OF_SOURCE, Turns
from hub_server.domain.errors import Unavailable


class Place:
    """One place, who waits for it, and who had it in which order."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.turns, self.nursery = Turns(1), nursery
        self.had: list[str] = []
        self.go = trio.Semaphore(0)

    async def take(self, source: str, known: bool = False) -> None:
        async with self.turns.turn(source, known=known):
            self.had.append(source)
            await self.go.acquire()

    async def wait(self, source: str, known: bool = False) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def waiting() -> None:
            with scope:
                await self.take(source, known)

        self.nursery.start_soon(waiting)
        await wait_all_tasks_blocked()
        return scope

    async def served(self) -> list[str]:
        for _ in range(200):
            self.go.release()
        await wait_all_tasks_blocked()
        return self.had


async def test_sources_take_turns_and_the_known_go_first() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        for source in ("flood", "flood", "flood", "flood", "a", "b"):
            await place.wait(source)
        await place.wait("owner", known=True)
        assert await place.served() == ["flood", "owner", "flood", "a", "b", "flood", "flood"]


async def test_a_source_and_a_line_are_bounded() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        await place.wait("first")
        for _ in range(WAITING_OF_SOURCE):
            await place.wait("flood")
        with pytest.raises(Unavailable) as refused:
            await place.take("flood")
        assert refused.value.retry_after > 0
        for number in range(WAITING - WAITING_OF_SOURCE):
            await place.wait(f"source {number}")
        with pytest.raises(Unavailable):
            await place.take("one more")
        await place.wait("owner", known=True)
        assert (await place.served())[1] == "owner"
        await place.take("afterwards")
        assert len(place.had) == 1 + WAITING + 2


async def test_whoever_gives_up_keeps_no_place() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        await place.wait("first")
        scopes = [await place.wait("flood") for _ in range(WAITING_OF_SOURCE)]
        for scope in scopes:
            scope.cancel()
        await wait_all_tasks_blocked()
        await place.wait("flood")
        assert await place.served() == ["first", "flood"]
        await place.take("flood")
