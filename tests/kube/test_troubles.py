"""What else the handbook promises on a real node: keys, permissions, spent tokens, many logs, and a chart that is gone.

Runs on the stage of the story, with clusters of its own.
"""

from __future__ import annotations

import base64
import datetime
import json
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.kube.build import cache
from tests.kube.sandbox import eventually
from tests.kube.stage import IMAGE, NAMESPACE, Stage

pytestmark = [pytest.mark.kube, pytest.mark.timeout(1800)]

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:daalu-edge"
KEY = "daalu-edge-key"


@pytest.fixture(scope="module")
def joined(stage: Stage) -> tuple[Stage, str]:
    """A fresh cluster for this file."""
    stage.clear()
    cluster_id, _ = stage.join("troubles", 4)
    eventually("the API server is told of", lambda: stage.hub.row(cluster_id)["reason"] is None)
    return stage, cluster_id


def key_secret(stage: Stage) -> dict[str, bytes]:
    """What the Job wrote."""
    data = stage.plane.get("secret", KEY, "-n", NAMESPACE)["data"]
    return {name: base64.b64decode(value) for name, value in data.items()}


def test_the_key_is_in_the_secret_first_and_nowhere_else(joined: tuple[Stage, str]) -> None:
    """A13 and A22: written before the token is redeemed; in no other object, log, release, or file of the hub."""
    stage, cluster_id = joined
    bootstrap = f"system:serviceaccount:{NAMESPACE}:daalu-edge-bootstrap"
    written = [
        datetime.datetime.fromisoformat(one["stageTimestamp"]).timestamp()
        for one in stage.plane.audit()
        if (one["user"]["username"], one["verb"]) == (bootstrap, "patch") and one["objectRef"]["resource"] == "secrets"
    ]
    steps = stage.hub.call("GET", f"/v1/clusters/{cluster_id}/ladder")["steps"]
    redeemed = next(step["at"] for step in steps if step["key"] == "redeemed")
    assert any(at < redeemed for at in written[-2:]), "the key is written before the hub hears of it"
    assert written[-1] > redeemed

    secret = key_secret(stage)
    forms = set()
    for name in ("private-key", "psk"):
        raw = secret[name]
        assert len(raw) == 32
        forms |= {raw.hex(), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    forms |= {form.rstrip("=") for form in forms}

    kinds = "pods,configmaps,jobs,deployments,replicasets,events,serviceaccounts,secrets"
    objects = stage.plane.get(kinds, "-A")["items"]
    others = [one for one in objects if (one["kind"], one["metadata"]["name"]) != ("Secret", KEY)]
    texts = {"objects of the cluster": json.dumps(others)}
    for pod in stage.node.pods(NAMESPACE):
        name = pod["metadata"]["name"]
        texts[f"log of {name}"] = stage.plane.kubectl("logs", "-n", NAMESPACE, name)
    texts["release"] = stage.plane.helm("get", "all", "-n", NAMESPACE, "daalu-edge", major=4)
    for text, where in ((text, where) for where, text in texts.items()):
        assert not [form for form in forms if form in text], where
    for path in (*stage.hub.data.rglob("*"), *stage.hub.sandbox.folder.glob("hub*.log")):
        if path.is_file():
            content = path.read_bytes()
            assert not [form for form in forms if form.encode() in content], path
            assert secret["private-key"] not in content, path
            assert secret["psk"] not in content, path


def test_nodes_come_break_and_go(joined: tuple[Stage, str]) -> None:
    """A20: a node that joins, is not ready, and is removed is shown so within 30 s each time."""
    stage, cluster_id = joined

    def shown() -> dict[str, bool]:
        nodes = stage.hub.call("GET", f"/v1/clusters/{cluster_id}/nodes")["nodes"]
        return {node["name"]: node["ready"] for node in nodes}

    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node2"}}
    stage.plane.kubectl("apply", "-f", "-", text_in=json.dumps(node))
    for status in ("True", "False"):
        condition = {"type": "Ready", "status": status, "reason": "Test", "lastHeartbeatTime": _now()}
        patch = json.dumps({"status": {"conditions": [condition]}})
        stage.plane.kubectl("patch", "node", "node2", "--subresource=status", "-p", patch)
        eventually(f"node2 is {status}", lambda wanted=status == "True": shown().get("node2") is wanted, limit=30)
    stage.plane.kubectl("delete", "node", "node2")
    eventually("node2 is gone", lambda: shown() == {"node1": True}, limit=30)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("program", ["kubectl-old", "kubectl-new"])
def test_kubectl_says_the_same_through_the_hub(joined: tuple[Stage, str], program: str) -> None:
    """A27: output and exit status of a stock kubectl equal those of a direct connection as the same account."""
    stage, cluster_id = joined
    path = stage.kubeconfig(cluster_id)
    token = stage.plane.kubectl("create", "token", "daalu-edge", "-n", NAMESPACE).strip()
    direct = stage.plane.folder / "as-edge.kubeconfig"
    config = json.loads(stage.plane.kubeconfigs["admin"].read_text())
    config["users"][0]["user"] = {"token": token}
    direct.touch(mode=0o600)
    direct.write_text(json.dumps(config))
    pod = stage.edge_pod()["metadata"]["name"]
    for words in (
        ["get", "pods", "-n", NAMESPACE, "-o", "name"],
        ["get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.uid}"],
        ["get", "deployments", "-n", NAMESPACE, "-o", "jsonpath={.items[*].spec}"],
        ["describe", "node", "node1", "--show-events=false"],
        ["explain", "deployment.spec.strategy"],
        ["api-resources", "-o", "name"],
        ["auth", "can-i", "list", "nodes"],
        ["auth", "can-i", "delete", "nodes"],
        ["get", "pod", "-n", NAMESPACE, pod, "-o", "jsonpath={.spec}"],
        ["get", "pod", "-n", NAMESPACE, "no-such-pod"],
        ["get", "clusterroles"],
        ["delete", "pod", "-n", NAMESPACE, pod],
        ["version"],
    ):
        said = []
        for sandbox, file in ((stage.hub.sandbox, path), (stage.node.sandbox, str(direct))):
            argv = sandbox.argv(str(cache() / "bin" / program), "--kubeconfig", file, *words)
            done = subprocess.run(argv, capture_output=True, text=True, check=False, env=sandbox.env, timeout=120)
            lines = [line for line in done.stdout.splitlines() if "RenewTime" not in line and "Heartbeat" not in line]
            said.append((done.returncode, lines, done.stderr))
        if words[0] == "describe":  # conditions carry the time of the last heartbeat
            said = [(code, [line for line in out if "kubelet" not in line], errors) for code, out, errors in said]
        assert said[0] == said[1], words


def test_twenty_followed_logs_of_which_ten_end(joined: tuple[Stage, str]) -> None:
    """A28 in small: lines arrive as they are written, and who stays loses none when others go."""
    stage, cluster_id = joined
    script = "import time\nfor n in range(600):\n    print(n, time.time(), flush=True)\n    time.sleep(0.05)\n"
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "counter", "namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "counter", "image": IMAGE, "command": ["python3", "-c", script]}],
        },
    }  # fmt: skip
    stage.plane.kubectl("apply", "-f", "-", text_in=json.dumps(pod))
    stage.plane.kubectl("wait", "-n", "default", "pod/counter", "--for=condition=Ready", "--timeout=120s")
    kubectl = [str(cache() / "bin/kubectl-new"), "--kubeconfig", stage.kubeconfig(cluster_id)]
    followers = [stage.hub.sandbox.popen(*kubectl, "logs", "-f", "-n", "default", "counter") for _ in range(20)]
    try:
        delays = []
        for follower in followers:
            assert follower.stdout is not None
            assert follower.stdout.readline().startswith(b"0 ")
        time.sleep(3)
        for follower in followers[::2]:
            follower.send_signal(signal.SIGINT)
        late = followers[1].stdout
        assert late is not None
        while line := late.readline():
            delays.append(time.time() - float(line.split()[1]))
        assert len(delays) == 599
        stage.note("a followed line, from its writing to the reader, p50", sorted(delays[-200:])[100])
        for follower in followers[3::2]:
            assert follower.stdout is not None
            numbers = [int(line.split()[0]) for line in follower.stdout]
            assert numbers == list(range(1, 600))
    finally:
        for follower in followers:
            follower.kill()
            follower.wait()
            if follower.stdout is not None:
                follower.stdout.close()
        stage.plane.kubectl("delete", "pod", "-n", "default", "counter", "--grace-period=0", "--force")


