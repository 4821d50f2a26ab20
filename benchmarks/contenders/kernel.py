"""The kernel's own WireGuard, where the running kernel has it; see benchmarks/kernel.py for a guest that does."""

from __future__ import annotations

import os
import platform
import subprocess

from benchmarks.contenders.base import Contender, Missing


def find() -> Contender:
    """Try to make an interface.

    Raises:
        Missing: this kernel cannot.
    """
    name = f"wgprobe{os.getpid() % 100000}"
    done = subprocess.run(["ip", "link", "add", name, "type", "wireguard"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(
            f"this kernel has no WireGuard ({done.stderr.strip()})\n"
            "  to get it: modprobe wireguard, or compare in a guest: python -m benchmarks kernel"
        )
    subprocess.run(["ip", "link", "del", name], check=False)
    return Contender("kernel", platform.release(), ())
