"""Streams end when their ground is gone: whatever takes a right away, and whatever kind of stream stands on it."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from hub_server.domain.roles import Right, Role
from hub_server.grounds import Ground, GroundLost, Grounds
from hub_server.services.accounts import create_administrator
from hub_server.services.standing import ground_of
from hub_server.services.views import Actor
from tests.hub.clocked import Bench, clocked_hub

GROUND = Ground("kubeconfig", "kc_1", "t1", Right.KUBECONFIG, "cl_1")
OTHER = Ground("session", "se_1", "t1", Right.SEE)


# --- how a stream is cut ---------------------------------------------------------------------------------------------


class Authority:
    """Says which grounds are gone, and counts how often it is asked."""

    def __init__(self) -> None:
        self.gone: dict[Ground, str] = {}
        self.asked: list[tuple[Ground, ...]] = []
        self.problem: Exception | None = None

    async def __call__(self, grounds: Collection[Ground]) -> Mapping[Ground, str]:
        self.asked.append(tuple(grounds))
        if self.problem is not None:
            raise self.problem
        return {ground: self.gone[ground] for ground in grounds if ground in self.gone}


async def stand(grounds: Grounds, ground: Ground, cut: list[tuple[str, float]]) -> None:
    try:
        with grounds.standing_on(ground):
            await trio.sleep_forever()
    except GroundLost as lost:
        cut.append((lost.detail, trio.current_time()))


async def test_what_another_process_took_away_cuts_within_five_seconds(autojump_clock: MockClock) -> None:
    authority, cut = Authority(), list[tuple[str, float]]()
    grounds = Grounds(authority)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grounds.run)
        for _ in range(30):
            nursery.start_soon(stand, grounds, GROUND, cut)
        nursery.start_soon(stand, grounds, OTHER, cut)
        await trio.sleep(60)
        assert cut == []
        assert grounds.streams == 31
        assert all(len(asked) == 2 for asked in authority.asked), "grounds are asked about, not streams"
        authority.gone[GROUND] = "revoked"
        began = trio.current_time()
        await trio.sleep(5)
        assert [reason for reason, _ in cut] == ["revoked"] * 30
        assert all(at - began <= 5 for _, at in cut)
        assert grounds.streams == 1
        nursery.cancel_scope.cancel()
    assert grounds.streams == 0


async def test_a_commit_of_this_process_cuts_at_once_and_many_commits_are_one_look(autojump_clock: MockClock) -> None:
    authority, cut = Authority(), list[tuple[str, float]]()
    grounds = Grounds(authority)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grounds.run)
        nursery.start_soon(stand, grounds, GROUND, cut)
        await trio.sleep(10)
        before = len(authority.asked)
        authority.gone[GROUND] = "revoked"
        began = trio.current_time()
        for _ in range(100):
            grounds.look_soon()
        await wait_all_tasks_blocked()
        await trio.sleep(0.6)
        assert len(authority.asked) - before <= 2
        assert [at - began <= 1 for _, at in cut] == [True]
        nursery.cancel_scope.cancel()


async def test_a_look_that_fails_ends_nothing_and_the_next_one_cuts(autojump_clock: MockClock) -> None:
    authority, cut = Authority(), list[tuple[str, float]]()
    grounds = Grounds(authority)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grounds.run)
        nursery.start_soon(stand, grounds, GROUND, cut)
        authority.problem = sqlite3.OperationalError("disk I/O error")
        await trio.sleep(30)
        assert cut == []
        authority.problem, authority.gone = None, {GROUND: "revoked"}
        await trio.sleep(5)
        assert len(cut) == 1
        nursery.cancel_scope.cancel()


async def test_a_stream_that_ends_by_itself_is_forgotten_and_its_own_failure_passes() -> None:
    grounds = Grounds(Authority())
    with pytest.raises(KeyError), grounds.standing_on(GROUND):
        raise KeyError
    with grounds.standing_on(GROUND), grounds.standing_on(OTHER):
        assert grounds.streams == 2
    assert grounds.streams == 0


# --- every way to lose a right ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Held:
    """An operator with a session and a kubeconfig, a program's token, and a cluster."""

    hub: Bench
    cluster: str
    operator: Actor
    password: str
    kubeconfig: str
    token: str

    def ground(self, kind: str) -> Ground:
        """What a stream of this kind stands on."""
        tenant = self.hub.tenant_id
        return {
            "kubectl": Ground("kubeconfig", self.kubeconfig, tenant, Right.KUBECONFIG, self.cluster),
            "exec": Ground("kubeconfig", self.kubeconfig, tenant, Right.STREAM, self.cluster),
            "page": ground_of(self.operator, tenant, Right.SEE),
            "panel": ground_of(self.operator, tenant, Right.PANEL, self.cluster),
            "program": Ground("token", self.token, tenant, Right.PANEL, self.cluster),
        }[kind]

    def elsewhere(self, statement: str, *values: Any) -> None:
        """Another process writes, which tells this one nothing."""
        with closing(sqlite3.connect(self.hub.core.database.url.database or "")) as connection, connection:
            assert connection.execute(statement, values).rowcount == 1

    async def admin(self) -> Actor:
        return await self.hub.authenticated()


