"""kubectl's door over a real tunnel, with an edge that answers whatever the test writes; A27, A28, A62, A65 and A66."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import gzip
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any

import pytest
import trio

from hub_server.domain.errors import NotFound
from hub_server.domain.records import ProxyGrant, ProxyRecord
from hub_server.domain.roles import Right
from hub_server.grounds import Ground, Grounds
from hub_server.kubeproxy import Asking, KubeProxy, Refusal
from hub_server.rooms import Limits, Share
from hub_server.wire import EDGE_PORT, Wire
from tests.hub.edges import Edge, open_hub

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
Handler = Callable[[Any, bytes], Awaitable[None]]


class Reply:
    """What the ASGI application sent, as it comes."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_whole = False
        self.news = trio.Event()
        self.room: trio.CapacityLimiter | None = None
        self.pause: Callable[[], Awaitable[None]] | None = None

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if self.pause is not None:
            await self.pause()
        await trio.lowlevel.checkpoint()
        if message["type"].endswith(".start"):
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]
            self.is_whole = not message.get("more_body", False)
        self.news.set()
        self.news = trio.Event()

    async def until(self, size: int) -> None:
        with trio.fail_after(20):
            while len(self.body) < size:
                await self.news.wait()

    @property
    def message(self) -> str:
        text: str = json.loads(self.body)["message"]
        return text


class Door:
    """A KubeProxy, the grants it is given and the records it makes."""

    def __init__(self, wire: Wire, **more: Any) -> None:
        self.grant = ProxyGrant("u1", "ada@example.com", "t1", "acme", "cl_1", "operator")
        self.problem: Exception | None = None
        self.records: list[ProxyRecord] = []
        self.asked: list[Asking] = []
        self.gone: dict[Ground, str] = {}
        self.grounds = Grounds(self.lost)
        self.app = KubeProxy(wire, self.authorize, self.records.append, self.grounds, **more)

    async def lost(self, grounds: Collection[Ground]) -> Mapping[Ground, str]:
        return {ground: self.gone[ground] for ground in grounds if ground in self.gone}

    async def authorize(self, asking: Asking) -> ProxyGrant:
        self.asked.append(asking)
        if self.problem is not None:
            raise self.problem
        return self.grant

    async def get(
        self,
        path: str = "/api/v1/pods",
        *,
        method: str = "GET",
        headers: list[tuple[bytes, bytes]] | None = None,
        body: list[bytes] | None = None,
        reply: Reply | None = None,
        hang_up: trio.Event | None = None,
        token: bytes | None = b"Bearer dlk_x",
        raw_path: bytes | None = None,
        kind: str = "http",
        left: list[bytes] | None = None,
    ) -> Reply:
        reply = reply or Reply()
        target, _, query = path.partition("?")
        pieces = list(body or [b""])

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            if pieces:
                piece = pieces.pop(0)
                if left:
                    left.pop()
                return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
            await (trio.Event() if hang_up is None else hang_up).wait()
            return {"type": "http.disconnect"}

        scope = {
            "type": kind,
            "client": ("192.0.2.7", 40000),
            "method": method,
            "raw_path": raw_path or b"/k8s/clusters/cl_1" + target.encode(),
            "query_string": query.encode(),
            "headers": [*([(b"authorization", token)] if token else []), *(headers or [])],
        }
        await self.app(scope, receive, reply.send)
        return reply


@contextlib.asynccontextmanager
async def open_door(handler: Handler, **more: Any) -> AsyncIterator[tuple[Door, Edge]]:
    """A hub and one edge whose proxy port is served by `handler(stream, head)`, once per request."""
    edge = Edge("cl_1")

    async def serve(stream: Any) -> None:
        async with stream:
            buffer = b""
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    while b"\r\n\r\n" not in buffer:
                        data = await stream.receive_some()
                        if not data:
                            return
                        buffer += data
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    stream.rest = buffer
                    await handler(stream, head)
                    buffer = b""

    async with open_hub(edge) as (wire, _, _), edge.connected(wire), trio.open_nursery() as nursery:
        await edge.beat()
        await nursery.start(edge.tunnel.net.serve_tcp, serve, EDGE_PORT)
        yield Door(wire, **more), edge
        nursery.cancel_scope.cancel()


