"""Requests of the hub: what reaches the API server, what comes back, and what a stream leaves behind when it ends."""

from __future__ import annotations

import gc
import json
import os
import pathlib
import time
from typing import Any

import pytest
import trio
import trio.testing

from edge_agent.apiproxy import ApiProxy
from edge_agent.facts import Facts
from edge_agent.headers import why_private
from edge_agent.kube import Kube
from edge_agent.settings import Settings
from edge_agent.supervise import failures
from tests.edge.fakekube import FakeKube
from tests.edge.joined import Joined, open_joined

PATIENCE = 60.0
LOG = "/api/v1/namespaces/default/pods/web/log"
MIB = 2**20


def cause(body: bytes) -> str:
    return str(json.loads(body)["details"]["causes"][0]["reason"])


# --- what is asked and what is answered -----------------------------------------------------------------------------


async def test_a_body_goes_up_and_warnings_come_down(tmp_path: pathlib.Path) -> None:
    """A27: the API server's `Warning` arrives, what is not on the list does not."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            reply = await joined.ask("/echo", method="POST", body=b"x" * 300_000, content_type="text/plain")
            assert (reply.status, len(json.loads(reply.body)["body"])) == (200, 300_000)
            assert reply.headers["warning"] == "299 - old"
            assert "x-secret" not in reply.headers


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/api/v1/pods", {"daalu_identity": '{"user":"daalu:a@b"}'}),
        ("/api/v1/namespaces/a/pods/b/exec", {"upgrade": "websocket", "connection": "upgrade"}),
        ("/api/v1/../secrets", {}),
        ("/api/v1/namespaces/a%2fb", {}),
        ("/api/v1/namespaces/daalu-edge/secrets/daalu-edge-key", {}),
        ("/api/v1/secrets?limit=500", {}),
    ],
)
async def test_what_must_not_be_sent_is_refused_in_kubernetes_words(
    tmp_path: pathlib.Path, target: str, headers: dict[str, str]
) -> None:
    """A22, A37, A62: no identity that we cannot be, no upgrade, no second meaning of a path, never our own key."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            before = len(joined.kube.seen)
            reply = await joined.ask(target, **headers)
            assert (reply.status, cause(reply.body)) == (403, "Refused")
            asked = [one.target for one in joined.kube.seen[before:]]
            assert target not in asked


def test_only_what_the_tunnel_lives_on_is_private() -> None:
    """A22: Secrets of our namespace in any form, and changes of our ConfigMap; the rest is RBAC's business."""
    base = b"/api/v1/namespaces/daalu-edge"
    private = [
        (b"GET", b"/api/v1/secrets"),
        (b"GET", b"/api/v1/watch/secrets"),
        (b"GET", b"/api/v1/watch/namespaces/daalu-edge/secrets"),
        (b"GET", base + b"/secrets/daalu-edge-key"),
        (b"GET", base + b"/%73ecrets/daalu-edge-key"),
        (b"PATCH", base + b"/secrets/daalu-edge-key"),
        (b"PATCH", base + b"/configmaps/daalu-edge-config"),
        (b"DELETE", base + b"/configmaps?labelSelector=a"),
    ]
    public = [
        (b"GET", b"/api/v1/namespaces/default/secrets"),
        (b"GET", base + b"/configmaps/daalu-edge-config"),
        (b"PATCH", base + b"/configmaps/another"),
        (b"GET", base + b"/pods"),
        (b"GET", b"/apis/apps/v1/namespaces/daalu-edge/deployments"),
    ]
    for method, target in private:
        assert why_private(method, target, "daalu-edge", "daalu-edge-config"), target
    for method, target in public:
        assert why_private(method, target, "daalu-edge", "daalu-edge-config") == "", target