async def held(hub: Bench) -> Held:
    cluster, tenants = await hub.joined("acme"), hub.services.tenants
    by = await hub.authenticated()
    added = await tenants.add_member(by, hub.tenant_id, email="op@example.com", name="Op", role=Role.OPERATOR)
    await tenants.update_member(by, hub.tenant_id, added.member.user_id, stream=True)
    password = "a new password that is long"
    accounts = hub.services.accounts
    assert added.password is not None
    first = await accounts.sign_in("op@example.com", added.password, remote="", user_agent="")
    await accounts.change_password(first.actor, added.password, password)
    operator = (await accounts.sign_in("op@example.com", password, remote="", user_agent="")).actor
    issued = await hub.services.kubectl.issue_kubeconfig(operator, cluster)
    made = await hub.services.tokens.create(
        by, hub.tenant_id, name="robot", role=Role.OPERATOR, scopes=["see", "panel"], ttl=1800.0
    )
    return Held(hub, cluster, operator, password, issued.id, made.token.id)


async def _demoted(it: Held) -> None:
    await it.hub.services.tenants.update_member(await it.admin(), it.hub.tenant_id, it.operator.id, role=Role.VIEWER)


async def _not_streaming(it: Held) -> None:
    await it.hub.services.tenants.update_member(await it.admin(), it.hub.tenant_id, it.operator.id, stream=False)


async def _removed(it: Held) -> None:
    await it.hub.services.tenants.remove_member(await it.admin(), it.hub.tenant_id, it.operator.id)


async def _deactivated(it: Held) -> None:
    await it.hub.services.people.set_active(await it.admin(), it.operator.id, False)


async def _deactivated_elsewhere(it: Held) -> None:
    it.elsewhere("UPDATE users SET active = 0 WHERE id = ?", it.operator.id)


async def _revoked(it: Held) -> None:
    await it.hub.services.kubectl.revoke_kubeconfig(it.operator, it.cluster, it.kubeconfig)


async def _revoked_elsewhere(it: Held) -> None:
    it.elsewhere("UPDATE kubeconfig_tokens SET revoked_at = 1 WHERE id = ?", it.kubeconfig)


async def _old(it: Held) -> None:
    it.elsewhere("UPDATE sessions SET last_used_at = ? WHERE id = ?", it.hub.clock() + 8 * 3600, it.operator.session_id)
    it.hub.clock.at += 8 * 3600


async def _signed_out(it: Held) -> None:
    await it.hub.services.accounts.sign_out(it.operator)


async def _idle(it: Held) -> None:
    it.hub.clock.at += 1801


async def _session_old(it: Held) -> None:
    it.hub.clock.at += 43201
    it.elsewhere("UPDATE sessions SET last_used_at = ? WHERE id = ?", it.hub.clock(), it.operator.session_id)


async def _new_password(it: Held) -> None:
    accounts = it.hub.services.accounts
    other = (await accounts.sign_in("op@example.com", it.password, remote="", user_agent="")).actor
    await accounts.change_password(other, it.password, "yet another password that is long")


async def _reset(it: Held) -> None:
    database = it.hub.core.database
    await trio.to_thread.run_sync(
        lambda: create_administrator(database, it.hub.core.settings, "op@example.com", now=it.hub.clock())
    )


async def _token_revoked(it: Held) -> None:
    await it.hub.services.tokens.revoke(await it.admin(), it.hub.tenant_id, it.token)


async def _token_old(it: Held) -> None:
    it.hub.clock.at += 1800
    it.elsewhere("UPDATE sessions SET last_used_at = ? WHERE id = ?", it.hub.clock(), it.operator.session_id)


async def _maker_deactivated_elsewhere(it: Held) -> None:
    it.elsewhere("UPDATE users SET active = 0 WHERE id = ?", it.hub.admin.id)


async def _deleted(it: Held) -> None:
    await it.hub.services.clusters.delete(await it.admin(), it.cluster, confirm_name="acme")


