"""gVisor's stack as wireguard-go offers it to programs (`tun/netstack`): main.go, built for the loads of `netstack`.

It is no daemon: `benchmarks/stacks.py` says how it is started.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.contenders.base import Missing
from tests.machine import CACHE

_SOURCE: Final = Path(__file__).parent
_HOW: Final = "  to get it: install Go 1.23 or newer"


def build() -> tuple[str, str]:
    """The path of the program, built where it is missing or its source has changed, and the version of its stack.

    Raises:
        Missing: it cannot be built.
    """
    parts = [(_SOURCE / name).read_bytes() for name in ("main.go", "go.mod", "go.sum")]
    version = parts[1].decode().partition("golang.zx2c4.com/wireguard ")[2].split()[0]
    program = CACHE / "bin" / f"wgpy-gvisor-{hashlib.sha256(b''.join(parts)).hexdigest()[:12]}"
    if not program.exists():
        go = shutil.which("go")
        if go is None:
            raise Missing(f"no Go compiler for wireguard-go's userspace stack\n{_HOW}")
        program.parent.mkdir(parents=True, exist_ok=True)
        made = program.with_suffix(f".{os.getpid()}")
        done = subprocess.run([go, "build", "-o", made, "."], cwd=_SOURCE, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"gvisor cannot be built: {done.stderr.strip()}\n{_HOW}")
        made.rename(program)
    return str(program), version