def job_pods(stage: Stage) -> list[dict[str, Any]]:
    """The pods of bootstrap Jobs, oldest first."""
    pods = stage.node.pods(NAMESPACE, "app.kubernetes.io/component=bootstrap")
    return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])


def exit_code(pod: dict[str, Any]) -> int | None:
    """Of its one container; None while it runs."""
    [status] = pod["status"].get("containerStatuses") or [{"state": {}}]
    ended = status["state"].get("terminated")
    return ended["exitCode"] if ended else None


def test_an_upgrade_with_another_token_leaves_it_unused(joined: tuple[Stage, str]) -> None:
    """A33: the Job says so and exits 0; key and Secret stay; the token can still be used elsewhere."""
    stage, cluster_id = joined
    before = key_secret(stage)
    other_id, words = stage.invite("not-this-one")
    token = next(word for word in words if word.startswith("bootstrap.token="))
    known = {pod["metadata"]["name"] for pod in job_pods(stage)}
    upgrade = ["upgrade", "daalu-edge", str(stage.chart), "-n", NAMESPACE, "--reset-then-reuse-values"]
    stage.plane.helm(*upgrade, "--set", token, major=4)

    def ended() -> dict[str, Any] | None:
        new = [pod for pod in job_pods(stage) if pod["metadata"]["name"] not in known]
        return new[0] if new and exit_code(new[0]) is not None else None

    pod = eventually("the new Job ends", ended)
    assert pod is not None
    log = stage.plane.kubectl("logs", "-n", NAMESPACE, pod["metadata"]["name"])
    assert (exit_code(pod), "unused" in log) == (0, True), log
    assert key_secret(stage) == before
    assert stage.hub.call("GET", f"/v1/clusters/{other_id}/invite")["invite"]["state"] == "pending"
    stage.hub.until_phase(cluster_id, "connected")


