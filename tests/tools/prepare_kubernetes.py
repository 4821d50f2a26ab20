"""Install what `make e2e` needs beside Python: Debian's container tools, a browser, clients, and Kubernetes itself.

`python tests/tools/prepare_kubernetes.py`; as root, on Debian or Ubuntu, with Go. Says what it does; what is there
already is not done again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "dnsmasq": "dnsmasq-base",
    "iptables": "iptables",
    "ip": "iproute2",
    "chromium": "chromium",
    "conntrack": "conntrack",
    "docker-registry": "docker-registry",
}


def main() -> int:
    """Do it; 0 when everything is there."""
    if os.geteuid() != 0:
        print("make e2e makes namespaces, mounts and packet filter rules: run it as root", file=sys.stderr)
        return 1
    if shutil.which("go") is None:
        print("make e2e builds Kubernetes: install Go 1.24 or newer", file=sys.stderr)
        return 1
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if not Path("/usr/lib/cni/bridge").exists():
        missing.append("containernetworking-plugins")
    if missing:
        print(f"installing {' '.join(missing)}", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", "-q", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    print("clients: helm and kubectl, the oldest and the newest that are supported", flush=True)
    tools = ROOT / "tests/tools/fetch_kubernetes_clients.py"
    subprocess.run([sys.executable, str(tools)], check=True, stdout=subprocess.DEVNULL)
    print("Kubernetes: building what is not there (ten minutes the first time)", flush=True)
    subprocess.run([sys.executable, "-m", "tests.kube.build"], cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