def saying(*answers: bytes) -> tuple[Handler, list[bytes]]:
    """A handler that gives these answers in turn, the last for ever; and the heads it saw."""
    heads: list[bytes] = []

    async def handler(stream: Any, head: bytes) -> None:
        heads.append(head)
        await stream.send_all(answers[min(len(heads), len(answers)) - 1])

    return handler, heads


# --- the way of a request --------------------------------------------------------------------------------------------


async def test_a_get_goes_through_and_comes_back_and_is_recorded() -> None:
    handler, heads = saying(OK)
    async with open_door(handler) as (door, _):
        reply = await door.get("/api/v1/namespaces/a/pods?limit=5", headers=[(b"Accept", b"x/y"), (b"Cookie", b"c")])
        assert (reply.status, reply.body, reply.is_whole) == (200, b"{}", True)
        assert reply.headers["content-type"] == "application/json"
    [head] = heads
    lines = head.decode().split("\r\n")
    assert lines[0] == "GET /api/v1/namespaces/a/pods?limit=5 HTTP/1.1"
    assert {line.partition(":")[0].lower() for line in lines[1:]} == {"host", "accept", "daalu-request-id"}
    assert [asking[:5] for asking in door.asked] == [("cl_1", "dlk_x", "GET", "/api/v1/namespaces/a/pods", "192.0.2.7")]
    [record] = door.records
    assert (record.verb, record.resource, record.namespace, record.status) == ("list", "pods", "a", 200)
    assert (record.octets_out, record.identity, record.query, record.phase) == (
        2,
        "service-account",
        "limit=5",
        "close",
    )
    assert (record.remote, record.reason) == ("192.0.2.7", None)
    assert record.request_id == reply.headers["daalu-request-id"]


async def test_connections_are_kept_and_a_dead_one_is_replaced_once() -> None:
    seen: list[Any] = []

    async def handler(stream: Any, head: bytes) -> None:
        if stream not in seen:
            seen.append(stream)
        await stream.send_all(OK)
        if b"/last" in head:
            await stream.aclose()
            raise trio.BrokenResourceError

    async with open_door(handler) as (door, _):
        for _ in range(3):
            assert (await door.get()).status == 200
        assert len(seen) == 1
        assert (await door.get("/last")).status == 200
        assert (await door.get()).status == 200
        assert len(seen) == 2


