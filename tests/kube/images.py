"""Container images made here, without any registry: the pause image, a base with Python, the edge and the hub.

The base is Debian's own Python, unpacked and not installed; it holds no shell and no package manager, and it trusts the
authority of the tests as a company's base image trusts the company's.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kube.build import cache

REPOSITORY = Path(__file__).resolve().parents[2]
# What is taken by itself; Python and the libraries that it needs are looked up, since each release names them anew.
BESIDE_PYTHON = ("ca-certificates", "libstdc++6", "media-types", "tzdata", "zlib1g")

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


def _dependencies(package: str) -> list[str]:
    """What a package of this machine's release depends on, real packages only."""
    command = ["apt-cache", "depends", "--important", "--no-recommends", package]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    words = [line.strip(" |").partition("epends: ")[2] for line in answer.stdout.splitlines()]
    return [word for word in words if word and not word.startswith("<")]


def base_python() -> str:
    """The Python of this machine's release, such as `python3.11`."""
    found = [name for name in _dependencies("python3-minimal") if re.fullmatch(r"python3\.\d+-minimal", name)]
    assert found, "python3-minimal does not say which Python it is"
    return found[0].removesuffix("-minimal")


def base_packages(python: str) -> list[str]:
    """Python, its standard library and the libraries below: no shell and no package manager beside it."""
    found: set[str] = set()
    left = [f"{python}-minimal", f"lib{python}-stdlib", "libstdc++6"]
    while left:
        package = left.pop()
        if package not in found:
            found.add(package)
            # Libraries only: the scripts of an installation need more than what is installed.
            left += [one for one in _dependencies(package) if one.startswith("lib")]
    return sorted(found | set(BESIDE_PYTHON))


def base_root() -> Path:
    """The root file system of the base image, from Debian's packages; made once."""
    root = cache() / "base-root"
    if (root / "usr/bin/python3").exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    packages = cache() / "debs"
    shutil.rmtree(packages, ignore_errors=True)
    packages.mkdir(parents=True)
    python = base_python()
    subprocess.run(["apt-get", "-q", "download", *base_packages(python)], cwd=packages, check=True, capture_output=True)
    root.mkdir(parents=True)
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", str(package), str(root)], check=True)
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "usr/bin/python3").symlink_to(python)
    return root


def application_folder(extra: str, folder: Path) -> Path:
    """What the Dockerfile's one RUN makes: the project with an extra, by the Python version of the base."""
    python = shutil.which(base_python()) or sys.executable
    environment = {**os.environ, "INTERPRETER": "/usr/bin/python3"}
    subprocess.run(
        [python, str(REPOSITORY / "images/install.py"), extra, str(folder)],
        check=True, env=environment, capture_output=True, cwd=folder.parent,
    )  # fmt: skip
    return folder


def trusting(authority: Path, folder: Path) -> Path:
    """A layer for a base image: the authority where OpenSSL looks for those that it trusts."""
    (folder / "usr/lib/ssl").mkdir(parents=True)
    shutil.copy(authority, folder / "usr/lib/ssl/cert.pem")
    return folder


def write_application(path: Path, name: str, extra: str, module: str, workshop: Path, authority: Path) -> Path:
    """An image archive as the Dockerfile says: a base that trusts the company's authority, and /opt/venv on it."""
    layers = []
    trees = (
        (base_root(), ""),
        (trusting(authority, workshop / "trust"), ""),
        (application_folder(extra, workshop / extra), "opt/venv"),
    )
    for tree, prefix in trees:
        layer = workshop / f"{extra}-{len(layers)}.tar"
        with tarfile.open(layer, "w") as archive:
            archive.add(tree, prefix or ".", filter=_as_root)
        layers.append(layer)
    digests = [hashlib.sha256(layer.read_bytes()).hexdigest() for layer in layers]
    environment = [
        "PATH=/opt/venv/bin:/usr/local/bin:/usr/bin", "PYTHONPATH=/opt/venv", "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONUNBUFFERED=1",
    ]  # fmt: skip
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["python3", "-m", module],
            "Cmd": ["run"],
            "Env": environment,
            "User": "65532:65532",
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [],
    }
    encoded = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(encoded).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar" for digest in digests]}]
    with tarfile.open(path, "w") as archive:
        _add(archive, config_name, encoded)
        for layer, digest in zip(layers, digests, strict=True):
            archive.add(layer, f"{digest}/layer.tar")
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    return path


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
