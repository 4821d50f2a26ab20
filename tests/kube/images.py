"""Container images made here, without any registry: the pause image, a base with Python, the edge and the hub.

The base is Debian's own Python, unpacked and not installed; it holds no shell and no package manager, and it trusts the
authority of the tests as a company's base image trusts the company's.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_PATH = "PATH=/usr/local/bin:/usr/bin:/bin:/sbin:/usr/sbin"


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))


def write_image(path: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str]) -> Path:
    """An image archive of one layer that holds just these programs."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for target, source in files.items():
            _add(archive, target, source.read_bytes(), 0o755)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": [_PATH], "User": "65532:65532"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        _add(archive, config_name, config)
        _add(archive, f"{digest}/layer.tar", layer.getvalue())
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    return path