async def test_a_body_is_sent_on_with_its_length_or_in_chunks() -> None:
    bodies: list[bytes] = []

    async def handler(stream: Any, head: bytes) -> None:
        rest = stream.rest
        wanted = b"0\r\n\r\n" if b"chunked" in head else b"}"
        while not rest.endswith(wanted):
            rest += await stream.receive_some()
        bodies.append(rest)
        await stream.send_all(OK)

    async with open_door(handler) as (door, _):
        length = [(b"content-length", b"9"), (b"content-type", b"application/json")]
        assert (await door.get(method="PUT", headers=length, body=[b'{"a":', b'"b"}'])).status == 200
        chunked = [(b"transfer-encoding", b"chunked")]
        assert (await door.get(method="PATCH", headers=chunked, body=[b"abc", b"de"])).status == 200
    assert bodies == [b'{"a":"b"}', b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"]
    assert [record.octets_in for record in door.records] == [9, 5]


async def test_a_watch_is_unbuffered_and_ends_when_the_reader_hangs_up() -> None:
    """A28: each line arrives before the next is written; Ctrl-C frees the other end."""
    go, gone = trio.Event(), trio.Event()

    async def handler(stream: Any, head: bytes) -> None:
        await stream.send_all(CHUNKED + b"4\r\none\n\r\n")
        await go.wait()
        await stream.send_all(b"4\r\ntwo\n\r\n")
        try:
            while True:
                await stream.receive_some()
        except trio.BrokenResourceError:
            gone.set()
            raise

    async with open_door(handler) as (door, _), trio.open_nursery() as nursery:
        reply, hang_up = Reply(), trio.Event()

        async def follow() -> None:
            await door.get("/api/v1/namespaces/a/pods/b/log?follow=true", reply=reply, hang_up=hang_up)

        nursery.start_soon(follow)
        await reply.until(4)
        assert reply.body == b"one\n"
        assert [record.phase for record in door.records] == ["open"]
        go.set()
        await reply.until(8)
        hang_up.set()
        with trio.fail_after(2):
            await gone.wait()
        assert not reply.is_whole
    assert [(record.phase, record.octets_out, record.reason) for record in door.records] == [
        ("open", 0, None),
        ("close", 8, "ClientGone"),
    ]


async def test_many_followed_logs_half_of_them_aborted_and_the_others_lose_nothing() -> None:
    """A28: 100 followed, 50 aborted."""
    go = trio.Event()

    async def handler(stream: Any, head: bytes) -> None:
        number = int(head.split(b"/pods/")[1].split(b"/")[0])
        await stream.send_all(CHUNKED)
        for line in range(20):
            text = b"%d-%d\n" % (number, line)
            await stream.send_all(b"%x\r\n%s\r\n" % (len(text), text))
            if line == 9:
                await go.wait()
        await stream.send_all(b"0\r\n\r\n")

    async with open_door(handler) as (door, _):
        replies, ends = [Reply() for _ in range(100)], [trio.Event() for _ in range(100)]
        async with trio.open_nursery() as nursery:

            async def follow(number: int) -> None:
                path = f"/api/v1/namespaces/a/pods/{number}/log?follow=true"
                await door.get(path, reply=replies[number], hang_up=ends[number])

            for number in range(100):
                nursery.start_soon(follow, number)
            for reply in replies:
                await reply.until(40)
            for number in range(0, 100, 2):
                ends[number].set()
            go.set()
        for number in range(1, 100, 2):
            assert replies[number].body == b"".join(b"%d-%d\n" % (number, line) for line in range(20))
            assert replies[number].is_whole


async def test_a_slow_reader_holds_its_own_stream_and_never_more_than_its_buffers() -> None:
    """A66: back-pressure reaches the writer at the edge."""
    written = 0

    async def handler(stream: Any, head: bytes) -> None:
        nonlocal written
        if b"/fast" in head:
            await stream.send_all(OK)
            return
        await stream.send_all(CHUNKED)
        while True:
            await stream.send_all(b"10000\r\n" + bytes(65536) + b"\r\n")
            written += 65536

    async with open_door(handler) as (door, _), trio.open_nursery() as nursery:
        reply, hang_up, go_on = Reply(), trio.Event(), trio.Event()

        async def slow() -> None:
            await door.get("/api/v1/namespaces/a/pods/b/log?follow=true", reply=reply, hang_up=hang_up)

        async def never() -> None:
            await go_on.wait()

        nursery.start_soon(slow)
        await reply.until(1)
        reply.pause = never
        before = -1
        while written != before:
            before = written
            await trio.sleep(0.3)
        assert written - len(reply.body) < 24 * 2**20
        assert (await door.get("/fast")).status == 200
        hang_up.set()
        go_on.set()


# --- grounds ---------------------------------------------------------------------------------------------------------


async def test_a_stream_that_lost_its_ground_is_broken_off_and_the_audit_says_why() -> None:
    handler, _ = saying(CHUNKED + b"4\r\none\n\r\n")
    async with open_door(handler) as (door, _):
        door.grant = dataclasses.replace(door.grant, kubeconfig_id="kc_1")
        reply = Reply()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: door.get("/api/v1/pods?watch=1", reply=reply))
                await reply.until(4)
                [ground] = door.grounds._streams
                assert ground == Ground("kubeconfig", "kc_1", "t1", Right.KUBECONFIG, "cl_1")
                door.gone[ground] = "this kubeconfig was revoked"
                await door.grounds.look()
        assert (reply.status, reply.is_whole) == (200, False)
        assert [(record.phase, record.status, record.reason) for record in door.records] == [
            ("open", 200, None),
            ("close", 200, "ground_lost"),
        ]


