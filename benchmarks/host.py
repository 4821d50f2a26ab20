"""What a run ran on: without it no figure means anything."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
_LIBRARIES: Final = ("cryptography", "numpy", "trio", "pynacl")


def describe() -> dict[str, str]:
    """Machine, kernel and versions, in words."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{cpu_model()}, {os.cpu_count()} threads, {_memory()}, load {os.getloadavg()[0]:.1f} at the start",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{sys.implementation.name} {platform.python_version()}",
        "libraries": ", ".join(f"{name} {_library(name)}" for name in _LIBRARIES),
        "wgpy": revision(REPOSITORY),
    }


def cpu_model() -> str:
    """As /proc/cpuinfo calls it."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1) if found else platform.processor() or "unknown CPU"


def revision(tree: Path) -> str:
    """The git revision of a tree, marked when it has been changed."""
    done = subprocess.run(
        ["git", "-C", str(tree), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown revision"


def _library(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _memory() -> str:
    found = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return f"{int(found.group(1)) / 1e6:.1f} GB" if found else "unknown memory"
