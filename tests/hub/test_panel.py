"""A21: the panel's grammar, and its output beside a real kubectl's, byte by byte, on one small API server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from benchmarks.cluster import Cluster, open_cluster
from hub_server.domain.panel import LineRefused, parse
from hub_server.domain.records import ProxyGrant
from hub_server.panel import run_panel
from hub_server.wire import Wire
from tests.machine import find_program

GRANT = ProxyGrant("u1", "ada@example.com", "t1", "acme", "cl_1", "operator")


class _Straight:
    """A wire without a tunnel: every cluster is the one on this port. Counts what is dialled."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.dialled = 0

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
    found = await run_panel(line, cast(Wire, wire), GRANT)
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
auth can-i get deployments.apps -A""".splitlines()


@pytest.mark.needs("kubectl")
async def test_it_prints_what_a_real_kubectl_prints(tmp_path: Path) -> None:
    """A21: output and exit code of every line."""
    program = find_program("kubectl-new")
    assert program is not None
    (tmp_path / "none").write_text("apiVersion: v1\nkind: Config\n")
    async with open_cluster(token="") as cluster:
        for line in LINES:
            mine = await run_panel(line, cast(Wire, _Straight(cluster.port)), GRANT)
            words = [program, "--kubeconfig", str(tmp_path / "none"), "--cache-dir", str(tmp_path / "cache")]
            theirs = await trio.run_process(
                [*words, "-s", cluster.url, *line.split()],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
            assert (mine.output, mine.exit_code) == (theirs.stdout.decode(), theirs.returncode), line


async def test_a_request_that_makes_no_sense_does_not_end_the_small_api_server() -> None:
    async with open_cluster(token="") as cluster:
        await _post(cluster, b"no json")
        await _post(cluster, b"k8s\0\x0a")
        found = await run_panel("get nodes", cast(Wire, _Straight(cluster.port)), GRANT)
        assert "demo-1" in found.output


async def _post(cluster: Cluster, body: bytes) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", cluster.port)
    async with stream:
        head = b"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews HTTP/1.1\r\nHost: x\r\n"
        await stream.send_all(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert b" 400 " in (await stream.receive_some()).partition(b"\r\n")[0] + b" "