async def test_a_request_that_loses_its_ground_before_an_answer_is_told_so() -> None:
    asked = trio.Event()

    async def handler(stream: Any, head: bytes) -> None:
        asked.set()
        await trio.sleep_forever()

    async with open_door(handler) as (door, _):
        reply = Reply()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: door.get(reply=reply))
                await asked.wait()
                door.gone = dict.fromkeys(door.grounds._streams, "this kubeconfig was revoked")
                await door.grounds.look()
        assert (reply.status, reply.message) == (401, "this kubeconfig was revoked")


async def test_a_reader_that_goes_after_the_last_octet_has_not_hung_up() -> None:
    """Servers say that a client is gone when the answer is complete, too; some in the middle of sending its end."""
    handler, _ = saying(OK)
    async with open_door(handler) as (door, _):
        reply, hang_up = Reply(), trio.Event()
        send = reply.send

        async def send_and_go(message: MutableMapping[str, Any]) -> None:
            await send(message)
            if reply.is_whole:
                hang_up.set()
                await trio.testing.wait_all_tasks_blocked()

        reply.send = send_and_go  # type: ignore[method-assign]
        await door.get(reply=reply, hang_up=hang_up)
        assert [(record.status, record.reason) for record in door.records] == [(200, None)]


async def test_a_server_that_says_by_an_error_that_the_client_is_gone_is_understood() -> None:
    handler, _ = saying(OK)
    async with open_door(handler) as (door, _):
        reply = Reply()

        async def gone() -> None:
            raise BrokenPipeError

        reply.pause = gone
        await door.get(reply=reply)
        assert [record.reason for record in door.records] == ["ClientGone"]


# --- what client-go and the API server say to each other --------------------------------------------------------------


async def test_fields_of_caching_and_encoding_pass_both_ways_and_an_encoded_body_is_not_touched() -> None:
    packed = gzip.compress(b'{"kind":"List"}')
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nVary: Accept\r\n"
    answer += b"Vary: Accept-Encoding\r\nETag: W/abc\r\nExpires: 0\r\nLast-Modified: x\r\n"
    answer += b"X-Kubernetes-PF-FlowSchema-UID: 1\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    not_modified = b"HTTP/1.1 304 Not Modified\r\nETag: W/abc\r\n\r\n"
    handler, heads = saying(answer, not_modified, OK)
    asking = [(b"accept-encoding", b"gzip"), (b"if-none-match", b"W/abc"), (b"if-modified-since", b"x")]
    async with open_door(handler) as (door, _):
        reply = await door.get("/openapi/v3", headers=asking)
        assert gzip.decompress(reply.body) == b'{"kind":"List"}'
        assert {name: reply.headers[name] for name in ("content-encoding", "etag", "expires", "last-modified")} == {
            "content-encoding": "gzip", "etag": "W/abc", "expires": "0", "last-modified": "x",
        }  # fmt: skip
        assert reply.headers["x-kubernetes-pf-flowschema-uid"] == "1"
        again = await door.get("/openapi/v3", headers=asking)
        assert (again.status, again.body, again.is_whole) == (304, b"", True)
        assert (await door.get()).body == b"{}", "the connection goes on behind an answer without a body"
    lines = {line.partition(":")[0].lower() for line in heads[0].decode().split("\r\n")[1:]}
    assert {"accept-encoding", "if-none-match", "if-modified-since"} <= lines


async def test_the_answer_to_head_has_a_length_and_no_body_refused_or_not() -> None:
    handler, _ = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", OK)
    async with open_door(handler) as (door, _):
        reply = await door.get(method="HEAD")
        assert (reply.status, reply.headers["content-length"], reply.body, reply.is_whole) == (200, "1000", b"", True)
        assert (await door.get()).body == b"{}"
        door.problem = NotFound()
        refused = await door.get(method="HEAD")
        assert (refused.status, refused.body, refused.is_whole) == (404, b"", True)
        assert int(refused.headers["content-length"]) > 0


async def test_a_refusal_about_secrets_tells_helm_why() -> None:
    """helm keeps its releases in Secrets; client-go prints warnings, and not only the words of the 403."""
    refused = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    handler, _ = saying(refused)
    async with open_door(handler) as (door, _):
        reply = await door.get("/api/v1/namespaces/a/secrets?labelSelector=owner%3Dhelm")
        assert (reply.status, reply.body) == (403, b"{}")
        assert reply.headers["warning"].startswith('299 - "Secrets are not among')
        assert "warning" not in (await door.get("/api/v1/namespaces/a/pods")).headers


