"""A hub whose database cannot be written: reading goes on, what can wait waits, the rest is told, and it heals."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import Connection, update

from hub_server.domain.errors import Unauthenticated
from hub_server.services.core import meta_get, meta_put
from hub_server.services.later import Later
from hub_server.store import database as module
from hub_server.store import migrate, schema
from hub_server.store.database import Database, StoreUnavailable, after_commit, sqlite_url
from hub_server.supervise import DataLost
from tests.edge.fakekube import open_kube
from tests.hub.disk import full, locked, read_only, small_disk
from tests.hub.ground import Ground
from tests.hub.whole import joined_edge, whole_hub


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(sqlite_url(tmp_path / "hub.db"))
    migrate.upgrade(made)
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the database."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def written(connection: Connection) -> None:
    meta_put(connection, "key", "x" * 10_000)


# --- the database ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["database_read_only", "database_locked"])
async def test_a_write_that_cannot_be_is_refused_while_reading_goes_on(
    database: Database, clock: list[float], trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.write(meta_put, "before", "there")
    way = read_only(database) if trouble == "database_read_only" else locked(database, monkeypatch)
    with structlog.testing.capture_logs() as lines:
        with way:
            with pytest.raises(StoreUnavailable, match="Nothing was changed") as refused:
                await database.write(written)
            assert (refused.value.status, refused.value.code) == (503, trouble)
            assert database.trouble is not None
            assert database.trouble.code == trouble
            assert await database.read(meta_get, "before") == "there"
        clock[0] += 1
        await database.write(written)
    assert database.trouble is None
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("the database cannot be written", "error"),
        ("the database is written again", "info"),
    ]


async def test_it_is_told_once_a_minute_and_only_one_a_second_tries(database: Database, clock: list[float]) -> None:
    tried = 0
    with read_only(database), structlog.testing.capture_logs() as lines:
        for _ in range(300):
            for _ in range(5):
                with pytest.raises(StoreUnavailable) as refused:
                    await database.write(written)
                tried += refused.value.__cause__ is not None
            clock[0] += 1
    assert tried == 300
    assert [line["refused"] for line in lines if line["event"] == "the database cannot be written"] == [1, *[300] * 4]


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"no database " * 1000)
    database = Database(sqlite_url(tmp_path / "hub.db"))
    with pytest.raises(StoreUnavailable, match="damaged: restore a backup"):
        database.read_here(meta_get, "key")
    database.close()


def test_an_error_of_the_disk_is_no_error_of_the_statement(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(code: int) -> Any:
        def work(connection: Connection) -> None:
            def raising(*_: Any) -> None:
                problem = sqlite3.OperationalError("as the driver says it")
                problem.sqlite_errorcode = code
                raise problem

            monkeypatch.setattr(type(connection.dialect), "do_execute", raising)
            try:
                connection.exec_driver_sql("SELECT 1")
            finally:
                monkeypatch.undo()

        return work

    for code, name in ((sqlite3.SQLITE_IOERR | 3 << 8, "disk_error"), (sqlite3.SQLITE_CORRUPT, "database_damaged")):
        with pytest.raises(StoreUnavailable) as refused:
            database.read_here(fails(code))
        assert refused.value.code == name
    with pytest.raises(Exception, match="as the driver says it") as other:
        database.read_here(fails(sqlite3.SQLITE_ERROR))
    assert not isinstance(other.value, StoreUnavailable)


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_database_that_is_no_longer_where_it_was_is_lost(database: Database, what: str) -> None:
    database.check_place()
    database.check_place()
    database.file.rename(database.file.with_name("moved"))
    if what == "replaced":
        database.file.write_bytes(b"")
    with pytest.raises(DataLost, match=f"hub.db was {what}"):
        database.check_place()


async def test_what_is_told_after_a_commit_is_not_told_after_none(database: Database) -> None:
    told: list[str] = []

    def work(connection: Connection, fails: bool) -> None:
        written(connection)
        after_commit(connection, lambda: told.append("told"))
        if fails:
            raise LookupError

    with pytest.raises(LookupError):
        await database.write(work, True)
    assert told == []
    await database.write(work, False)
    assert told == ["told"]


# --- writes that wait ------------------------------------------------------------------------------------------------


async def test_last_uses_and_refusals_wait_and_are_written_in_order(tmp_path: Path) -> None:
    hub = await Ground.make(tmp_path)
    hub.clock.forward(600)
    with read_only(hub.core.database):
        for _ in range(3):
            actor = await hub.services.accounts.actor_of_session(hub.cookie, remote="192.0.2.9")
            assert actor is not None
            with pytest.raises(Unauthenticated):
                await hub.sign_in("admin@localhost", "not this one")
            with pytest.raises(StoreUnavailable):
                await hub.core.later.flush()
    hub.core.database._tried_at = 0.0  # a second later
    await hub.core.later.flush()
    assert hub.count(schema.sessions, schema.sessions.c.last_used_at == hub.clock()) == 1
    assert hub.count(schema.audit, schema.audit.c.action == "session.open", schema.audit.c.result == "refused") == 3


async def test_a_session_in_use_does_not_end_because_its_use_could_not_be_written(tmp_path: Path) -> None:
    hub = await Ground.make(tmp_path)
    with read_only(hub.core.database):
        for _ in range(5):
            hub.clock.forward(1500)
            assert await hub.services.accounts.actor_of_session(hub.cookie, remote="") is not None
        hub.clock.forward(1801)
        assert await hub.services.accounts.actor_of_session(hub.cookie, remote="") is None
        assert await hub.services.accounts.actor_of_session(hub.cookie, remote="") is None, "asking is no use"


async def test_an_entry_that_can_never_be_written_holds_up_no_other(tmp_path: Path) -> None:
    hub = await Ground.make(tmp_path)
    entry = hub.core.entry(hub.admin, hub.tenant_id, "panel.run")
    for target in ("first", "\udcff", "last"):
        hub.core.later.append(hub.core.entry(hub.admin, hub.tenant_id, entry.action, target=target))
    assert [one.target for one in await hub.audited("panel.run")] == ["last", "first"]


async def test_what_waits_is_bounded(database: Database) -> None:
    from hub_server import audit
    from hub_server.services import later as limits

    later = Later(database)
    for number in range(limits._MOST_ENTRIES + 10):
        later.append(audit.Entry("hub", 1.0, "a", "b"))
        later.touch(schema.sessions, f"se_{number}", None, 1.0 + number)
    assert (len(later._entries), later.lost) == (limits._MOST_ENTRIES, 10)
    for number in range(limits._MOST_TOUCHES + 10):
        later.touch(schema.sessions, f"se_{number}", None, 1e6)
    assert len(later._touches) == limits._MOST_TOUCHES


async def test_a_row_that_can_never_be_written_holds_up_no_other(tmp_path: Path) -> None:
    hub = await Ground.make(tmp_path)
    good, bad = await hub.connected("good"), await hub.connected("bad")
    for cluster_id, detail in ((bad, "\udcff"), (good, "uninstalled")):
        row = hub.presence.rows[cluster_id]
        hub.presence.goodbye(cluster_id, hub.clock(), "")
        row.detail = detail
    await hub.presence.flush()
    assert [event.kind for event in await hub.events(good)][-1] == "edge.goodbye"
    hub.presence.rows[bad].detail = ""
    hub.presence.beat(bad, hub.clock() + 30, None, None)
    await hub.presence.flush()
    assert [event.kind for event in await hub.events(bad)][-1] == "tunnel.restored"


# --- a whole hub -----------------------------------------------------------------------------------------------------


def aged(connection: Connection) -> None:
    """As if nothing had been used for an hour, so that its use is worth a write."""
    for table in (schema.sessions, schema.kubeconfig_tokens):
        connection.execute(update(table).values(last_used_at=table.c.created_at - 600))


async def goes_on(tmp_path: Path, break_it: Any) -> None:
    """kubectl, pages and the API while nothing can be written, and afterwards."""
    async with (
        whole_hub(tmp_path) as whole,
        open_kube() as kube,
        joined_edge(whole, kube, tmp_path.parent / f"{tmp_path.name}-edge") as cluster_id,
    ):
        database: Database = whole.hub.core.database
        issued = await whole.services.kubectl.issue_kubeconfig(await whole.reauthenticated(), cluster_id)
        token = issued.yaml.partition('token: "')[2].partition('"')[0]
        api = f"/v1/tenants/{whole.tenant_id}/clusters"
        async with (
            whole.client(headers={"Authorization": f"Bearer {token}"}) as kubectl,
            whole.client(signed_in=True) as browser,
        ):
            await database.write(aged)
            with break_it(database):
                for _ in range(3):
                    assert (await kubectl.get(f"/k8s/clusters/{cluster_id}/version")).status_code == 200
                    assert (await browser.get(api)).status_code == 200
                refused = await browser.post(api, json={"name": "another"})
                assert (refused.status_code, refused.json()["status"]) == (503, 503)
                assert "Nothing was changed" in refused.json()["detail"]
                assert int(refused.headers["Retry-After"]) > 0
                ready = await browser.get("/readyz")
                assert ready.status_code == 503
                assert ready.text.startswith(f"not ready: {refused.json()['code']}: ")
                assert (await browser.get("/healthz")).status_code == 200

            async def is_ready() -> bool:
                return bool((await browser.get("/readyz")).status_code == 200)

            await whole.until(is_ready)
            assert (await browser.post(api, json={"name": "another"})).status_code == 201

        async def is_written() -> bool:
            page = await whole.services.audit.list(whole.admin, whole.tenant_id)
            return any(entry.action.startswith("kubectl.") for entry in page.items)

        await whole.until(is_written)


async def test_a_hub_goes_on_reading_while_another_program_holds_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await goes_on(tmp_path, lambda database: locked(database, monkeypatch))


@pytest.mark.needs("root")
async def test_a_hub_goes_on_reading_while_its_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        await goes_on(disk, lambda _: full(disk))