def test_a_chart_that_is_gone_is_revocation(joined: tuple[Stage, str]) -> None:
    """A37: what the hub still holds opens nothing; the API server hears nothing of it."""
    stage, cluster_id = joined
    path = stage.kubeconfig(cluster_id)
    kubectl = [str(cache() / "bin/kubectl-new"), "--kubeconfig", path, "--request-timeout=20s"]
    assert "node1" in stage.hub.sandbox.run(*kubectl, "get", "nodes")
    stage.plane.helm("uninstall", "-n", NAMESPACE, "daalu-edge", major=4)
    stage.hub.until_phase(cluster_id, "disconnected")
    eventually("the pod is gone", lambda: not stage.node.pods(NAMESPACE, "app.kubernetes.io/component=edge"))
    heard = len([one for one in stage.plane.audit() if one["user"]["username"] == ACCOUNT])
    said = stage.hub.sandbox.run(*kubectl, "get", "nodes", check=False)
    assert "node1" not in said
    assert heard == len([one for one in stage.plane.audit() if one["user"]["username"] == ACCOUNT])


def test_a_spent_token_says_so_in_the_log_of_its_job(joined: tuple[Stage, str]) -> None:
    """A15 and A56: installed again with the old command; the Job fails at once and `kubectl logs job/` tells why."""
    stage, _ = joined
    stage.clear()
    cluster_id, words = stage.invite("again")
    stage.helm(words, 3)
    row, _ = stage.hub.until_phase(cluster_id, "connected")
    address = row["address"]
    stage.plane.helm("uninstall", "-n", NAMESPACE, "daalu-edge")
    stage.hub.until_phase(cluster_id, "disconnected")
    stage.clear()
    stage.helm(words, 3)

    def failed() -> str | None:
        jobs = stage.plane.get("jobs", "-n", NAMESPACE)["items"]
        conditions = jobs[0]["status"].get("conditions", []) if jobs else []
        is_failed = any((one["type"], one["status"]) == ("Failed", "True") for one in conditions)
        return str(jobs[0]["metadata"]["name"]) if is_failed else None

    job = eventually("the Job failed", failed, limit=60)
    assert [exit_code(pod) for pod in job_pods(stage)] == [11]
    log = stage.plane.kubectl("logs", "-n", NAMESPACE, f"job/{job}")
    assert "NeedsNewInvite" in log
    token = next(word for word in words if word.startswith("bootstrap.token=")).partition("=")[2]
    assert token not in log
    events = stage.hub.call("GET", f"/v1/clusters/{cluster_id}/events")["items"]
    assert any(event["reason"] == "NeedsNewInvite" for event in events)
    assert stage.hub.row(cluster_id)["open_alerts"] == 0, "the same cluster again is no theft"

    created = stage.hub.call("POST", f"/v1/clusters/{cluster_id}/invite")
    upgrade = ["upgrade", "--install", "daalu-edge", str(stage.chart), "-n", NAMESPACE, "--reuse-values"]
    stage.plane.helm(*upgrade, "--set", f"bootstrap.token={created['token']}")
    row, _ = stage.hub.until_phase(cluster_id, "connected")
    assert row["address"] == address
