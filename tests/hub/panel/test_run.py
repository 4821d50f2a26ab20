"""A21: the panel's grammar, and its output beside a real kubectl's, byte by byte, on one small API server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from benchmarks.cluster import Cluster, open_cluster
from hub_server.domain.errors import TooMany, Unavailable
from hub_server.domain.panel import LineRefused, parse
from hub_server.domain.records import ProxyGrant
from hub_server.panel import Panel, run
from hub_server.wire import Wire
from tests.machine import find_program

GRANT = ProxyGrant("u1", "ada@example.com", "t1", "acme", "cl_1", "operator")


class _Straight:
    """A wire without a tunnel: every cluster is the one on this port. Counts what is dialled."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.dialled = 0

    def is_at_rest(self, stream: Any) -> bool:
        return True

    def why_lost(self, stream: Any) -> str:
        return "the connection to the edge was lost"

    async def dial(self, cluster_id: str, port: int = 0) -> Any:
        self.dialled += 1
        stream: Any = await trio.open_tcp_stream("127.0.0.1", self._port)
        stream.abort = stream.socket.close
        return stream


@pytest.mark.parametrize(
    "line",
    [
        "get pods; get nodes", "get pods | sh", "get pods && id", "get $(id)", "get `id`", "get pods\nget nodes",
        "get pods --kubeconfig x", "get pods --server=x", "get pods -s x", "get pods --token=x", "get pods --as=root",
        "get pods --as-group system:masters", "get pods --context c", "get -f x.yaml", "get --filename=x", "get -k .",
        "get --raw /", "get pods -o custom-columns-file=x", "get pods -o go-template-file=x",
        "get pods -ojsonpath-file=x", "get pods --output=jsonpath-file=x", "delete pod x", "apply -f x", "exec x -- sh",
        "run x", "config view", "whoami", "auth whoami", "--kubeconfig=x get pods", "-s x get pods", "get pods -w",
        "get pods --kubeconf x", "get pods -sx", "get 'pods", "get pods > x", "get ../secrets", "get pods -- x",
    ],
)  # fmt: skip
async def test_what_is_no_reading_line_is_refused_with_a_reason_and_nothing_is_sent(line: str) -> None:
    """A21."""
    wire = _Straight(0)
    found = await Panel().run(line, cast(Wire, wire), GRANT)
    assert found.refused
    assert found.output == ""
    assert wire.dialled == 0


def test_f_follows_on_logs_alone() -> None:
    assert parse("kubectl logs -f front-0 -n shop").is_set("follow")
    with pytest.raises(LineRefused, match="reads no files"):
        parse("get -f pods")


LINES = """\
get nodes
get nodes -o wide
get nodes -o name
get nodes -o json
get nodes -o yaml
get node demo-1 -o yaml
get no demo-1
get nodes nope demo-1
get pods
get pods -A
get po -n shop --show-labels
get pods,svc -n shop
get all -n shop
get deploy,svc -A
get pods -n shop -L app --no-headers
get pods -n shop -l app=front -o name
get pod/front-0 svc/front -n shop
get pod nope -n shop
get pod nope -n shop --ignore-not-found
get nonsense
get deployments.v1.apps -n shop
logs front-0 -n shop
logs deploy/front -n shop --tail=2
logs nope -n shop
events -n shop
events
api-resources
api-resources -o wide
api-resources -o name --namespaced=false
auth can-i get pods
auth can-i delete pods
auth can-i get deployments.apps -A
auth can-i --list
explain pods
explain deployments.spec
explain nodes.nothing""".splitlines()


