"""The stage of the story: a hub and a registry in one sandbox, a cluster in another, two ways between them, a browser.

One way is a cable, the other has weather; `Stage.weather` says which of them the cluster uses. Names, ports and
addresses of chart and image are the handbook's: the printed command is run as it is, letter by letter.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kube import hub as hubs
from tests.kube import registry
from tests.kube.build import build, cache
from tests.kube.controlplane import ControlPlane
from tests.kube.hub import EMAIL, Browser, Hub, open_hub
from tests.kube.images import REPOSITORY, write_application
from tests.kube.node import Node, open_cluster
from tests.kube.pki import Authority
from tests.kube.registry import Registry
from tests.kube.sandbox import cable
from tests.kube.weather import Weather, WeatherCable

HUB_ADDRESS, CLUSTER_ADDRESS, REGISTRY_ADDRESS = "192.0.2.1", "192.0.2.2", "192.0.2.3"
ROUGH_ADDRESSES = "198.51.100.1", "198.51.100.2"
HOSTS = {hubs.NAME: HUB_ADDRESS, registry.NAME: REGISTRY_ADDRESS}
IMAGE = "ghcr.io/daalu/daalu-edge:0.1.0"
CHARTS = "oci://ghcr.io/daalu/charts"
NAMESPACE = "daalu-edge"
OUT = REPOSITORY / "build/e2e"


def say(text: str) -> None:
    """Progress, past pytest's capture."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.__stderr__, flush=True)


@dataclass
class Stage:
    """Hub, node and browser."""

    hub: Hub
    node: Node
    browser: Browser
    chart: Path
    rough: WeatherCable
    times: dict[str, Any] = field(default_factory=dict)

    @property
    def plane(self) -> ControlPlane:
        return self.node.control_plane

    def note(self, what: str, seconds: float | dict[str, float]) -> None:
        """Keep a measured time, and say it."""
        rounded = round(seconds, 3) if isinstance(seconds, float) else {k: round(v, 3) for k, v in seconds.items()}
        self.times[what] = rounded
        say(f"{what}: {rounded}")
        (OUT / "times.json").write_text(json.dumps(self.times, indent=2) + "\n")

    @contextlib.contextmanager
    def weather(self, weather: Weather) -> Iterator[None]:
        """All that the cluster sends to the hub, and the hub to it, has this weather."""
        self.rough.weather = weather
        link, here = self.rough.names[1], ROUGH_ADDRESSES[1]
        self.node.sandbox.run("ip", "route", "add", f"{HUB_ADDRESS}/32", "dev", link, "src", here)
        try:
            yield
        finally:
            self.node.sandbox.run("ip", "route", "del", f"{HUB_ADDRESS}/32", "dev", link)

    def edge_pod(self) -> dict[str, Any]:
        """The edge's pod that runs."""
        pods = [
            pod
            for pod in self.node.pods(NAMESPACE, "app.kubernetes.io/component=edge")
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]
        assert pods, "no edge pod runs"
        return pods[0]

    def edge_process(self) -> int:
        """The process id, on this machine, of the edge that runs."""
        uid = self.edge_pod()["metadata"]["uid"]
        processes = self.node.container_processes(uid, "edge_agent")
        assert processes, "no process of the edge runs"
        return processes[0]

    def printed_command(self, name: str) -> list[str]:
        """What *Add cluster* prints, by the operator's clicks."""
        browser = self.browser
        browser("goto", "/t/default/clusters/add")
        browser("fill", "#name", name)
        browser("click", "text=Generate invite")
        browser("wait", "#command")
        return shlex.split(browser("text", "#command").replace("\\\n", ""))

    def helm(self, words: list[str], major: int) -> str:
        """Run a printed `helm` command with one of the two majors."""
        assert words[0] == "helm"
        return self.plane.helm(*words[1:], major=major)

    def invite(self, name: str) -> tuple[str, list[str]]:
        """A new cluster and its printed command, by the JSON API."""
        created = self.hub.call("POST", "/v1/tenants/default/clusters", name=name)
        return created["cluster_id"], shlex.split(created["command"].replace("\\\n", ""))

    def join(self, name: str, major: int = 3) -> tuple[str, float]:
        """Run the command of a new invite; the cluster's id, and the seconds to the green row."""
        cluster_id, words = self.invite(name)
        begin = time.monotonic()
        self.helm(words, major)
        self.hub.until_phase(cluster_id, "connected")
        return cluster_id, time.monotonic() - begin

    def clear(self) -> None:
        """The node is up and nothing of an edge remains, not even the namespace."""
        if not self.node.is_up:
            self.node.start()
        if "daalu-edge" in self.plane.helm("list", "-n", NAMESPACE, "-q"):
            self.plane.helm("uninstall", "-n", NAMESPACE, "daalu-edge")
        self.plane.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true")

    def kubeconfig(self, cluster_id: str) -> str:
        """A fresh kubeconfig for a cluster, by the JSON API; its path in the hub's sandbox."""
        self.hub.reauthenticate()
        issued = self.hub.call("POST", f"/v1/clusters/{cluster_id}/kubeconfigs")
        path = self.hub.sandbox.folder / f"{issued['id']}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(issued["yaml"])
        return str(path)

    def publish(self, image: Path) -> None:
        """Put chart and image where the handbook says that they are; the node has to pull them."""
        self.plane.helm("push", str(self.chart), CHARTS, major=3)
        for words in (["import", str(image)], ["push", IMAGE], ["rm", IMAGE]):
            self.node.sandbox.run("ctr", "--address", str(self.node.socket), "-n", "workshop", "images", *words)

    def sign_in(self) -> None:
        """The operator's browser signs in."""
        self.browser("goto", "/sign-in")
        if "sign-in" in self.browser("url"):
            self.browser("fill", "#email", EMAIL)
            self.browser("fill", "#password", self.hub.password)
            self.browser("click", "button.primary")