# --- refusals --------------------------------------------------------------------------------------------------------


async def test_without_a_token_with_a_wrong_one_and_beside_a_cluster() -> None:
    handler, heads = saying(OK)
    async with open_door(handler) as (door, _):
        for token in (None, b"Basic x", b"Bearer ", b"Bearer a b"):
            reply = await door.get(token=token)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert json.loads(reply.body)["reason"] == "Unauthorized"
        door.problem = NotFound()
        assert (await door.get()).status == 404
        door.problem = Refusal(403, "your role is viewer")
        assert (await door.get()).message == "your role is viewer"
        for path in (b"/k8s/clusters/", b"/k8s/clusters/a%2fb/api", b"/k8s/x", b"http://hub/k8s/clusters/cl_1/api"):
            assert (await door.get(raw_path=path)).status == 400
    assert heads == []
    assert all(record.reason for record in door.records)


async def test_malformed_requests_are_400_and_the_connection_is_closed() -> None:
    """A62."""
    handler, heads = saying(OK)
    async with open_door(handler) as (door, _):
        for path in ("/api/../x", "/api/%2e%2e/x", "/api//v1", "/api/v1%2fpods", "/api/\x7f"):
            reply = await door.get(path)
            assert (reply.status, reply.headers["connection"]) == (400, "close")
        both = [(b"Content-Length", b"2"), (b"Transfer-Encoding", b"chunked")]
        assert (await door.get(method="POST", headers=both)).status == 400
        assert (await door.get(headers=[(b"Authorization", b"Bearer other")])).status == 400
        reply = await door.get(headers=[(b"Impersonate_User", b"system:admin")])
        assert reply.status == 403
        assert "--as" in reply.message
    assert heads == []


async def test_streaming_needs_its_right_then_a_newer_kubectl_then_the_next_release() -> None:
    """A29 as far as it is here: the seams of exec and port-forward."""
    handler, heads = saying(OK)
    spdy = [(b"Connection", b"Upgrade"), (b"Upgrade", b"SPDY/3.1")]
    websocket = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    path = "/api/v1/namespaces/a/pods/b/exec?command=sh"
    async with open_door(handler) as (door, _):
        for headers, kind in ((spdy, "http"), (websocket, "websocket"), ([], "http")):
            reply = await door.get(path, headers=headers, kind=kind)
            assert reply.status == 403
            assert "`stream`" in reply.message
        door.grant = ProxyGrant("u1", "a@b", "t1", "acme", "cl_1", "admin", stream=True)
        reply = await door.get(path, method="POST", headers=spdy)
        assert (reply.status, reply.message) == (400, "streaming through Daalu needs kubectl 1.31 or newer")
        assert (await door.get(path, headers=websocket, kind="websocket")).status == 501
        assert (await door.get("/api/v1/pods", headers=websocket)).status == 400
        assert heads == []
        assert (await door.get("/api/v1/nodes/n/proxy/metrics")).status == 200


async def test_after_a_refused_websocket_spdy_says_what_the_websocket_said() -> None:
    """A newer kubectl falls back to SPDY and prints what it gets there; an old one never tried anything else."""
    handler, heads = saying(OK)
    spdy = [(b"Connection", b"Upgrade"), (b"Upgrade", b"SPDY/3.1")]
    websocket = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    path = "/api/v1/namespaces/a/pods/b/exec?command=sh"
    async with open_door(handler) as (door, _):
        door.grant = ProxyGrant("u1", "a@b", "t1", "acme", "cl_1", "admin", stream=True)
        first = await door.get(path, headers=websocket, kind="websocket")
        second = await door.get(path, method="POST", headers=spdy)
        assert (first.status, second.status) == (501, 501)
        assert first.message == second.message
        old = [(b"User-Agent", b"kubectl/v1.28.4 (linux/amd64) kubernetes/bae2c62")]
        assert "1.31" in (await door.get(path, method="POST", headers=[*spdy, *old])).message
        other = "/api/v1/namespaces/a/pods/c/exec?command=sh"
        assert "1.31" in (await door.get(other, method="POST", headers=spdy)).message
        door.grant = dataclasses.replace(door.grant, user_id="u2")
        assert "1.31" in (await door.get(path, method="POST", headers=spdy)).message
    assert heads == []


