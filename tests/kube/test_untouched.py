"""The data plane of a cluster does not notice its edge: A26. Runs last, on the stage of the story."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kube.sandbox import eventually
from tests.kube.stage import IMAGE, NAMESPACE, Stage, say

# How long the edge crashes; the kubelet's pauses between its starts grow to minutes meanwhile.
SECONDS = float(os.environ.get("E2E_CRASH_SECONDS", "600"))
pytestmark = [pytest.mark.kube, pytest.mark.timeout(SECONDS + 1200)]

SERVER = """
import socket
listener = socket.create_server(("", 8080))
while True:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(connection.recv(64))
"""
CLIENT = """
import socket, sys, time
number = 0
while True:
    said = b"%d" % number
    try:
        with socket.create_connection((sys.argv[1], 8080), timeout=60) as connection:
            connection.sendall(said)
            answer = connection.recv(64)
        print("answered" if answer == said else "lost", number, flush=True)
    except OSError as problem:
        print("lost", number, problem, flush=True)
    number += 1
    time.sleep(0.1)
"""
# What the cluster itself writes all the time, and what is compared by its parts.
RESTLESS = ("events", "events.events.k8s.io", "leases.coordination.k8s.io", "componentstatuses", "nodes", "pods")


def start_pod(stage: Stage, name: str, *command: str) -> dict[str, Any]:
    """Start a pod of the workload; what the cluster says of it once it is ready."""
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "workload", "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": name, "image": IMAGE, "command": ["python3", "-c", *command]}],
        },
    }  # fmt: skip
    stage.plane.kubectl("apply", "-f", "-", text_in=json.dumps(pod))
    stage.plane.kubectl("wait", "-n", "workload", f"pod/{name}", "--for=condition=Ready", "--timeout=180s")
    return dict(stage.plane.get("pod", name, "-n", "workload"))


@contextlib.contextmanager
def workload(stage: Stage) -> Iterator[None]:
    """Two pods in a namespace of their own, of which one asks the other ten times a second."""
    stage.plane.kubectl("create", "namespace", "workload")
    try:
        eventually("its account", lambda: stage.plane.succeeds("get", "sa", "default", "-n", "workload"))
        server = start_pod(stage, "server", SERVER)
        start_pod(stage, "client", CLIENT, server["status"]["podIP"])
        eventually("the first answer", lambda: any(line.startswith("answered") for line in requests(stage)))
        yield
    finally:
        stage.plane.kubectl("delete", "namespace", "workload", "--wait=true")


def requests(stage: Stage) -> list[str]:
    """What became of each request, oldest first."""
    return stage.plane.kubectl("logs", "-n", "workload", "client").splitlines()


def objects(stage: Stage) -> dict[tuple[str, str, str], Any]:
    """Every object outside the edge's namespace: what must stay the same of it, by kind, namespace and name."""
    kinds = stage.plane.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    found = stage.plane.get(",".join(kind for kind in kinds if kind not in RESTLESS), "-A")["items"]
    kept: dict[tuple[str, str, str], Any] = {
        _name(one): (one["metadata"]["uid"], one["metadata"]["resourceVersion"]) for one in found
    }
    for pod in stage.plane.get("pods", "-A")["items"]:
        starts = [one["restartCount"] for one in pod["status"].get("containerStatuses", [])]
        kept[_name(pod)] = pod["metadata"]["uid"], starts, pod["status"].get("podIPs"), pod["metadata"].get("labels")
    for node in stage.plane.get("nodes")["items"]:
        kept[_name(node)] = node["metadata"]["uid"], node["metadata"].get("labels"), node["spec"]
    return {name: facts for name, facts in kept.items() if name[1] != NAMESPACE}


def _name(one: dict[str, Any]) -> tuple[str, str, str]:
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


def crash(stage: Stage, seconds: float) -> int:
    """Kill the edge whenever it runs; how many of it were killed."""
    killed, end = set(), time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(AssertionError, OSError):  # it is down, or went while we looked
            pid = stage.edge_process()
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.5)
    return len(killed)


def test_an_edge_that_crashes_disturbs_nobody(stage: Stage) -> None:
    """A26: installed beside a workload and crashing for ten minutes, it changes nothing outside its namespace.

    All that comes into the cluster are its namespace and its cluster-wide roles and bindings. No request between the
    pods of the workload is lost, and the API server has no write outside the namespace from any account of the edge.
    """
    stage.clear()
    heard = len(stage.plane.audit())
    with workload(stage):
        before = objects(stage)
        stage.join("untouched")
        own = objects(stage)
        assert {name: own.get(name) for name in before} == before, "the installation"
        added = own.keys() - before.keys()
        assert {name[0] for name in added} <= {"Namespace", "ClusterRole", "ClusterRoleBinding"}, added
        assert [name[2] for name in added if name[0] == "Namespace"] == [NAMESPACE]

        kills = crash(stage, SECONDS)
        [status] = stage.edge_pod()["status"]["containerStatuses"]
        assert kills >= 3, "it was hardly ever up"
        assert status["restartCount"] >= kills - 1
        assert objects(stage) == own, "the crashes"

        said = requests(stage)
        numbers = [int(line.split()[1]) for line in said]
        assert numbers == list(range(len(said))), "lines of the log are missing"
        # The client may have been there before the server listened.
        first = next(number for number, line in enumerate(said) if line.startswith("answered"))
        assert [line for line in said[first:] if not line.startswith("answered")] == []
        say(f"{len(said) - first} requests between pods beside an edge that was killed {kills} times: none lost")
    accounts = f"system:serviceaccount:{NAMESPACE}:daalu-edge"
    foreign = [
        one["objectRef"]
        for one in stage.plane.audit()[heard:]
        if one["user"]["username"].startswith(accounts)
        and one["verb"] in ("create", "update", "patch", "delete", "deletecollection")
        and one["objectRef"].get("namespace") != NAMESPACE
        and one["objectRef"]["resource"] != "selfsubjectaccessreviews"  # a question
    ]
    assert foreign == []
