"""What open pages are told, and when: not before it can be read, and all that happened since they were made."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from hub_server.domain.reasons import Reason
from hub_server.domain.status import Phase
from tests.hub import landscape
from tests.hub.clocked import clocked_hub
from tests.hub.test_pages import get
from tests.hub.whole import Whole, whole_hub

# httpx leaves the generators of a stream that was not read to its end, and these have none, to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


async def test_pages_are_told_of_what_is_there_to_be_read(tmp_path: Path) -> None:
    """An alert and its event are published once they are committed; the row, which is in memory, at once."""
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined()
        live, told = hub.core.live, []

        def publish(tenant_id: str, kind: str, cluster_id: str | None = None) -> None:
            told.append(kind)

        live.publish = publish  # type: ignore[assignment,method-assign]
        hub.clock.at += 20
        hub.presence.tick()
        assert set(told) == {"cluster"}
        await hub.presence.flush()
        assert told[-1] == "event"
        assert "tunnel.disconnected" in await hub.events(cluster)
        told.clear()
        hub.clock.at += 1000
        hub.presence.tick()
        assert "alert" not in told
        await hub.presence.flush()
        assert {"alert"} <= set(told)
        assert len(await hub.alerts(open_only=True)) == 1
        told.clear()
        await hub.presence.flush()
        assert told == [], "it is told once"


@asynccontextmanager
async def listening(client: httpx.AsyncClient, address: str) -> AsyncIterator[AsyncIterator[str]]:
    """The stream of a page, as it asks for it; by lines."""
    page = await get(client, address)
    [stream] = re.findall(r'hx-sse:connect="([^"]+)"', page)
    async with client.stream("GET", stream.replace("&amp;", "&"), headers={"HX-Request": "true"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield answer.aiter_lines()


async def hear(lines: AsyncIterator[str], *words: str) -> str:
    """Listen until all the words came."""
    heard = ""
    with trio.fail_after(60):
        async for line in lines:
            heard += line + "\n"
            if all(word in heard for word in words):
                return heard
    raise AssertionError(f"the stream ended: {heard[-2000:]}")


def fall(whole: Whole, cluster_id: str, **facts: Any) -> None:
    row, now = whole.hub.presence.rows[cluster_id], whole.hub.core.now()
    landscape.put(row, Phase.DISCONNECTED, now, ago=60, reason=Reason.HEARTBEAT_LOST, **facts)
    whole.hub.core.live.publish(whole.tenant_id, "cluster", cluster_id)


async def test_what_happens_between_a_page_and_its_stream_is_told(tmp_path: Path) -> None:
    """The page says up to where it knows, so a change before its stream is open comes first; and the stream beats."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        cluster_id = (await whole.invite()).cluster_id
        landscape.settle(whole.hub.presence.rows[cluster_id], 1, whole.hub.core.now())
        page = await get(client, "/t/default/clusters")
        [stream] = re.findall(r'hx-sse:connect="([^"]+)"', page)
        fall(whole, cluster_id)
        async with client.stream("GET", stream.replace("&amp;", "&")) as answer:
            await hear(answer.aiter_lines(), f'id="r-{cluster_id}"', "disconnected", "event: beat")


async def test_every_page_with_a_stream_hears_of_alerts(tmp_path: Path) -> None:
    """The badge counts the alerts of all clusters, whichever cluster or list is open."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        ids = await landscape.paint(whole)
        core, alerts = whole.hub.core, whole.services.alerts
        [first, second] = (await alerts.list(whole.admin, whole.tenant_id, open_only=True)).items
        for address in ("/t/default/clusters", "/t/default/alerts", f"/clusters/{ids['acme-eu-prod']}/nodes",
                        f"/clusters/{ids['lab']}/join"):  # fmt: skip
            async with listening(client, address) as lines:
                core.live.publish(whole.tenant_id, "alert", first.cluster_id)
                await hear(lines, 'hx-target="#badge"', "2 open")
        assert second.cluster_id != first.cluster_id


async def test_the_wizard_follows_its_token(tmp_path: Path) -> None:
    """Used, withdrawn, joined, deleted: neither time left, nor *Withdraw*, nor "Waiting" outlives its cause."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        invite = await whole.invite()
        address = f"/clusters/{invite.cluster_id}/join"
        async with listening(client, address) as lines:
            assert "Withdraw</button>" in await hear(lines, 'hx-target="#token"', "left.", "Waiting for acme")
            await whole.services.clusters.revoke_invite(whole.admin, invite.cluster_id)
            heard = await hear(lines, "the command is worthless", "acme has not joined", "Token not redeemed")
            token = heard[heard.index('id="token"') :]
            assert "Withdraw</button>" not in token
            assert "left." not in token
            row, now = whole.hub.presence.rows[invite.cluster_id], whole.hub.core.now()
            landscape.settle(row, 1, now)
            whole.hub.core.live.publish(whole.tenant_id, "cluster", row.id)
            await hear(lines, 'id="third">acme is connected', "Run kubectl get nodes")
            fall(whole, row.id)
            heard = await hear(lines, 'id="third">acme is disconnected', "its tunnel is down now")
            assert "API server answers" not in heard[heard.rindex('id="third"') :]
            await whole.services.clusters.delete(await whole.reauthenticated(), row.id, confirm_name="acme")
            await hear(lines, "event: reload")