async def test_who_is_still_sending_a_body_is_heard_out_before_a_refusal() -> None:
    """Else the connection is closed under the sender, who sees a broken pipe instead of the reason."""
    taken: list[bytes] = []

    async def early(stream: Any, head: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbig!")
        while await stream.receive_some():
            pass

    async with open_door(early, limits=Limits(2**20, Share(9, 9, 9), Share(9, 9, 9))) as (door, _):

        async def post(size: int, **more: Any) -> Reply:
            pieces = [bytes(2**16)] * (size // 2**16)
            taken[:] = [bytes(1)] * len(pieces)
            return await door.get(
                method="POST", headers=[(b"content-length", b"%d" % size)], body=pieces, left=taken, **more
            )

        for size in (2**19, 2**21):
            reply = await post(size)
            assert (reply.status, taken) == (413, [])
        assert door.records[-1].reason == "RequestEntityTooLarge"
        door.problem = Refusal(401, "this kubeconfig is not valid")
        reply = await post(2**21)
        assert (reply.status, taken) == (401, [])
        assert "connection" not in reply.headers
        endless = await post(2**29)
        assert (endless.status, endless.headers["connection"]) == (401, "close")
        assert taken, "but not for ever"


async def test_limits_of_bodies_users_and_clusters() -> None:
    stop = trio.Event()

    async def handler(stream: Any, head: bytes) -> None:
        await stop.wait()
        await stream.send_all(OK)

    async with open_door(handler, limits=Limits(10, Share(2, 2, 3), Share(2, 2, 3))) as (door, _):
        assert (await door.get(method="POST", headers=[(b"content-length", b"11")])).status == 413
        chunked = [(b"transfer-encoding", b"chunked")]
        assert (await door.get(method="POST", headers=chunked, body=[b"123456", b"123456"])).status == 413
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(door.get)
            await trio.testing.wait_all_tasks_blocked()
            reply = await door.get()
            assert (reply.status, reply.headers["retry-after"]) == (429, "1")
            door.grant = ProxyGrant("u2", "b@example.com", "t1", "acme", "cl_1", "operator")
            nursery.start_soon(door.get)
            await trio.testing.wait_all_tasks_blocked()
            assert "this cluster" in (await door.get()).message
            # What is followed has places of its own.
            watch = Reply()
            nursery.start_soon(lambda: door.get("/api/v1/pods?watch=1", reply=watch))
            await trio.testing.wait_all_tasks_blocked()
            assert watch.status == 0
            stop.set()
        assert (await door.get()).status == 200


async def test_a_cluster_that_is_away_is_named_with_the_reason() -> None:
    async with open_hub(Edge("cl_1")) as (wire, _, _):
        door = Door(wire)
        reply = await door.get()
        assert reply.status == 502
        assert "cannot be reached" in reply.message
        assert door.records[0].status == 502


async def test_a_row_that_is_cut_breaks_its_streams_off() -> None:
    """A36: the reader sees an end that is no end."""

    async def handler(stream: Any, head: bytes) -> None:
        await stream.send_all(CHUNKED + b"4\r\none\n\r\n")
        await trio.sleep_forever()

    async with open_door(handler) as (door, edge), trio.open_nursery() as nursery:
        reply = Reply()

        async def follow() -> None:
            await door.get(reply=reply)
            nursery.cancel_scope.cancel()

        nursery.start_soon(follow)
        await reply.until(4)
        door.app._upstream._wire.cut("cl_1", "the edge was restarted")
        with trio.fail_after(20):
            await trio.sleep_forever()
    assert not reply.is_whole
    assert door.records[-1].reason == "EdgeFault"
    assert edge.cluster_id == "cl_1"


async def test_per_user_mode_sends_the_identity_in_one_private_header() -> None:
    handler, heads = saying(OK)
    async with open_door(handler) as (door, _):
        door.grant = ProxyGrant(
            "u1",
            "ada@example.com",
            "t1",
            "acme",
            "cl_1",
            "operator",
            identity_mode="per-user",
            groups=("system:masters",),
        )
        await door.get(headers=[(b"Daalu-Identity", b'{"user":"evil"}')])
    [line] = [line for line in heads[0].decode().split("\r\n") if line.lower().startswith("daalu-identity")]
    assert json.loads(line.partition(":")[2]) == {
        "user": "daalu:ada@example.com",
        "groups": ["daalu:tenant:acme", "daalu:role:operator", "daalu:group:system:masters"],
    }
    assert door.records[0].identity == "daalu:ada@example.com"


# --- hostile edges ---------------------------------------------------------------------------------------------------

HOSTILE = {
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 200_000,
    "no http": b"\x16\x03\x01 hello",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a wrong length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    "endless interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    "status 99": b"HTTP/1.1 99 Nothing\r\n\r\n",
    "a header in a header": b"HTTP/1.1 200 OK\r\nA\rB: x\r\n\r\n",
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_answer_is_a_502_and_the_next_request_is_served(answer: bytes) -> None:
    """A65."""
    calls = 0

    async def handler(stream: Any, head: bytes) -> None:
        nonlocal calls
        calls += 1
        await stream.send_all(answer if calls == 1 else OK)
        if calls == 1:
            await stream.aclose()

    async with open_door(handler) as (door, _):
        reply = await door.get()
        assert reply.status == 502
        assert "location" not in reply.headers
        assert (await door.get()).status == 200


async def test_what_an_edge_adds_to_its_answer_is_not_passed_on() -> None:
    """A65: no cookie, no script policy, no second answer smuggled behind the first."""
    smuggled = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\nX-Evil: 1\r\n\r\n") + b"HTTP/1.1 200 OK\r\n\r\nevil"
    handler, heads = saying(smuggled, OK)
    async with open_door(handler) as (door, _):
        reply = await door.get()
        assert reply.status == 200
        assert set(reply.headers) == {"content-type", "content-length", "x-content-type-options", "daalu-request-id"}
        assert (await door.get()).body == b"{}"
    assert len(heads) == 2


async def test_an_answer_that_ends_early_is_broken_off() -> None:
    for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", CHUNKED + b"5\r\nab"):

        async def handler(stream: Any, head: bytes, answer: bytes = answer) -> None:
            await stream.send_all(answer)
            await stream.aclose()

        async with open_door(handler) as (door, _):
            reply = await door.get()
            assert (reply.status, reply.is_whole) == (200, False)


async def test_an_endless_answer_costs_what_is_in_flight_and_others_are_served() -> None:
    """A65: one gigabyte is offered, one reader takes nothing, memory stays."""

    async def handler(stream: Any, head: bytes) -> None:
        if b"/fast" in head:
            await stream.send_all(OK)
            return
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        while True:
            await stream.send_all(bytes(2**18))

    async with open_door(handler) as (door, _), trio.open_nursery() as nursery:
        reply, hang_up = Reply(), trio.Event()
        reply.pause = trio.sleep_forever

        async def slow() -> None:
            await door.get(reply=reply, hang_up=hang_up)

        nursery.start_soon(slow)
        for _ in range(20):
            assert (await door.get("/fast")).status == 200
        hang_up.set()


async def test_aborted_streams_leave_nothing_behind() -> None:
    """A66: 300 of them here; `python -m benchmarks hub` aborts 10,000."""

    async def handler(stream: Any, head: bytes) -> None:
        await stream.send_all(CHUNKED + b"4\r\none\n\r\n")
        await stream.receive_some()

    async with open_door(handler) as (door, edge):

        async def abort_one() -> None:
            reply, hang_up = Reply(), trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: door.get(reply=reply, hang_up=hang_up))
                await reply.until(4)
                hang_up.set()

        def held() -> tuple[int, int]:
            gc.collect()
            return len(os.listdir("/proc/self/fd")), sum(type(one).__name__ == "NetStream" for one in gc.get_objects())

        for _ in range(20):
            await abort_one()
        before = held()
        for _ in range(300):
            await abort_one()
        await trio.sleep(0.1)
        after = held()
        assert after[0] == before[0]
        assert after[1] <= before[1] + 3
        assert edge.tunnel.net.statistics() is not None
