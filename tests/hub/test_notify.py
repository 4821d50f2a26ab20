"""Webhooks: one channel delays no other, what goes wrong is told by its kind, and they go to public addresses alone."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
import trio.testing
import trustme

from hub_server import notify
from hub_server.domain.errors import Invalid, TooMany
from hub_server.domain.targets import is_allowed
from hub_server.notify import Notifier
from hub_server.services.core import add_event
from hub_server.store import schema
from hub_server.webhook import Refused, Unreachable, Webhooks, signature
from tests.hub.disk import read_only
from tests.hub.ground import Ground

LOOPBACK = (ip_network("127.0.0.0/8"),)

# --- addresses -------------------------------------------------------------------------------------------------------

PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8",
          "64:ff9b::808:808", "2002:808:808::1"]  # fmt: skip
PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.5", "100.64.0.1", "100.127.255.255", "127.0.0.1", "169.254.169.254", "172.16.0.1",
    "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::10.0.0.5", "::8.8.8.8", "::ffff:10.0.0.5",
    "::ffff:127.0.0.1", "64:ff9b::a00:5", "64:ff9b:1::808:808", "100::1", "2001::1", "2001:0:808:808::1",
    "2001:10::1", "2001:20::1", "2001:db8::1", "2002:a00:5::1", "2002:7f00:1::1", "3fff::1", "5f00::1", "fc00::1",
    "fd00::1", "fe80::1", "fec0::1", "ff02::1", "4000::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address: str) -> None:
    assert is_allowed(ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not is_allowed(ip_address(address))


def test_the_administrator_may_allow_a_network_in_each_of_its_forms() -> None:
    allowed = (ip_network("10.0.0.0/8"),)
    for address in ("10.0.0.5", "::ffff:10.0.0.5", "64:ff9b::a00:5", "2002:a00:5::1"):
        assert is_allowed(ip_address(address), allowed)
    assert not is_allowed(ip_address("192.168.0.1"), allowed)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.0.0.5", "169.254.169.254", "[fec0::1]", "[::10.0.0.5]",
                                  "2130706433", "0x7f.1", "localhost"])  # fmt: skip
async def test_a_channel_to_an_address_that_is_not_public_is_refused_when_it_is_made(tmp_path: Path, host: str) -> None:
    hub = await Ground.make(tmp_path)
    with pytest.raises(Invalid, match="leads to an address that is not public") as refused:
        await hub.services.channels.create(hub.admin, hub.tenant_id, name="x", url=f"https://{host}/hook")
    assert refused.value.field == "url"
    assert hub.count(schema.channels) == 0


async def test_a_name_is_judged_at_each_delivery_and_dialled_as_it_was_judged() -> None:
    answers = [["8.8.8.8"], ["8.8.8.8", "10.0.0.5"]]

    async def lookup(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    webhooks = Webhooks(lookup=lookup)
    assert await webhooks.check_target("https://rebinds.example/") == ""
    with pytest.raises(Refused, match=r"rebinds\.example leads to an address that is not public") as refused:
        await webhooks.post("https://rebinds.example/", b"{}", secret=b"", delivery="d", timestamp=1)
    assert "10.0.0.5" not in str(refused.value)
    assert answers == []


# --- a target --------------------------------------------------------------------------------------------------------


@dataclass
class Target:
    """A server of webhooks on loopback that answers as it is told."""

    authority: trustme.CA
    port: int = 0
    status: int = 204
    is_silent: bool = False
    raw: bytes = b""
    heard: list[bytes] = field(default_factory=list)
    headers: list[dict[bytes, bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/hook"

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if self.is_silent:
                await trio.sleep_forever()
            http = h11.Connection(h11.SERVER)
            body = b""
            while not isinstance(event := http.next_event(), h11.EndOfMessage):
                match event:
                    case h11.NEED_DATA:
                        http.receive_data(bytes(await stream.receive_some(65536)))
                    case h11.Request():
                        self.headers.append(dict(event.headers))
                    case h11.Data():
                        body += bytes(event.data)
            self.heard.append(body)
            answer = self.raw or http.send(h11.Response(status_code=self.status, headers=[("Location", "/other")]))
            await stream.send_all(answer or b"")
            await stream.aclose()


@contextlib.asynccontextmanager
async def open_target(authority: trustme.CA, **more: Any) -> AsyncIterator[Target]:
    target = Target(authority, **more)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_ssl_over_tcp, target.serve, 0, context, host="127.0.0.1", https_compatible=True)
        )
        target.port = listeners[0].transport_listener.socket.getsockname()[1]
        yield target
        nursery.cancel_scope.cancel()


async def only_numbers(host: str, port: int) -> Sequence[str]:
    """A resolver that knows no name."""
    if not host[:1].isdigit():
        raise socket.gaierror("no such name")
    return [host]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def webhooks_of(authority: trustme.CA) -> Webhooks:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Webhooks(LOOPBACK, tls=context, lookup=only_numbers)


@contextlib.asynccontextmanager
async def notifying(hub: Ground, authority: trustme.CA) -> AsyncIterator[Notifier]:
    hub.core.webhooks = webhooks_of(authority)
    notifier = Notifier(hub.core.database, hub.core.envelope, hub.core.now, hub.core.webhooks)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: notifier.run(interval=0.02))
        yield notifier
        nursery.cancel_scope.cancel()


async def until(true: Any) -> None:
    with trio.fail_after(60):
        while not true():  # noqa: ASYNC110 # what happens in a database sets no event
            await trio.sleep(0.02)


async def channel(hub: Ground, url: str, tenant_id: str | None = None) -> str:
    made = await hub.services.channels.create(hub.admin, tenant_id or hub.tenant_id, name="c", url=url)
    return str(made.channel.id)


def event(hub: Ground, number: int, tenant_id: str | None = None, cluster_id: str | None = None) -> Any:
    def work(connection: Any) -> None:
        add_event(
            connection, tenant_id=tenant_id or hub.tenant_id, cluster_id=cluster_id, kind="update.available",
            at=hub.clock(), detail=f"number {number}",
        )  # fmt: skip

    return hub.core.database.write(work)


def errors(hub: Ground, channel_id: str) -> set[str | None]:
    from sqlalchemy import select

    table = schema.deliveries
    query = select(table.c.error).where(table.c.channel_id == channel_id)
    return set(hub.core.database.read_here(lambda connection: connection.execute(query).scalars().all()))


async def test_messages_come_signed_and_in_order(tmp_path: Path, authority: trustme.CA) -> None:
    hub = await Ground.make(tmp_path)
    async with open_target(authority) as target, notifying(hub, authority):
        made = await hub.services.channels.create(hub.admin, hub.tenant_id, name="c", url=target.url)
        for number in range(5):
            await event(hub, number)
        await until(lambda: len(target.heard) == 5)
    assert [f"number {number}".encode() in body for number, body in enumerate(target.heard)] == [True] * 5
    stamp = int(target.headers[0][b"daalu-signature"].split(b",")[0][2:])
    assert target.headers[0][b"daalu-signature"].decode() == signature(made.secret.encode(), stamp, target.heard[0])


async def test_a_dead_and_a_silent_target_delay_nobody_else(tmp_path: Path, authority: trustme.CA) -> None:
    """520 messages to each of them, and a message to another of the same tenant and of another tenant."""
    hub = await Ground.make(tmp_path)
    other = await hub.other_tenant()
    await hub.reauthenticated()
    async with (
        open_target(authority) as mine,
        open_target(authority) as theirs,
        open_target(authority, is_silent=True) as silent,
        notifying(hub, authority),
    ):
        dead = await channel(hub, "https://127.0.0.1:1/")
        await channel(hub, silent.url)
        for number in range(520):
            await event(hub, number)
        await until(lambda: errors(hub, dead) == {None, "no connection"})
        await channel(hub, mine.url)
        await channel(hub, theirs.url, other)
        await event(hub, 1000)
        await event(hub, 1000, other)
        await until(lambda: mine.heard and theirs.heard)
    table = schema.deliveries
    assert hub.count(table, table.c.channel_id == dead, table.c.attempts > 0) == 1, "one try told enough"


async def test_a_channel_that_fails_is_asked_less_and_less(autojump_clock: trio.testing.MockClock) -> None:
    pace, waits = notify._Pace(), []
    for _ in range(12):
        pace.failed()
        waits.append(pace.until - trio.current_time())
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800, 1800]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"status": 500}, "answered 500"),
        ({"status": 302}, "answered 302: redirects are not followed"),
        ({"raw": b"SSH-2.0-secret.internal 10.0.0.5\r\n\r\n"}, "it does not speak HTTP"),
        ({"raw": b"HTTP/1.1 100 Continue\r\n\r\n"}, "closed without an answer"),
    ],
)
async def test_what_goes_wrong_is_told_by_its_kind(authority: trustme.CA, more: dict[str, Any], error: str) -> None:
    async with open_target(authority, **more) as target:
        with pytest.raises((Refused, Unreachable)) as problem:
            await webhooks_of(authority).post(target.url, b"{}", secret=b"", delivery="d", timestamp=1)
    assert str(problem.value) == error


async def test_no_failure_names_an_address(authority: trustme.CA) -> None:
    stranger = trustme.CA()
    async with open_target(stranger) as untrusted:
        for url, error in (
            ("https://127.0.0.1:1/", "no connection"),
            (untrusted.url, "its certificate is not valid"),
            ("https://no-such-name.invalid/", "the name is not known"),
        ):
            with pytest.raises(Unreachable) as problem:
                await webhooks_of(authority).post(url, b"{}", secret=b"", delivery="d", timestamp=1)
            assert str(problem.value) == error


async def test_a_silent_target_is_given_up_after_ten_seconds(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_server.webhook.TIMEOUT", 0.2)
    async with open_target(authority, is_silent=True) as target:
        with pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
            await webhooks_of(authority).post(target.url, b"{}", secret=b"", delivery="d", timestamp=1)


# --- the outbox ------------------------------------------------------------------------------------------------------


async def test_test_messages_are_limited_with_a_clear_answer(tmp_path: Path) -> None:
    hub = await Ground.make(tmp_path)
    hub.core.webhooks = Webhooks(lookup=only_numbers)
    made = await channel(hub, "https://no-such-name.invalid/")
    await hub.services.channels.send_test(hub.admin, hub.tenant_id, made)
    for _ in range(520):
        with pytest.raises(TooMany, match="not sent yet") as refused:
            await hub.services.channels.send_test(hub.admin, hub.tenant_id, made)
        assert refused.value.retry_after > 0
    assert hub.count(schema.deliveries) == 1


async def test_a_new_test_message_takes_the_place_of_one_that_failed(tmp_path: Path, authority: trustme.CA) -> None:
    hub = await Ground.make(tmp_path)
    async with notifying(hub, authority):
        made = await channel(hub, "https://127.0.0.1:1/")
        for count in (1, 2):
            await hub.services.channels.send_test(hub.admin, hub.tenant_id, made)
            await until(lambda count=count: hub.count(schema.deliveries, schema.deliveries.c.attempts > 0) == count)
            with pytest.raises(TooMany, match="one test message every 10 s"):
                await hub.services.channels.send_test(hub.admin, hub.tenant_id, made)
            hub.clock.forward(11)
    assert errors(hub, made) == {"no connection", "given up: a newer test message was sent"}


async def test_the_queue_of_a_channel_is_bounded_and_its_newest_messages_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "MOST_WAITING", 10)
    hub = await Ground.make(tmp_path)
    hub.core.webhooks = Webhooks(lookup=only_numbers)
    await channel(hub, "https://no-such-name.invalid/")
    for number in range(25):
        await event(hub, number)
    table = schema.deliveries
    assert hub.count(table, table.c.next_attempt_at.is_not(None)) == 10
    assert hub.count(table, table.c.next_attempt_at.is_not(None), table.c.number > 15) == 10


async def test_a_message_is_given_up_after_a_day_and_those_of_its_age_with_it(
    tmp_path: Path, authority: trustme.CA
) -> None:
    hub = await Ground.make(tmp_path)
    async with notifying(hub, authority) as notifier:
        made = await channel(hub, "https://127.0.0.1:1/")
        for number in range(3):
            await event(hub, number)
        for _ in range(notify._LEAST_ATTEMPTS):
            table, before = schema.deliveries, hub.count(schema.deliveries, schema.deliveries.c.attempts > 0)
            hub.clock.forward(notify.GIVE_UP_AFTER / 4)
            notifier._paces.clear()
            tried = table.c.attempts > 0
            await until(lambda tried=tried, table=table: hub.count(table, tried) > 0)
            await trio.sleep(0.1)
            assert before <= 1
        await until(lambda: errors(hub, made) == {"given up: no connection"})


async def test_what_was_sent_while_nothing_could_be_written_is_not_sent_again(
    tmp_path: Path, authority: trustme.CA
) -> None:
    hub = await Ground.make(tmp_path)
    async with open_target(authority) as target, trio.open_nursery() as nursery:
        hub.core.webhooks = webhooks_of(authority)
        notifier = Notifier(hub.core.database, hub.core.envelope, hub.core.now, hub.core.webhooks)
        await channel(hub, target.url)
        await event(hub, 1)
        with read_only(hub.core.database):
            await notifier.look(nursery)
            await until(lambda: not notifier._busy)
        hub.core.database._tried_at = 0.0  # a second later
        await notifier.look(nursery)
        await until(lambda: not notifier._busy)
    assert len(target.heard) == 1
    assert hub.count(schema.deliveries, schema.deliveries.c.delivered_at.is_not(None)) == 1


async def test_what_a_clock_ahead_put_off_is_due_when_the_clock_is_right(tmp_path: Path, authority: trustme.CA) -> None:
    hub = await Ground.make(tmp_path)
    hub.clock.set_by(86400)
    async with open_target(authority) as target:
        hub.core.webhooks = webhooks_of(authority)
        await channel(hub, target.url)
        await event(hub, 1)
        hub.clock.set_by(-86400)
        async with notifying(hub, authority):
            await until(lambda: len(target.heard) == 1)