@contextlib.contextmanager
def open_stage(workshop: Path) -> Iterator[Stage]:
    """All of it; nothing remains when the block ends."""
    OUT.mkdir(parents=True, exist_ok=True)
    say("Kubernetes programs: building what is missing (ten minutes the first time)")
    build()
    authority = Authority(workshop / "company", "the company's authority")
    say("images: the edge, from the base and images/install.py")
    image = write_application(workshop / "edge.tar", IMAGE, "edge", "edge_agent", workshop, authority.certificate_path)
    subprocess.run(
        [str(cache() / "bin/helm3"), "package", str(REPOSITORY / "chart/daalu-edge"), "-d", str(workshop)],
        check=True, capture_output=True,
    )  # fmt: skip
    [chart] = workshop.glob("daalu-edge-*.tgz")
    say("a hub and a registry in one sandbox, a cluster in another")
    with (
        open_hub(address=HUB_ADDRESS, authority=authority) as hub,
        open_cluster(hosts=HOSTS, authority=authority.certificate_path) as node,
        contextlib.ExitStack() as stack,
    ):
        hub.sandbox.name_hosts(HOSTS)
        node.sandbox.name_hosts(HOSTS)
        cable(hub.sandbox, node.sandbox, (f"{HUB_ADDRESS}/24", f"{CLUSTER_ADDRESS}/24"))
        Registry(hub.sandbox, address=REGISTRY_ADDRESS, authority=authority)
        here, there = ROUGH_ADDRESSES
        rough = WeatherCable(hub.sandbox, node.sandbox, (f"{here}/24", f"{there}/24"), Weather())
        stack.callback(rough.close)
        hub.start()
        hub.sign_in()
        browser = Browser(hub.sandbox, hub.url, OUT)
        stack.callback(browser.close)
        stage = Stage(hub, node, browser, chart, rough)
        stage.publish(image)
        yield stage
