#!/usr/bin/env python3
"""Build wireguard-go, one pinned revision, into the cache folder of the repository.

usage: tests/tools/build_wireguard_go.py [FOLDER]      (default: .cache/bin, git-ignored)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# The newest revision of the module's main branch when these tests were written; @latest would make a run unrepeatable.
MODULE = "golang.zx2c4.com/wireguard@v0.0.0-20260522210424-ecfc5a8d5446"


def main() -> int:
    """Run `go install` with its output in the cache."""
    default = Path(__file__).resolve().parents[2] / ".cache" / "bin"
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else default).resolve()
    version = folder / "wireguard.version"
    if (folder / "wireguard").exists() and version.is_file() and version.read_text() == MODULE:
        print(folder / "wireguard")
        return 0
    go = shutil.which("go")
    if go is None:
        print("no `go` in PATH: install Go 1.23 or newer (https://go.dev/dl/)", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([go, "install", MODULE], env={**os.environ, "GOBIN": str(folder)}, check=False)
    if done.returncode == 0:
        (folder / "wireguard.version").write_text(MODULE)
        print(folder / "wireguard")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
