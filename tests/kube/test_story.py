"""The handbook's chapter on a real node: from *Generate invite* to `helm uninstall`, and nothing left.

`make e2e` runs it. The hub is in a namespace of its own, the cluster in another, a cable between them; the operator is
a chromium at the hub's pages. Screenshots of each step are kept in `build/e2e`, measured times in
`build/e2e/times.json`.
"""

from __future__ import annotations

import json
import shlex
import signal
import time
from typing import Any

import pytest

from tests.kube.build import cache
from tests.kube.sandbox import eventually
from tests.kube.stage import NAMESPACE, Stage, say

pytestmark = [pytest.mark.kube, pytest.mark.timeout(2400)]

CLUSTER = "acme-eu-prod"
HANDBOOK = """
helm install daalu-edge oci://ghcr.io/daalu/charts/daalu-edge
  --namespace daalu-edge --create-namespace
  --set hub.url=https://hub.daalu.io
  --set bootstrap.token=TOKEN
"""


@pytest.fixture(scope="module")
def installed(stage: Stage) -> str:
    """A cluster that was joined as the handbook says; its id."""
    stage.browser("goto", "/sign-in")
    stage.browser("shot", "01-sign-in")
    stage.sign_in()
    stage.browser("goto", "/t/default/clusters")
    stage.browser("shot", "02-no-cluster-yet")
    words = stage.printed_command(CLUSTER)
    assert words[:-1] == shlex.split(HANDBOOK)[:-1], "A11: the handbook's command, letter by letter"
    stage.browser("shot", "03-command-and-ladder")
    cluster_id = str(stage.browser("url")).split("/")[4]
    say(f"{' '.join(words[:4])} ... (helm 3)")
    begin = time.monotonic()
    stage.helm(words, 3)
    stage.note("helm install returned", time.monotonic() - begin)
    stage.hub.until_phase(cluster_id, "connected")
    stage.note("helm install to green row", time.monotonic() - begin)
    stage.browser("wait", "#waiting", "Connected: the tunnel is up and the API server answers.")
    stage.browser("shot", "04-connected")
    return cluster_id


def test_the_row_and_the_page_of_the_cluster(stage: Stage, installed: str) -> None:
    """A17, A18, A20: green row with tunnel IP and a fresh handshake; the page lists the nodes of the API server."""
    browser = stage.browser
    browser("goto", "/t/default/clusters")
    browser("wait", f"#r-{installed}", "connected")
    browser("shot", "05-green-row")
    row = stage.hub.row(installed)
    assert row["address"] == "100.96.0.2"
    assert time.time() - row["last_handshake"] < 120
    table = eventually("nodes are told", lambda: stage.hub.call("GET", f"/v1/clusters/{installed}/nodes")["nodes"])
    real = stage.plane.get("nodes")["items"]
    assert [(node["name"], node["ready"], node["version"]) for node in table] == [
        (node["metadata"]["name"], True, node["status"]["nodeInfo"]["kubeletVersion"]) for node in real
    ]
    browser("goto", f"/clusters/{installed}/nodes")
    browser("wait", "#nodes", "node1")
    browser("shot", "06-nodes")
    stage.plane.kubectl("cordon", "node1")
    browser("wait", "#nodes", "SchedulingDisabled")
    stage.plane.kubectl("uncordon", "node1")


