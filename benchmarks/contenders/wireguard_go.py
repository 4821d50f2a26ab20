"""wireguard-go: the reference in user space, with TSO, GRO and UDP segmentation since 2023."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.contenders.base import Contender, Missing, program, version_line
from benchmarks.host import REPOSITORY
from tests.machine import find_program


def find() -> Contender:
    """Find the program, or build it when there is a Go compiler.

    Raises:
        Missing: neither is there.
    """
    builder = REPOSITORY / "tests/tools/build_wireguard_go.py"
    if find_program("wireguard-go") is None:
        print("wireguard-go is not here: building it once ...", file=sys.stderr)
        done = subprocess.run([sys.executable, str(builder)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"wireguard-go cannot be built: {done.stderr.strip()}")
    path = program("wireguard-go", "go", f"install Go 1.23 or newer, then {builder.relative_to(REPOSITORY)}")
    built = REPOSITORY / ".cache/bin/wireguard.version"
    is_ours = built.is_file() and path == str(built.parent / "wireguard")
    version = built.read_text().rpartition("@")[2] if is_ours else version_line(path, "--version")
    return Contender("wireguard-go", version, (path, "-f"), {"LOG_LEVEL": "silent"})
