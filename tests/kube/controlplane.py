"""The control plane of a cluster inside a sandbox: etcd, API server and, when asked for, controllers and scheduler.

With controllers alone it is the stage for every test that needs no running pod: ready in seconds, nothing installed.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.kube.build import binaries, cache
from tests.kube.pki import Authority, write_key, write_public_key
from tests.kube.sandbox import CommandFailed, Process, Sandbox, eventually, open_sandbox

ADDRESS = "172.30.0.1"
SERVICES = "10.96.0.0/16"
SERVICE = "10.96.0.1"
PODS = "10.244.0.0/24"
PORT = 6443

# Everything that is asked of the API server, by whom and with which answer: A13, A24, A27 and A37 read it.
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]
- level: None
  userGroups: ["system:nodes"]
- level: None
  namespaces: ["kube-system"]
  userGroups: ["system:serviceaccounts:kube-system"]
- level: Metadata
"""


class ControlPlane:
    """A control plane in a sandbox of the caller."""

    def __init__(self, sandbox: Sandbox, *, controllers: bool = True, scheduler: bool = False) -> None:
        self.sandbox = sandbox
        self.folder = sandbox.folder / "control-plane"
        self.folder.mkdir()
        self.authority = Authority(self.folder / "pki", "cluster authority")
        self.kubeconfigs: dict[str, Path] = {}
        self.audit_log = self.folder / "audit.log"
        self._dress()
        self._start_api_server()
        self._start("kube-controller-manager", "controller-manager", controllers, [
            "--use-service-account-credentials", "--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16",
            f"--service-account-private-key-file={self.authority.folder}/accounts.key",
            f"--root-ca-file={self.authority.certificate_path}",
        ])  # fmt: skip
        self._start("kube-scheduler", "scheduler", scheduler, [])
        self.env = {"KUBECONFIG": str(self.kubeconfigs["admin"])}
        if controllers:
            eventually("the default account exists", lambda: self.kubectl("get", "serviceaccount", "default"))

    def _dress(self) -> None:
        """Addresses, certificates, and a kubeconfig for each part."""
        self.sandbox.run("ip", "link", "add", "node0", "type", "bridge")
        self.sandbox.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "node0")
        self.sandbox.run("ip", "link", "set", "node0", "up")
        names = ["localhost", "127.0.0.1", SERVICE, ADDRESS, "kubernetes"]
        names += ["kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        self.authority.issue("apiserver", "kube-apiserver", names=names)
        self.authority.issue("kubelet-client", "kube-apiserver-kubelet-client", groups=["system:masters"])
        write_public_key(self.authority.folder / "accounts.pub", write_key(self.authority.folder / "accounts.key"))
        self.issue_kubeconfig("admin", "admin", ["system:masters"])
        self.issue_kubeconfig("controller-manager", "system:kube-controller-manager")
        self.issue_kubeconfig("scheduler", "system:kube-scheduler")
        (self.folder / "audit-policy.yaml").write_text(AUDIT_POLICY)

    def issue_kubeconfig(
        self, name: str, user: str, groups: list[str] | None = None, names: tuple[str, ...] = ()
    ) -> Path:
        """A kubeconfig for a user with a certificate."""
        pair = self.authority.issue(name, user, groups=groups or [], names=names)
        path = self.folder / f"{name}.kubeconfig"

        def inline(file: Path) -> str:
            return base64.b64encode(file.read_bytes()).decode()

        cluster = {
            "server": f"https://127.0.0.1:{PORT}",
            "certificate-authority-data": inline(self.authority.certificate_path),
        }
        credentials = {
            "client-certificate-data": inline(pair.with_name(f"{name}.crt")),
            "client-key-data": inline(pair.with_name(f"{name}.key")),
        }
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        }  # fmt: skip
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        self.kubeconfigs[name] = path
        return path

    def _start_api_server(self) -> None:
        pki = self.authority.folder
        self.etcd = self.sandbox.spawn(
            "etcd", "etcd", "--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync", "--log-level=warn"
        )
        self.api_server = self.sandbox.spawn(
            "kube-apiserver",
            str(binaries() / "kube-apiserver"),
            "--etcd-servers=http://127.0.0.1:2379",
            f"--secure-port={PORT}",
            "--bind-address=0.0.0.0",
            f"--advertise-address={ADDRESS}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--service-account-key-file={pki}/accounts.pub",
            f"--service-account-signing-key-file={pki}/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-log-path={self.audit_log}",
            f"--audit-policy-file={self.folder}/audit-policy.yaml",
        )
        self.env = {"KUBECONFIG": str(self.kubeconfigs["admin"])}
        eventually("the API server is ready", self._is_ready)

    def _is_ready(self) -> bool:
        assert self.api_server.is_running, self.api_server.output[-3000:]
        return self.kubectl("get", "--raw", "/readyz", check=False) == "ok"

    def _start(self, program: str, kubeconfig: str, wanted: bool, flags: list[str]) -> Process | None:
        if not wanted:
            return None
        return self.sandbox.spawn(
            program,
            str(binaries() / program),
            f"--kubeconfig={self.kubeconfigs[kubeconfig]}",
            f"--authentication-kubeconfig={self.kubeconfigs[kubeconfig]}",
            f"--authorization-kubeconfig={self.kubeconfigs[kubeconfig]}",
            "--leader-elect=false",
            *flags,
        )

    def kubectl(
        self,
        *argv: str,
        text_in: str | None = None,
        check: bool = True,
        program: str = "kubectl-new",
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run kubectl as the administrator of the cluster."""
        return self.sandbox.run(
            str(cache() / "bin" / program), *argv, text_in=text_in, check=check, env={**self.env, **(env or {})}
        )

    def succeeds(self, *argv: str, text_in: str | None = None) -> bool:
        """Whether kubectl's exit status is 0."""
        try:
            self.kubectl(*argv, text_in=text_in)
        except CommandFailed:
            return False
        return True

    def get(self, *argv: str) -> Any:
        """What `kubectl get ARGV -o json` prints."""
        return json.loads(self.kubectl("get", *argv, "-o", "json"))

    def helm(self, *argv: str, major: int = 3, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """Run helm as the administrator of the cluster."""
        return self.sandbox.run(
            str(cache() / "bin" / f"helm{major}"), *argv, check=check, env={**self.env, **(env or {})}
        )

    def audit(self) -> list[dict[str, Any]]:
        """What the API server was asked, oldest first."""
        text = self.audit_log.read_text() if self.audit_log.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


@contextlib.contextmanager
def open_control_plane(label: str = "cluster") -> Iterator[ControlPlane]:
    """A control plane without nodes in a sandbox of its own."""
    with open_sandbox(label) as sandbox:
        try:
            yield ControlPlane(sandbox)
        except BaseException:
            sandbox.show_output()
            raise
