"""Notifications: an outbox that is filled in the transaction of the event, and emptied by one task.

Each delivery is a JSON document, signed, with an id to drop duplicates; order per cluster is kept; tries go on for a
day. A target is resolved once, refused if private, and dialled at the address that was judged; redirects are not
followed. Nothing here ever makes a request wait. Source: product.md section 9.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import h11
import structlog
import trio
from sqlalchemy import Connection, insert, select, update

from hub_server import supervise
from hub_server.domain.names import new_id
from hub_server.store import schema
from hub_server.store.database import Database
from hub_server.store.envelope import Envelope

KINDS = ("connected", "disconnected", "alert_opened", "alert_resolved", "update_available", "invite_used", "test")
GIVE_UP_AFTER = 24 * 3600.0
FIRST_WAIT, LONGEST_WAIT = 5.0, 1800.0
TIMEOUT = 10.0
ANSWER_LIMIT = 64 * 1024
_NAT64 = IPv6Network("64:ff9b::/96")

log = structlog.get_logger("hub.notify")


class Refused(Exception):
    """The target may not be asked, or did not answer with 2xx."""


def enqueue(
    connection: Connection,
    *,
    random: Callable[[int], bytes],
    tenant_id: str,
    cluster_id: str | None,
    kind: str,
    at: float,
    content: dict[str, Any],
    only_channel: str | None = None,
) -> list[str]:
    """Put a message into the outbox of every channel that wants it; returns the ids of the deliveries."""
    channels = schema.channels
    wanted = select(channels.c.id, channels.c.kinds).where(
        channels.c.tenant_id == tenant_id, channels.c.deleted_at.is_(None)
    )
    ids = []
    for channel in connection.execute(wanted):
        if (only_channel and channel.id != only_channel) or (
            not only_channel and channel.kinds and kind not in channel.kinds
        ):
            continue
        delivery = new_id("dv", random)
        body = {"id": delivery, "kind": kind, "tenant_id": tenant_id, "cluster_id": cluster_id, "at": at, **content}
        connection.execute(
            insert(schema.deliveries).values(
                id=delivery,
                channel_id=channel.id,
                cluster_id=cluster_id,
                kind=kind,
                body=json.dumps(body, sort_keys=True, ensure_ascii=False),
                created_at=at,
                next_attempt_at=at,
            )
        )
        ids.append(delivery)
    return ids


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """The value of `Daalu-Signature`: a time and an HMAC-SHA256 over the time, a dot and the body."""
    mac = hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={mac}"


def check_url(url: str) -> str:
    """Return what is wrong with the address of a webhook, or the empty string."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "that is not a URL"
    if parts.scheme != "https":
        return "a webhook is an https:// URL"
    if not parts.hostname or parts.username or parts.password or parts.fragment or port == 0:
        return "a webhook is https://HOST[:PORT]/PATH without credentials"
    if any(ord(character) <= 32 or ord(character) >= 127 for character in url):
        return "a URL has no spaces or special characters: encode them"
    return ""


def is_allowed(address: IPv4Address | IPv6Address, allowed: Sequence[str]) -> bool:
    """Whether a webhook may go to an address: a global one, or one that the hub's administrator allows."""
    if any(address in ip_network(network) for network in allowed):
        return True
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_allowed(inner, allowed)
    return address.is_global and not address.is_multicast