async def _blocked(it: Held) -> None:
    it.elsewhere("UPDATE clusters SET phase = 'blocked', reason = 'CloneSuspected' WHERE id = ?", it.cluster)


KINDS = ("kubectl", "exec", "page", "panel", "program")
WAYS: list[tuple[Callable[[Held], Awaitable[None]], set[str]]] = [
    (_demoted, {"kubectl", "exec", "panel"}),
    (_not_streaming, {"exec"}),
    (_removed, {"kubectl", "exec", "page", "panel"}),
    (_deactivated, {"kubectl", "exec", "page", "panel"}),
    (_deactivated_elsewhere, {"kubectl", "exec", "page", "panel"}),
    (_revoked, {"kubectl", "exec"}),
    (_revoked_elsewhere, {"kubectl", "exec"}),
    (_old, {"kubectl", "exec", "program"}),
    (_signed_out, {"page", "panel"}),
    (_idle, {"page", "panel", "program"}),
    (_session_old, {"kubectl", "exec", "page", "panel", "program"}),
    (_new_password, {"page", "panel"}),
    (_reset, {"page", "panel"}),
    (_token_revoked, {"program"}),
    (_token_old, {"program"}),
    (_maker_deactivated_elsewhere, {"program"}),
    (_deleted, {"kubectl", "exec", "panel", "program"}),
    (_blocked, {"kubectl", "exec", "panel", "program"}),
]


@pytest.mark.parametrize(("way", "ends"), WAYS, ids=[way.__name__.strip("_") for way, _ in WAYS])
async def test_every_way_to_lose_a_right_cuts_what_stood_on_it_and_nothing_else(
    tmp_path: Path, way: Callable[[Held], Awaitable[None]], ends: set[str]
) -> None:
    async with clocked_hub(tmp_path) as hub:
        it, grounds = await held(hub), hub.core.grounds
        cut: dict[str, str] = {}

        async def stream(kind: str) -> None:
            try:
                with grounds.standing_on(it.ground(kind)):
                    await trio.sleep_forever()
            except GroundLost as lost:
                cut[kind] = lost.detail

        async with trio.open_nursery() as nursery:
            for kind in KINDS:
                nursery.start_soon(stream, kind)
            await wait_all_tasks_blocked()
            await grounds.look()
            await wait_all_tasks_blocked()
            assert cut == {}
            await way(it)
            await grounds.look()
            await wait_all_tasks_blocked()
            assert set(cut) == ends
            assert all(cut.values()), "each says why"
            nursery.cancel_scope.cancel()


async def test_the_services_commits_are_enough(tmp_path: Path) -> None:
    """Nobody tells the grounds what was done: that something was written makes them look."""
    async with clocked_hub(tmp_path) as hub, trio.open_nursery() as nursery:
        it, cut = await held(hub), list[tuple[str, float]]()
        nursery.start_soon(hub.core.grounds.run)
        with trio.fail_after(60):
            async with trio.open_nursery() as streams:
                streams.start_soon(stand, hub.core.grounds, it.ground("kubectl"), cut)
                await wait_all_tasks_blocked()
                await _revoked(it)
        assert len(cut) == 1
        nursery.cancel_scope.cancel()


# --- pages -----------------------------------------------------------------------------------------------------------


async def events_of(hub: Bench, path: str, cookie: str, tell: Callable[[str], None]) -> None:
    """Follow the stream of a page."""
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "scheme": "https", "server": ("hub.example", 443), "client": ("198.51.100.7", 40000), "root_path": "",
        "headers": [(b"cookie", f"__Host-daalu={cookie}".encode()), (b"accept", b"text/event-stream")],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.body":
            tell(message["body"].decode())

    await hub.application(scope, receive, send)


async def test_an_open_page_is_told_that_its_session_ended(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub, trio.open_nursery() as nursery:
        nursery.start_soon(hub.core.grounds.run)
        told: list[str] = []
        has_begun, is_over = trio.Event(), trio.Event()

        def tell(text: str) -> None:
            told.append(text)
            has_begun.set()

        async def follow() -> None:
            await events_of(hub, "/t/default/clusters/live", hub.cookie, tell)
            is_over.set()

        nursery.start_soon(follow)
        with trio.fail_after(60):
            await has_begun.wait()
            await hub.services.accounts.sign_out(hub.admin)
            await is_over.wait()
        assert "event: ended\ndata: your session has ended" in "".join(told)
        again: list[str] = []
        await events_of(hub, "/t/default/clusters/live", hub.cookie, again.append)
        assert "event: ended" in "".join(again), "a page that comes back hears it too"
        nursery.cancel_scope.cancel()