@pytest.mark.needs("kubectl")
async def test_it_prints_what_a_real_kubectl_prints(tmp_path: Path) -> None:
    """A21: output and exit code of every line."""
    program = find_program("kubectl-new")
    assert program is not None
    (tmp_path / "none").write_text("apiVersion: v1\nkind: Config\n")
    async with open_cluster(token="") as cluster:
        for line in LINES:
            mine = await Panel().run(line, cast(Wire, _Straight(cluster.port)), GRANT)
            words = [program, "--kubeconfig", str(tmp_path / "none"), "--cache-dir", str(tmp_path / "cache")]
            theirs = await trio.run_process(
                [*words, "-s", cluster.url, *line.split()],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
            assert (mine.output, mine.exit_code) == (theirs.stdout.decode(), theirs.returncode), line


# --- clusters that are hostile, slow or gone -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _server(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[_Straight]:
    """An edge that answers the head of each request with whatever `serve` does."""

    async def handle(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while b"\r\n\r\n" not in await stream.receive_some(65536):
                pass
            await serve(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        yield _Straight(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


def _answering(octets: bytes) -> Callable[[trio.SocketStream], Awaitable[None]]:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(octets) + octets)

    return serve


async def _endless(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await stream.send_all(b"10000\r\n" + b"[" * 65536 + b"\r\n")


async def _silent(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\none\n")
    await trio.sleep_forever()


def _workers() -> list[int]:
    """The processes that read answers for us."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            is_ours = stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid())
            if is_ours and b"hub_server.panel.worker" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
    return found


def _environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_what_takes_more_memory_than_a_line_may_have_ends_the_line_and_its_worker_alone() -> None:
    octets = json.dumps({"items": [{str(at): {}} for at in range(60_000)], "text": ["x" * 9] * 100_000}).encode()
    async with _server(_answering(octets)) as wire:
        found = await Panel().run("get pods -o yaml", cast(Wire, wire), GRANT)
    assert "too much for the panel" in found.output or "too large for the panel" in found.output
    assert found.exit_code == 1
    assert _workers() == []


async def test_a_body_without_end_is_read_up_to_the_limit() -> None:
    async with _server(_endless) as wire:
        found = await Panel().run("get pod a", cast(Wire, wire), GRANT)
    assert found.output == "error: the answer is too large for the panel: narrow the request\n"


async def test_a_line_ends_with_its_time_and_keeps_the_log_that_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hub_server.panel.run.TIME_LIMIT", 3.0)
    pod = _answering(b'{"metadata":{"name":"a"}}')

    async def serve(stream: trio.SocketStream) -> None:
        await (pod if wire.dialled == 1 else _silent)(stream)

    async with _server(serve) as wire:
        found = await Panel().run("logs -f a", cast(Wire, wire), GRANT)
    assert found.output.startswith("one\n[stopped")
    assert found.truncated
    async with _server(_silent) as wire:
        found = await Panel().run("get pods", cast(Wire, wire), GRANT)
    assert found.output.startswith("[stopped")
    assert found.exit_code == 1
    assert _workers() == []


async def test_a_worker_that_is_killed_costs_its_own_line() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        (worker,) = _workers()
        os.kill(worker, signal.SIGKILL)
        await _answering(b"{}")(stream)

    async with _server(serve) as wire:
        found = await Panel().run("get pods", cast(Wire, wire), GRANT)
    assert "too much for the panel" in found.output
    async with open_cluster(token="") as cluster:
        assert "demo-1" in (await Panel().run("get nodes", cast(Wire, _Straight(cluster.port)), GRANT)).output


async def test_who_goes_away_takes_the_worker_along() -> None:
    began = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        began.set()
        await trio.sleep_forever()

    async with _server(serve) as wire, trio.open_nursery() as nursery:
        nursery.start_soon(Panel().run, "get pods", cast(Wire, wire), GRANT)
        await began.wait()
        nursery.cancel_scope.cancel()
    assert _workers() == []


async def test_a_user_has_two_lines_at_once_and_others_have_theirs() -> None:
    panel = Panel()
    asked, asking = trio.open_memory_channel[None](2)

    async def serve(stream: trio.SocketStream) -> None:
        await asked.send(None)
        await trio.sleep_forever()

    async with _server(serve) as wire, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(panel.run, "get pods", cast(Wire, wire), GRANT)
        for _ in range(2):
            await asking.receive()
        with pytest.raises(TooMany):
            await panel.run("get pods", cast(Wire, wire), GRANT)
        async with open_cluster(token="") as cluster:
            other = dataclasses.replace(GRANT, user_id="u2")
            found = await panel.run("get nodes", cast(Wire, _Straight(cluster.port)), other)
            assert "demo-1" in found.output
        nursery.cancel_scope.cancel()


async def test_a_cluster_that_keeps_everybody_waiting_delays_its_own_tenant_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "_WAIT_FOR_TURN", 0.5)
    panel = Panel()
    asked, asking = trio.open_memory_channel[None](9)

    async def serve(stream: trio.SocketStream) -> None:
        await asked.send(None)
        await trio.sleep_forever()

    async with _server(serve) as wire, trio.open_nursery() as nursery, open_cluster(token="") as cluster:

        async def wait(user: str) -> None:
            with contextlib.suppress(Unavailable):
                await panel.run("get pods", cast(Wire, wire), dataclasses.replace(GRANT, user_id=user))
            await asked.send(None)

        for user in ("u1", "u1", "u2", "u2"):
            nursery.start_soon(wait, user)
        # Three lines hang in the cluster, the other one is told to try again.
        for _ in range(4):
            await asking.receive()
        other = dataclasses.replace(GRANT, tenant_id="another", user_id="u3")
        found = await panel.run("get nodes", cast(Wire, _Straight(cluster.port)), other)
        assert "demo-1" in found.output
        nursery.cancel_scope.cancel()


async def test_a_worker_knows_no_secret_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAALU_HUB_SOMETHING", "secret")
    seen: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        seen.extend(_environment(pid) for pid in _workers())
        await _answering(b"{}")(stream)

    async with _server(serve) as wire:
        await Panel().run("get pod a", cast(Wire, wire), GRANT)
    assert seen
    assert all(b"secret" not in environ for environ in seen)


async def test_a_request_that_makes_no_sense_does_not_end_the_small_api_server() -> None:
    async with open_cluster(token="") as cluster:
        await _post(cluster, b"no json")
        await _post(cluster, b"k8s\0\x0a")
        found = await Panel().run("get nodes", cast(Wire, _Straight(cluster.port)), GRANT)
        assert "demo-1" in found.output


async def _post(cluster: Cluster, body: bytes) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", cluster.port)
    async with stream:
        head = b"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews HTTP/1.1\r\nHost: x\r\n"
        await stream.send_all(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert b" 400 " in (await stream.receive_some()).partition(b"\r\n")[0] + b" "
