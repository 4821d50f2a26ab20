"""Each task of a whole hub is killed by raising in it; the others live: edges stay connected, pages answer."""

from __future__ import annotations

import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from hub_server import supervise
from tests.edge.fakekube import open_kube
from tests.hub.whole import Whole, joined_edge, whole_hub

# Every task that a hub with one connected edge and one open page runs, by the name it is started with.
KEPT = {
    "rows", "rows by time", "writing rows", "writes that wait", "jobs", "notifications", "retention", "certificate",
    "heartbeats", "control port", "grounds of streams", "sums of refusals",
}  # fmt: skip
ONCE = {"control connection", "calls after a start", "connection", "request"}


class Planted(Exception):
    """What is raised in them."""


class Poison:
    """Lets a test raise in a running task, by its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began: defaultdict[str, int] = defaultdict(int)
        self._deaths: defaultdict[str, trio.Event] = defaultdict(trio.Event)
        self._run_once = supervise.run_once
        monkeypatch.setattr(supervise, "run_once", self._poisoned)
        monkeypatch.setattr(supervise, "FIRST_PAUSE", 0.01)

    def kill(self, name: str) -> None:
        self._deaths.pop(name, trio.Event()).set()

    def spare(self, name: str) -> None:
        """Those that run already do not die by the next `kill`."""
        self._deaths.pop(name, None)

    async def _poisoned(self, name: str, work: Callable[..., Awaitable[object]], *args: Any, victim: str = "") -> bool:
        async def mortal() -> None:
            async def die() -> None:
                await death.wait()
                raise Planted(name)

            death = self._deaths[name]
            self.began[name] += 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(die)
                await work(*args)
                nursery.cancel_scope.cancel()

        return await self._run_once(name, mortal, victim=victim)


async def test_each_task_that_dies_dies_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison = Poison(monkeypatch)
    async with (
        whole_hub(tmp_path) as whole,
        open_kube() as kube,
        joined_edge(whole, kube, tmp_path / "edge") as cluster_id,
        whole.client() as client,
    ):
        await whole.until(lambda: "control connection" in poison.began)
        assert (await client.get("/readyz")).status_code == 200
        assert set(poison.began) == KEPT | ONCE, "a task that this test does not know, or one that never ran"
        for name in sorted(KEPT | {"control connection"}):
            began, failed = poison.began[name], supervise.failures.get(name, 0)
            poison.kill(name)
            await whole.until(lambda name=name, failed=failed: supervise.failures.get(name, 0) > failed)  # type: ignore[misc]
            # It begins again; the control connection because the edge comes back.
            await whole.until(lambda name=name, began=began: poison.began[name] > began)  # type: ignore[misc]
            assert (await client.get("/sign-in")).status_code == 200
            assert (await client.get("/readyz")).status_code == 200
            await whole.until_phase(cluster_id, "connected")
        # After all that it still does its work: a row is made, written and read again.
        invite = await whole.invite("another")
        assert (await whole.row(invite.cluster_id)).phase == "invited"
        events = (await whole.services.clusters.events(whole.admin, cluster_id, limit=50)).items
    assert [event.kind for event in events if event.kind.startswith("tunnel.")] == ["tunnel.connected"]


async def open_page(whole: Whole) -> trio.SSLStream[trio.SocketStream]:
    """A page that stays open, by a connection of its own; its first event came."""
    context = ssl.create_default_context(cafile=str(whole.ca))
    port = int(whole.hub.url.rpartition(":")[2])
    stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=context, https_compatible=True)
    cookie = f"__Host-daalu={whole.cookie}"
    await stream.send_all(f"GET /t/default/clusters/live HTTP/1.1\r\nHost: hub\r\nCookie: {cookie}\r\n\r\n".encode())
    assert await until_heard(stream, b"event: beat\n")
    return stream


async def until_heard(stream: trio.abc.ReceiveStream, what: bytes) -> bool:
    """Whether it was heard before the connection's end."""
    heard = b""
    with trio.fail_after(60):
        while what not in heard:
            try:
                piece = await stream.receive_some()
            except trio.BrokenResourceError:
                return False
            if not piece:
                return False
            heard += piece
    return True


@pytest.mark.parametrize("name", ["connection", "request"])
async def test_a_connection_or_request_that_dies_dies_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    poison = Poison(monkeypatch)
    async with whole_hub(tmp_path) as whole, await open_page(whole) as page:
        poison.spare(name)
        failed = supervise.failures.get(name, 0)
        async with await open_page(whole) as victim:
            poison.kill(name)
            assert not await until_heard(victim, b"seen")
        assert supervise.failures[name] == failed + 1
        await whole.invite("seen")
        assert await until_heard(page, b"seen")
        async with whole.client() as client:
            assert (await client.get("/sign-in")).status_code == 200
