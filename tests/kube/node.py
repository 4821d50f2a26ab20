"""A real node in the sandbox of its control plane: containerd, kubelet, a bridge for pods, cluster DNS.

Not a whole network: there is no kube-proxy (the service of the API server is one packet filter rule, others are made by
`expose`), and no NetworkPolicy is enforced (`cut_off` puts rules for a pod's address in its place).
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kube.build import binaries
from tests.kube.controlplane import ADDRESS, PODS, PORT, SERVICE, ControlPlane
from tests.kube.images import write_image
from tests.kube.sandbox import Process, Sandbox, eventually, open_sandbox

PAUSE_IMAGE = "localhost/pause:1"

CONTAINERD = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE a score of -998 cannot be set, and runc would die of it.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/net.d"
"""

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}  # fmt: skip


def cgroup_mounts(*kinds: str) -> list[Path]:
    """Where hierarchies of these kinds, `cgroup` (version 1) and `cgroup2`, are mounted."""
    with Path("/proc/self/mountinfo").open() as mounts:
        rows = [line.split() for line in mounts]
    return [Path(row[4]) for row in rows if row[row.index("-") + 1] in kinds]


def cgroup_hierarchies() -> list[Path]:
    """The hierarchies that control something: those of version 1, else the one of version 2."""
    return cgroup_mounts("cgroup") or cgroup_mounts("cgroup2")


def remove_cgroups(name: str) -> None:
    """Remove a cgroup and all below it, in every hierarchy; its processes are gone already."""

    def removed(top: Path) -> bool:
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return not top.exists()

    # Beside version 1 there may be an idle version 2, in which runc makes its folders too.
    for hierarchy in cgroup_mounts("cgroup", "cgroup2"):
        eventually(f"{hierarchy}/{name} can be removed", lambda top=hierarchy / name: removed(top), limit=10)


