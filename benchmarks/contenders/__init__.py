"""Who runs: wgpy and its rivals, one small file each.

Each file offers `find()`, which returns a `Contender` or raises `Missing` with the way to get it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

from benchmarks.contenders.base import Contender, Missing

__all__ = ["NAMES", "Contender", "Missing", "find", "is_known"]

NAMES: Final = ("wgpy", "wireguard-go", "boringtun", "gotatun", "kernel")


def is_known(name: str) -> bool:
    """Whether there may be a contender of that name."""
    return name in NAMES or name.startswith("wgpy@")


def find(name: str) -> Contender:
    """The contender of that name; `wgpy@FOLDER` is the wgpy of another checkout, to compare two revisions.

    Raises:
        Missing: not on this machine.
    """
    module, _, folder = name.partition("@")
    if folder and module == "wgpy":
        from benchmarks.contenders import wgpy

        return wgpy.of_tree(Path(folder).resolve())
    found: Contender = importlib.import_module(f"benchmarks.contenders.{name.replace('-', '_')}").find()
    return found