def test_what_was_installed_is_what_the_handbook_lists(stage: Stage, installed: str) -> None:
    """A12, A22, A23, A25: the objects, where the key lies, the rights, and Pod Security `restricted`."""
    kinds = "deployments,jobs,secrets,configmaps,serviceaccounts,daemonsets,statefulsets,services"
    items = stage.plane.get(kinds, "-n", NAMESPACE)["items"]
    found = sorted(
        f"{one['kind']}/{one['metadata']['name']}"
        for one in items
        if one["metadata"]["name"] not in ("default", "kube-root-ca.crt")
        and not one["metadata"]["name"].startswith("sh.helm.release")
    )
    counted = [name.partition("/")[0] for name in found]
    assert counted == ["ConfigMap", "Deployment", "Job", "Secret", "Secret", "ServiceAccount", "ServiceAccount"], found
    pod = stage.edge_pod()
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    account = f"system:serviceaccount:{NAMESPACE}:{pod['spec']['serviceAccountName']}"

    def may(*words: str) -> bool:
        return stage.plane.succeeds("auth", "can-i", *words, f"--as={account}")

    assert may("list", "pods", "-A")
    assert may("get", "pods", "--subresource=log", "-A")
    assert not may("list", "secrets", "-A")
    assert not may("delete", "pods", "-A")
    assert not may("create", "pods", "--subresource=exec", "-A")
    stage.plane.kubectl("create", "namespace", "strict")
    stage.plane.kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    try:
        spec = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": "strict"}}
        kept = {key: value for key, value in pod["spec"].items() if key not in ("serviceAccountName", "serviceAccount")}
        text = json.dumps({**spec, "spec": kept})
        stage.plane.kubectl("apply", "--dry-run=server", "-f", "-", text_in=text)
    finally:
        stage.plane.kubectl("delete", "namespace", "strict", "--wait=false")


def test_the_panel_prints_what_kubectl_prints(stage: Stage, installed: str) -> None:
    """A21: the same table as the real kubectl's, and a refusal without a request."""
    browser = stage.browser
    browser("goto", f"/clusters/{installed}/kubectl")
    browser("fill", "#line", "get nodes")
    browser("click", "#term button")
    browser("wait", "#output", "node1")
    browser("shot", "07-panel")
    shown = [line.split() for line in browser("text", "#output").splitlines() if line.strip()]
    real = [line.split() for line in stage.plane.kubectl("get", "nodes").splitlines()]
    assert [line[:3] for line in shown] == [line[:3] for line in real]
    browser("fill", "#line", "get nodes; id")
    browser("click", "#term button")
    browser("wait", "#out", "Nothing was sent")


def kubeconfig_of(stage: Stage, cluster_id: str) -> str:
    """Downloaded by the operator's click."""
    browser = stage.browser
    browser("goto", f"/clusters/{cluster_id}/kubeconfigs")
    browser("fill", "#password", stage.hub.password)
    path = str(stage.hub.sandbox.folder / "kubeconfig")
    browser("download", "text=Download >> nth=-1", path)
    return path


@pytest.mark.parametrize("program", ["kubectl-old", "kubectl-new"])
def test_a_stock_kubectl_works_through_the_hub(stage: Stage, installed: str, program: str) -> None:
    """A27 and A28 in small: get, logs and `logs -f` with the downloaded kubeconfig, oldest and newest kubectl."""
    path = kubeconfig_of(stage, installed)
    stage.browser("shot", "08-kubeconfig")
    kubectl = [str(cache() / "bin" / program), "--kubeconfig", path]
    run = stage.hub.sandbox.run
    assert "node1" in run(*kubectl, "get", "nodes")
    assert "v1.36.3" in run(*kubectl, "version")
    pod = stage.edge_pod()["metadata"]["name"]
    direct = stage.plane.kubectl("logs", "-n", NAMESPACE, pod, "--tail=3")
    assert direct.splitlines()[0] in run(*kubectl, "logs", "-n", NAMESPACE, pod)
    follower = stage.hub.sandbox.popen(*kubectl, "logs", "-f", "-n", NAMESPACE, pod)
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline()
    finally:
        follower.send_signal(signal.SIGINT)
        follower.wait(20)
        follower.stdout.close()  # type: ignore[union-attr]
    refused = run(*kubectl, "get", "persistentvolumes", check=False)
    assert "forbidden" in refused.lower(), "A43: the API server's own words"


def test_the_proxied_get_is_hardly_slower(stage: Stage, installed: str) -> None:
    """The figure: a `get` through the hub against the direct one, alternating, medians of one run."""
    path = kubeconfig_of(stage, installed)
    raw = ("get", "--raw", "/api/v1/nodes")
    through, direct = [], []
    for _ in range(9):
        for times, run in (
            (through, lambda: stage.hub.sandbox.run(str(cache() / "bin/kubectl-new"), "--kubeconfig", path, *raw)),
            (direct, lambda: stage.plane.kubectl(*raw)),
        ):
            begin = time.monotonic()
            run()
            times.append(time.monotonic() - begin)
    stage.note("proxied get over the direct one, p50", sorted(through)[4] - sorted(direct)[4])