class Notifier:
    """Empties the outbox."""

    def __init__(
        self,
        database: Database,
        envelope: Envelope,
        now: Callable[[], float],
        *,
        allow: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take where the outbox is; `allow` are networks of private addresses that webhooks may go to."""
        self._database, self._envelope, self._now, self._allow = database, envelope, now, tuple(allow)
        self._tls = tls or ssl.create_default_context()
        self._wake = trio.Event()

    def wake(self) -> None:
        """Something was put into the outbox."""
        self._wake.set()

    async def run(self, *, interval: float = 5.0) -> None:
        """Deliver what is due, until cancelled."""
        while True:
            self._wake = trio.Event()
            try:
                await self.deliver_due()
            except Exception:
                log.exception("outbox")
            with trio.move_on_after(interval):
                await self._wake.wait()

    async def deliver_due(self) -> int:
        """Try every channel's due messages in order; returns how many were delivered."""
        due = await self._database.read(_due, self._now())
        delivered = 0

        async def one_channel(messages: list[Any]) -> None:
            nonlocal delivered
            stuck: set[str | None] = (
                set()
            )  # clusters whose earlier message failed: the later ones wait, to keep the order
            for message in messages:
                if message.cluster_id in stuck:
                    continue
                if await self._deliver(message):
                    delivered += 1
                else:
                    stuck.add(message.cluster_id)

        async with trio.open_nursery() as nursery:
            for messages in _by_channel(due):
                supervise.start_once(nursery, "delivery", one_channel, messages, victim=messages[0].channel_id)
        return delivered

    async def _deliver(self, message: Any) -> bool:
        now = self._now()
        try:
            secret = self._envelope.open(message.secret, message.channel_id)
            with trio.fail_after(TIMEOUT):
                await self._post(message.url, message.body.encode(), secret, message.id, math.floor(now))
            error = None
        except (
            Refused,
            OSError,
            ValueError,
            trio.TooSlowError,
            h11.ProtocolError,
            trio.BrokenResourceError,
        ) as problem:
            error = str(problem) or type(problem).__name__
        await self._database.write(_settle, message, self._now(), error)
        return error is None

    async def _post(self, url: str, body: bytes, secret: bytes, delivery: str, timestamp: int) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        stream = await self._connect(host, port)
        async with stream:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = [
                ("Host", parts.netloc),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("User-Agent", "daalu-hub"),
                ("Daalu-Delivery", delivery),
                ("Daalu-Signature", signature(secret, timestamp, body)),
                ("Connection", "close"),
            ]
            connection = h11.Connection(h11.CLIENT)
            events: list[Any] = [
                h11.Request(method="POST", target=target, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ]
            await stream.send_all(b"".join(connection.send(event) or b"" for event in events))
            status = await _status(connection, stream)
        if not 200 <= status < 300:
            raise Refused(f"answered {status}" + (": redirects are not followed" if 300 <= status < 400 else ""))

    async def _connect(self, host: str, port: int) -> trio.SSLStream[trio.SocketStream]:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not is_allowed(ip_address(address.split("%")[0]), self._allow):
                raise Refused(f"{host} is at the private address {address}, which webhooks may not go to")
        # By the address that was judged, not by the name: it could resolve to something else the second time.
        plain = await trio.open_tcp_stream(addresses[0], port)
        stream = trio.SSLStream(plain, self._tls, server_hostname=host, https_compatible=True)
        await stream.do_handshake()
        return stream


async def _status(connection: h11.Connection, stream: trio.abc.ReceiveStream) -> int:
    seen = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is h11.NEED_DATA:
            data = await stream.receive_some(16384)
            seen += len(data)
            if seen > ANSWER_LIMIT:
                raise Refused("the answer has no end")
            connection.receive_data(bytes(data))
        elif isinstance(event, h11.ConnectionClosed):
            raise Refused("closed without an answer")


def _by_channel(due: Iterable[Any]) -> list[list[Any]]:
    channels: dict[str, list[Any]] = {}
    for message in due:
        channels.setdefault(message.channel_id, []).append(message)
    return list(channels.values())


def _due(connection: Connection, now: float) -> list[Any]:
    deliveries, channels = schema.deliveries, schema.channels
    waiting = (
        select(deliveries, channels.c.url, channels.c.secret, channels.c.deleted_at)
        .join(channels, channels.c.id == deliveries.c.channel_id)
        .where(deliveries.c.next_attempt_at.is_not(None), channels.c.deleted_at.is_(None))
        .order_by(deliveries.c.number)
        .limit(500)
    )
    result, blocked = [], set()
    for row in connection.execute(waiting):
        # An earlier message to the same place about the same cluster that is not due yet holds the later ones back.
        if (row.channel_id, row.cluster_id) in blocked:
            continue
        if row.next_attempt_at > now:
            blocked.add((row.channel_id, row.cluster_id))
            continue
        result.append(row)
    return result


def _settle(connection: Connection, message: Any, now: float, error: str | None) -> None:
    deliveries = schema.deliveries
    if error is None:
        values: dict[str, Any] = {"delivered_at": now, "next_attempt_at": None, "error": None}
    elif now - message.created_at >= GIVE_UP_AFTER:
        values = {"next_attempt_at": None, "error": f"given up: {error}"[:500]}
    else:
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(message.attempts, 12))
        values = {"next_attempt_at": now + wait, "error": error[:500]}
    connection.execute(
        update(deliveries).where(deliveries.c.id == message.id).values(attempts=message.attempts + 1, **values)
    )
