"""A container registry of the tests' own under the name of a public one: charts are pulled and images too, for real.

Debian's `docker-registry`, in the hub's sandbox at an address of its own, with a certificate of the tests' authority.
"""

from __future__ import annotations

import json

from tests.kube.pki import Authority
from tests.kube.sandbox import Sandbox, eventually

NAME = "ghcr.io"


class Registry:
    """Starts when made, ends with its sandbox."""

    def __init__(self, sandbox: Sandbox, *, address: str, authority: Authority) -> None:
        pair = authority.issue("registry", NAME, names=[NAME])
        folder = sandbox.folder / "registry"
        folder.mkdir()
        configuration = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(folder)}},
            "http": {"addr": f"{address}:443", "tls": {"certificate": f"{pair}.crt", "key": f"{pair}.key"}},
        }
        path = sandbox.folder / "registry.json"  # which is YAML as well
        path.write_text(json.dumps(configuration))
        sandbox.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        self.process = process = sandbox.spawn("registry", "docker-registry", "serve", str(path))

        def listens() -> bool:
            assert process.is_running, process.output[-3000:]
            return f"{address}:443" in sandbox.run("ss", "-Hltn")

        eventually("the registry listens", listens)