class Node:
    """One node beside its control plane. `stop` and `start` again are a reboot: pods and their containers die."""

    def __init__(
        self, control_plane: ControlPlane, *, name: str = "node1", hosts: dict[str, str] | None = None
    ) -> None:
        self.control_plane = control_plane
        self.sandbox: Sandbox = control_plane.sandbox
        self.name = name
        self.folder = self.sandbox.folder / "node"
        self.socket = self.folder / "containerd.sock"
        self.cgroup = self.sandbox.name
        self.hosts = hosts or {}
        self._containerd: Process | None = None
        self._kubelet: Process | None = None
        self._dns: Process | None = None
        for hierarchy in cgroup_hierarchies():
            self._make_cgroup(hierarchy / self.cgroup)
        self._write_configuration()
        self._lay_network()

    @staticmethod
    def _make_cgroup(path: Path) -> None:
        path.mkdir(exist_ok=True)
        # A new cpuset of version 1 is empty, and an empty one takes no process.
        for knob in ("cpuset.cpus", "cpuset.mems"):
            if (path / knob).exists() and not (path / knob).read_text().strip():
                (path / knob).write_text((path.parent / knob).read_text())

    def _write_configuration(self) -> None:
        (self.folder / "net.d").mkdir(parents=True)
        (self.folder / "net.d/10-bridge.conflist").write_text(json.dumps(NETWORK))
        (self.folder / "containerd.toml").write_text(CONTAINERD.format(folder=self.folder, pause=PAUSE_IMAGE))
        self.control_plane.issue_kubeconfig(
            "kubelet", f"system:node:{self.name}", ["system:nodes"], names=(self.name, "127.0.0.1", ADDRESS)
        )
        pki = self.control_plane.authority.folder
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "failCgroupV1": False, "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{self.cgroup}",
            "authentication": {
                "anonymous": {"enabled": False}, "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{pki}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{pki}/kubelet.crt", "tlsPrivateKeyFile": f"{pki}/kubelet.key",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "clusterDomain": "cluster.local", "clusterDNS": [ADDRESS],
            "failSwapOn": False, "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
                "nodefs.inodesFree": "1%",
            },
            "enforceNodeAllocatable": [], "podCIDR": PODS,
            "volumePluginDir": f"{self.folder}/volume-plugins", "podLogsDir": f"{self.folder}/pod-logs",
            "containerLogMaxSize": "1Gi",
            # The tests wait for pods, not for a busy machine.
            "syncFrequency": "10s", "nodeStatusUpdateFrequency": "4s",
        }  # fmt: skip
        (self.folder / "kubelet.json").write_text(json.dumps(configuration))

    def _lay_network(self) -> None:
        run = self.sandbox.run
        run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0")
        for chain in ("PREROUTING", "OUTPUT"):
            run(
                *("iptables", "-t", "nat", "-A", chain, "-d", SERVICE, "-p", "tcp", "--dport", "443"),
                *("-j", "DNAT", "--to-destination", f"{ADDRESS}:{PORT}"),
            )
        records = {"kubernetes.default.svc.cluster.local": SERVICE, **self.hosts}
        self._dns = self.sandbox.spawn(
            *("dnsmasq", "dnsmasq", "--no-daemon", "--no-hosts", "--no-resolv", f"--listen-address={ADDRESS}"),
            *("--bind-interfaces", "--user=root", "--pid-file="),
            *[f"--address=/{name}/{address}" for name, address in records.items()],
        )

    def start(self) -> None:
        """Start containerd and kubelet and wait until the node is ready."""
        self._containerd = self.sandbox.spawn(
            "containerd", "containerd", "--config", str(self.folder / "containerd.toml"), "--log-level=warn"
        )
        eventually("containerd answers", lambda: self._alive(self._containerd) and self._serves_kubernetes())
        if PAUSE_IMAGE not in self.ctr("images", "ls", "-q"):
            self.import_image(make_pause_image(self.folder / "pause.tar"))
        self._start_kubelet()
        eventually("the node is ready", self._is_ready)

    def _start_kubelet(self) -> None:
        self._kubelet = self.sandbox.spawn(
            "kubelet",
            str(binaries() / "kubelet"),
            f"--config={self.folder}/kubelet.json",
            f"--kubeconfig={self.control_plane.kubeconfigs['kubelet']}",
            f"--root-dir={self.folder}/kubelet",
            f"--cert-dir={self.folder}/kubelet-certificates",
            f"--hostname-override={self.name}",
            f"--node-ip={ADDRESS}",
        )

    def _serves_kubernetes(self) -> bool:
        rows = [line.split() for line in self.ctr("plugins", "ls").splitlines()]
        return any(row[:2] == ["io.containerd.grpc.v1", "cri"] and row[-1] == "ok" for row in rows)

    def _alive(self, process: Process | None) -> bool:
        assert process is not None
        assert process.is_running, process.output[-3000:]
        return True

    def _is_ready(self) -> bool:
        # A kubelet that cannot do its work yet ends; on a machine of its own the init system starts it again.
        if self._kubelet is not None and not self._kubelet.is_running:
            self._start_kubelet()
            return False
        conditions = self.control_plane.get("node", self.name)["status"]["conditions"]
        ready = next(one for one in conditions if one["type"] == "Ready")
        # After a reboot the old word of the last run still stands.
        return ready["status"] == "True" and time.time() - _seconds(ready["lastHeartbeatTime"]) < 8

    def stop(self) -> None:
        """Pull the plug: kubelet first, then every container at once, then containerd."""
        if self._kubelet is not None:
            self._kubelet.stop(signal.SIGKILL)
        for pid in self._container_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._containerd is not None:
            self._containerd.stop()
        self._kubelet = self._containerd = None

    def _container_processes(self) -> set[int]:
        """The processes (ids on this machine) in the cgroups of the pods."""
        top = next(path for path in cgroup_hierarchies() if (path / self.cgroup).exists()) / self.cgroup
        return {int(word) for file in top.rglob("cgroup.procs") for word in file.read_text().split()}

    @property
    def is_up(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._kubelet is not None

    def container_processes(self, pod_uid: str, word: str) -> list[int]:
        """The processes of a pod whose command line has this word."""
        pods = next(path for path in cgroup_hierarchies() if (path / self.cgroup).exists()) / self.cgroup
        found = []
        for file in pods.rglob("cgroup.procs"):
            if pod_uid not in str(file):
                continue
            for pid in file.read_text().split():
                with contextlib.suppress(OSError):
                    if word in Path(f"/proc/{pid}/cmdline").read_text():
                        found.append(int(pid))
        return found

    def close(self) -> None:
        """End the node; what is left (mounts, links, rules) goes with the sandbox, `remove_cgroups` takes the rest."""
        with contextlib.suppress(Exception):
            self.stop()
        self.sandbox.kill()
        remove_cgroups(self.cgroup)

    def ctr(self, *argv: str, check: bool = True) -> str:
        """Run containerd's own client in the namespace that the kubelet uses."""
        return self.sandbox.run("ctr", "--address", str(self.socket), "--namespace", "k8s.io", *argv, check=check)

    def import_image(self, archive: Path) -> None:
        """Load an image archive into the node."""
        self.ctr("images", "import", str(archive))

    def pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The pods of a namespace."""
        options = ["-l", selector] if selector else []
        return list(self.control_plane.get("pods", "-n", namespace, *options)["items"])

    @contextlib.contextmanager
    def cut_off(self, address: str, how: str = "DROP") -> Iterator[None]:
        """Keep a pod from the API server as a NetworkPolicy would: `DROP` is silence, `REJECT` an answer."""
        target = [how, "--reject-with", "tcp-reset"] if how == "REJECT" else [how]
        rule = ["-s", address, "-p", "tcp", "--dport", str(PORT), "-j", *target]
        self.sandbox.run("iptables", "-I", "INPUT", *rule)
        try:
            yield
        finally:
            self.sandbox.run("iptables", "-D", "INPUT", *rule)


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def make_pause_image(path: Path) -> Path:
    """The image of the container that holds a pod's namespaces."""
    return write_image(path, PAUSE_IMAGE, {"pause": binaries() / "pause"}, ["/pause"])


@contextlib.contextmanager
def open_cluster(
    *, hosts: dict[str, str] | None = None, label: str = "cluster", authority: Path | None = None
) -> Iterator[Node]:
    """A whole cluster of one node in a sandbox of its own, which may trust one more authority."""
    with open_sandbox(label) as sandbox:
        node: Node | None = None
        try:
            if authority is not None:
                sandbox.trust(authority)
            node = Node(ControlPlane(sandbox, scheduler=True), hosts=hosts)
            node.start()
            yield node
        except BaseException:
            sandbox.show_output()
            raise
        finally:
            if node is not None:
                node.close()


def leftovers(sandbox_name: str) -> str:
    """What a sandbox has left on this machine, empty when nothing: looked at when everything was closed."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if sandbox_name in line]
    everywhere = cgroup_mounts("cgroup", "cgroup2")
    cgroups = [str(path / sandbox_name) for path in everywhere if (path / sandbox_name).exists()]
    processes = subprocess.run(
        ["pgrep", "-f", sandbox_name], capture_output=True, text=True, check=False
    ).stdout.split()
    return "\n".join([*mounts, *cgroups, *processes])