async def test_a_redirect_is_not_followed_and_not_passed_on(tmp_path: pathlib.Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            reply = await joined.ask("/redirect")
            assert reply.status == 502
            assert b"169.254" not in reply.body
            assert "location" not in reply.headers


async def test_a_refusal_of_the_api_server_is_passed_on_word_by_word(tmp_path: pathlib.Path) -> None:
    """A43 in small: RBAC speaks for itself, with the API server's own text."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            text = 'pods is forbidden: User "system:serviceaccount:daalu-edge:daalu-edge" cannot list resource "pods"'
            joined.kube.refuse = lambda seen: (403, text) if seen.target == "/api/v1/pods" else None
            reply = await joined.ask("/api/v1/pods")
            assert (reply.status, json.loads(reply.body)["message"]) == (403, text)


async def test_an_api_server_that_is_away_is_named_with_its_errno(tmp_path: pathlib.Path) -> None:
    """A44: a closed way to the API server is told apart from a refusal."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            kube: Any = joined.agent._kube
            kube._port = 1
            await kube.aclose()
            reply = await joined.ask("/api/v1/pods")
            assert (reply.status, cause(reply.body)) == (502, "ApiUnreachable")
            assert "ECONNREFUSED" in json.loads(reply.body)["message"]
            await joined.hub.until(lambda: joined.hub.of_type("api")[-1]["errno"] == "ECONNREFUSED")
            assert any("TunnelUpApiUnreachable" in line for line in joined.agent.facts.why_not_ready())


async def test_a_new_token_of_the_account_is_used_at_the_first_refusal(tmp_path: pathlib.Path) -> None:
    """A32 in small: the kubelet replaces the token below us."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            joined.kube.token = "another"
            await trio.Path(tmp_path / "account").write_text("another")
            assert (await joined.ask("/version")).status == 200


async def test_who_is_not_the_hub_gets_no_answer() -> None:
    """A37: the listener of the tunnel answers the hub's addresses and nobody else."""
    settings = Settings(api_server="https://10.96.0.1", api_ca="")
    proxy = ApiProxy(settings, Kube(settings), Facts(), ["100.96.0.1"])
    ours, theirs = trio.testing.memory_stream_pair()
    ours.remote_address = ("100.96.0.9", 1)  # type: ignore[attr-defined]
    await theirs.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await proxy.handle(ours)  # type: ignore[arg-type]
    assert await theirs.receive_some(1) == b"", "not one octet"


async def test_garbage_is_answered_with_400_and_hung_up_on(tmp_path: pathlib.Path) -> None:
    """A62: what means two things is malformed, and the connection ends."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            assert (await joined.hub.ask(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
            twice = b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n"
            assert (await joined.hub.ask(twice)).startswith(b"HTTP/1.1 400 ")


async def test_a_refused_token_of_the_edge_is_the_edge_s_trouble(tmp_path: pathlib.Path) -> None:
    """kubectl would say "You must be logged in" to a 401, and whoever asked did nothing wrong."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            joined.kube.token = "another"
            reply = await joined.ask("/api/v1/pods")
            assert (reply.status, cause(reply.body)) == (502, "EdgeTokenRefused")
            assert "not yours" in json.loads(reply.body)["message"]
            joined.agent._look_at_api.set()
            await joined.hub.until(lambda: joined.hub.of_type("api")[-1]["errno"] == "EdgeTokenRefused")
            assert any("EdgeTokenRefused: " in line for line in joined.agent.facts.why_not_ready())


async def test_a_redirect_is_called_a_redirect(tmp_path: pathlib.Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            reply = await joined.ask("/redirect")
            assert (reply.status, cause(reply.body)) == (502, "ApiRedirect")
            assert "redirect (302)" in json.loads(reply.body)["message"]


async def test_a_refused_head_has_no_body(tmp_path: pathlib.Path) -> None:
    """Nothing behind the head, and a proper end: a request that failed in the edge ends with a reset."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            before = failures.get("request of the hub", 0)
            reply = await joined.ask("/api/v1/secrets", method="HEAD")
            assert (reply.status, reply.body) == (403, b"")
            assert int(reply.headers["content-length"]) > 0
            async with await joined.connect() as stream:
                await stream.send_all(b"HEAD /api/v1/secrets HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                while data := await stream.receive_some():
                    answer += data
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert answer.partition(b"\r\n\r\n")[1:] == (b"\r\n\r\n", b"")
            assert failures.get("request of the hub", 0) == before


async def test_a_name_in_any_letters_reaches_the_api_server(tmp_path: pathlib.Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            target = "/apis/rbac.authorization.k8s.io/v1/clusterroles/r%C3%B4le"
            assert (await joined.ask(target)).status == 404
            assert target in [seen.target for seen in joined.kube.seen]


async def test_an_early_answer_to_a_large_body_arrives(tmp_path: pathlib.Path) -> None:
    """However much the hub still sends: no reset may overtake the refusal."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            for _ in range(5):
                reply = await joined.ask("/api/v1/secrets", method="POST", body=b"x" * 3 * MIB)
                assert (reply.status, cause(reply.body)) == (403, "Refused")


class Counted(trio.abc.Stream):
    """The hub's end as the proxy sees it, which counts what is sent."""

    remote_address = ("100.96.0.1", 1)

    def __init__(self, stream: Any) -> None:
        self.stream, self.sends = stream, 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sends += 1
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self.stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def aclose(self) -> None:
        await self.stream.aclose()


async def test_chunks_that_came_together_are_sent_together() -> None:
    """An API server makes a chunk of each line of a log: thousands of them must not be thousands of packets."""
    chunks = 4096

    async def api_server(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        body = b"400\r\n" + b"x" * 1024 + b"\r\n"
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body * chunks + b"0\r\n\r\n")

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, api_server, listeners)
            settings = Settings(api_server=f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", api_ca="")
            ours, theirs = trio.testing.memory_stream_pair()
            counted = Counted(ours)
            nursery.start_soon(ApiProxy(settings, Kube(settings), Facts(), ["100.96.0.1"]).handle, counted)
            await theirs.send_all(b"GET /log HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await read(theirs) == chunks * 1024
            assert counted.sends <= chunks // 4
            nursery.cancel_scope.cancel()


async def test_a_small_answer_is_one_send() -> None:
    """Head, body and end that came together leave together."""

    async def api_server(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, api_server, listeners)
            settings = Settings(api_server=f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", api_ca="")
            ours, theirs = trio.testing.memory_stream_pair()
            counted = Counted(ours)
            nursery.start_soon(ApiProxy(settings, Kube(settings), Facts(), ["100.96.0.1"]).handle, counted)
            await theirs.send_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            assert bytes(await theirs.receive_some()).endswith(b"hello")
            assert counted.sends == 1
            nursery.cancel_scope.cancel()


# --- streams ----------------------------------------------------------------------------------------------------------


async def read(stream: Any) -> int:
    """Read an answer to its end; how many octets of lines there were."""
    octets = 0
    end = b""
    while data := await stream.receive_some():
        octets += bytes(data).count(b"x") + bytes(data).count(b"x\n")
        end = (end + bytes(data))[-5:]
        if end == b"0\r\n\r\n":
            break
    return octets


async def test_a_log_that_nobody_reads_holds_the_api_server_back(tmp_path: pathlib.Path) -> None:
    """A28, A66: back-pressure reaches from the hub through the tunnel to the API server; nothing is lost."""
    size = 24 * MIB
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            kube = joined.kube
            stream = await joined.begin(f"{LOG}?octets={size}")
            stuck_at = await until_it_stands_still(kube)
            assert 0 < stuck_at < size // 2, "sockets and windows are all that may fill"
            assert (await joined.ask("/version")).status == 200, "another stream is not held up"
            body = await read(stream)
            assert kube.log_octets == size
            assert body >= size * 127 // 128


async def until_it_stands_still(kube: FakeKube) -> int:
    while True:
        before = kube.log_octets
        await trio.sleep(0.5)
        if before and kube.log_octets == before:
            return before


async def abort_some(joined: Joined, count: int, *, at_once: int = 20) -> None:
    """Open streams that would go on for ever, and hang up on each in one of several ways."""
    limit = trio.CapacityLimiter(at_once)

    async def one(number: int) -> None:
        async with limit:
            stream = await joined.begin(f"{LOG}?octets={(number % 3) * 100_000}&follow=1")
            if number % 4:
                await stream.receive_some(1)
            if number % 2:
                stream.abort()
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)


async def until_idle(joined: Joined, watches: int) -> None:
    with trio.fail_after(PATIENCE):
        while joined.agent.facts.streams or joined.kube.open_streams > watches:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.05)


def footprint() -> tuple[int, int]:
    """Resident octets and open descriptors of this process."""
    gc.collect()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))