def test_a_pod_that_was_killed_is_back_in_seconds(stage: Stage, installed: str) -> None:
    """A30: the same address, no alert."""
    address = stage.hub.row(installed)["address"]
    before = stage.edge_pod()["metadata"]["name"]
    stage.plane.kubectl("delete", "pod", "-n", NAMESPACE, before, "--grace-period=0", "--force")

    def started() -> dict[str, Any] | None:
        pod = stage.edge_pod()
        return pod if pod["metadata"]["name"] != before else None

    eventually("a new pod runs", started)
    begin, since = time.monotonic(), time.time()
    eventually(
        "the tunnel is back",
        lambda: (row := stage.hub.row(installed))["phase"] == "connected" and row["last_handshake"] > since - 5,
        pause=0.05,
    )
    stage.note("pod killed: new pod runs to tunnel back", time.monotonic() - begin)
    row = stage.hub.row(installed)
    assert (row["address"], row["open_alerts"]) == (address, 0)


def test_the_node_is_rebooted(stage: Stage, installed: str) -> None:
    """A32: every container dies; the tunnel comes back with the pod, without an invite."""
    address = stage.hub.row(installed)["address"]
    stage.node.stop()
    stage.hub.until_phase(installed, "disconnected")
    stage.browser("goto", "/t/default/clusters")
    stage.browser("wait", f"#r-{installed}", "disconnected")
    stage.browser("shot", "09-node-is-away")
    stage.node.start()
    begin = time.monotonic()
    stage.hub.until_phase(installed, "connected", limit=300)
    stage.note("node ready to tunnel back", time.monotonic() - begin)
    row = stage.hub.row(installed)
    assert (row["address"], row["open_alerts"]) == (address, 0)


def test_the_hub_is_restarted(stage: Stage, installed: str) -> None:
    """A48: killed and started; connected again without any bootstrap call."""
    stage.hub.stop(number=signal.SIGKILL)
    stage.hub.start()
    begin = time.monotonic()
    stage.hub.sign_in()
    stage.hub.until_phase(installed, "connected")
    stage.note("hub started to tunnel back", time.monotonic() - begin)
    stage.sign_in()


@pytest.mark.parametrize("major", [3, 4])
def test_an_upgrade_with_the_old_token(stage: Stage, installed: str, major: int) -> None:
    """A33: the spent token still in the values; the release succeeds and the Secret stays as it was."""

    def secret() -> Any:
        items = stage.plane.get("secrets", "-n", NAMESPACE)["items"]
        return [one["data"] for one in items if "private-key" in (one.get("data") or {})]

    before = secret()
    assert len(before) == 1
    words = ["upgrade", "daalu-edge", str(stage.chart), "-n", NAMESPACE, "--reset-then-reuse-values"]
    stage.plane.helm(*words, "--set", f"wg.keepalive={20 + major}", major=major)
    stage.plane.kubectl("rollout", "status", "-n", NAMESPACE, "deployment/daalu-edge", "--timeout=240s")
    stage.hub.until_phase(installed, "connected")
    assert secret() == before


def test_a_patch_widens_what_the_edge_may_do(stage: Stage, installed: str) -> None:
    """A24 and A43: the panel says what is missing, its link makes the patch, the owner applies it, *Check* ticks."""
    browser = stage.browser
    browser("goto", f"/clusters/{installed}/kubectl")
    browser("fill", "#line", "get configmaps -A")
    browser("click", "#term button")
    browser("wait", "#out", "forbidden")
    browser("shot", "10-forbidden")
    browser("click", "text=Make the permission that is missing")
    browser("wait", "text=Make the patch")
    browser("click", "text=Make the patch")
    browser("wait", "#apply")
    browser("shot", "11-patch")
    command = browser("text", "#apply")
    manifest = command.partition("<<'EOF'\n")[2].rpartition("EOF")[0]
    stage.plane.kubectl("apply", "--dry-run=server", "-f", "-", text_in=manifest)
    writes = {"create", "update", "patch", "delete"}
    edges = [
        one
        for one in stage.plane.audit()
        if one["user"]["username"] == f"system:serviceaccount:{NAMESPACE}:daalu-edge" and one["verb"] in writes
    ]
    assert all(one["objectRef"]["resource"] in ("configmaps", "selfsubjectaccessreviews") for one in edges), (
        "the hub writes to no cluster"
    )
    stage.plane.kubectl("apply", "-f", "-", text_in=manifest)
    browser("click", "#checks button")
    browser("wait", "ul.rules.card", "granted")
    assert "missing" not in browser("text", "ul.rules.card")
    browser("shot", "12-checked")
    browser("goto", f"/clusters/{installed}/kubectl")
    browser("fill", "#line", "get configmaps -A")
    browser("click", "#term button")
    browser("wait", "#output", "kube-root-ca.crt")


@pytest.mark.parametrize(("how", "errno"), [("DROP", "ETIMEDOUT"), ("REJECT", "ECONNREFUSED")])
def test_a_network_policy_is_told_apart(stage: Stage, installed: str, how: str, errno: str) -> None:
    """A44: the tunnel stays, the reason names the error; a rule for the pod's address stands for the policy."""
    address = stage.edge_pod()["status"]["podIP"]
    with stage.node.cut_off(address, how):
        row = eventually(
            "the hub says so",
            lambda: row if (row := stage.hub.row(installed))["reason"] == "TunnelUpApiUnreachable" else None,
            limit=180,
        )
        assert row is not None
        assert row["phase"] == "connected"
        assert row["detail"].startswith("tunnel up, API server unreachable from the edge pod: E"), errno
        if how == "DROP":
            stage.browser("goto", f"/clusters/{installed}")
            stage.browser("shot", "13-api-unreachable")
    begin = time.monotonic()
    eventually("it clears", lambda: stage.hub.row(installed)["reason"] is None, limit=90)
    stage.note(f"repaired ({how}) to cleared", time.monotonic() - begin)


def test_uninstalled_means_gone(stage: Stage, installed: str) -> None:
    """A35 and A37: disconnected in seconds, nothing left in the cluster, nothing reaches its API server."""
    begin = time.monotonic()
    stage.plane.helm("uninstall", "-n", NAMESPACE, "daalu-edge", major=3)
    row, _ = stage.hub.until_phase(installed, "disconnected")
    stage.note("helm uninstall to disconnected", time.monotonic() - begin)
    assert row["reason"] == "EdgeShutDown"
    stage.browser("goto", "/t/default/clusters")
    stage.browser("wait", f"#r-{installed}", "disconnected")
    stage.browser("shot", "14-uninstalled")

    def left() -> list[str]:
        kinds = "all,secrets,configmaps,serviceaccounts,roles,rolebindings,jobs"
        found = stage.plane.get(kinds, "-n", NAMESPACE, "-l", "app.kubernetes.io/instance=daalu-edge")["items"]
        whole = stage.plane.get("clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/managed-by=Helm")["items"]
        return [f"{one['kind']}/{one['metadata']['name']}" for one in [*found, *whole]]

    eventually("nothing is left", lambda: left() == [], limit=90)


def test_another_cluster_by_helm_4(stage: Stage) -> None:
    """The printed command with helm 4; then the pod is killed for good: silence, not a goodbye (A35)."""
    stage.plane.kubectl("delete", "namespace", NAMESPACE, "--wait=true", "--ignore-not-found")
    words = stage.printed_command("acme-us-prod")
    cluster_id = str(stage.browser("url")).split("/")[4]
    begin = time.monotonic()
    stage.helm(words, 4)
    stage.hub.until_phase(cluster_id, "connected")
    stage.note("helm 4 install to green row", time.monotonic() - begin)
    words = ["test", "-n", NAMESPACE, "daalu-edge", "--timeout", "120s", "--logs"]
    assert "Succeeded" in stage.plane.helm(*words, major=4)
    begin = time.monotonic()
    stage.node.stop()
    row, _ = stage.hub.until_phase(cluster_id, "disconnected")
    stage.note("killed to disconnected", time.monotonic() - begin)
    assert row["reason"] == "HeartbeatLost"