async def test_aborted_streams_leave_nothing_behind(tmp_path: pathlib.Path) -> None:
    """A28, A66: whoever hangs up frees both ends, and the stream beside it loses no line."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            watches = joined.kube.open_streams
            beside = await joined.begin(f"{LOG}?octets={4 * MIB}")
            await abort_some(joined, 20)
            before = footprint()[1]
            await abort_some(joined, 80)
            assert await read(beside) >= 4 * MIB * 127 // 128
            await trio.aclose_forcefully(beside)
            await until_idle(joined, watches)
            assert footprint()[1] <= before + 8
            assert (await joined.ask("/version")).status == 200


async def test_a_hundred_followed_logs_do_not_mind_fifty_that_are_broken_off(tmp_path: pathlib.Path) -> None:
    """A28: the other fifty lose no line."""
    size = 100_000
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            whole: list[int] = []

            async def follow(number: int) -> None:
                stream = await joined.begin(f"{LOG}?octets={size}&follow=1")
                octets = 0
                while octets < size * 127 // 128 and not (number % 2 and octets):
                    octets += bytes(await stream.receive_some()).count(b"x")
                stream.abort()
                await trio.aclose_forcefully(stream)
                if not number % 2:
                    whole.append(octets)

            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(follow, number)
            assert len(whole) == 50
            assert min(whole) >= size * 127 // 128


@pytest.mark.long
async def test_ten_thousand_aborted_streams_leave_memory_and_descriptors(tmp_path: pathlib.Path) -> None:
    """A66: after a first thousand, ten thousand more change both by less than 5 %."""
    async with open_joined(tmp_path) as joined:
        watches = joined.kube.open_streams
        await abort_some(joined, 1000)
        await until_idle(joined, watches)
        joined.kube.seen.clear()
        memory, descriptors = footprint()
        for _ in range(10):
            await abort_some(joined, 1000)
            joined.kube.seen.clear()
        await until_idle(joined, watches)
        memory_after, descriptors_after = footprint()
        print(f"memory {memory} -> {memory_after}, descriptors {descriptors} -> {descriptors_after}")
        assert memory_after < memory * 1.05
        assert descriptors_after < descriptors * 1.05


@pytest.mark.long
async def test_a_hundred_megabytes_of_log_pass_whole(tmp_path: pathlib.Path) -> None:
    """A28: `logs -f` of 100 MB, all three parts in one process; the speed is printed."""
    size = 100 * 10**6
    async with open_joined(tmp_path) as joined:
        started = time.perf_counter()
        stream = await joined.begin(f"{LOG}?octets={size}")
        assert await read(stream) >= size * 127 // 128
        print(f"{size * 8 / (time.perf_counter() - started) / 1e6:.0f} Mbit/s")


async def test_a_hub_that_answers_no_heartbeat_has_its_streams_ended(tmp_path: pathlib.Path) -> None:
    """Its side of the tunnel may still acknowledge what is sent there, when nobody takes it any more."""
    async with open_joined(tmp_path, heartbeat=1) as joined:
        watches = joined.kube.open_streams
        stream = await joined.begin("/api/v1/namespaces/default/pods/web/log?octets=128&follow=true")
        while joined.kube.open_streams == watches:
            assert await stream.receive_some()
        joined.hub.answers_beats = False
        how = "as if it were whole"
        with trio.fail_after(60):
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                how = "broken off"
        assert how == "broken off"
        await until_idle(joined, watches)
