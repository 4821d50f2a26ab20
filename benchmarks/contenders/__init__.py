"""Who runs: wgpy and its rivals, one small file each.

Each file offers `find()`, which returns a `Contender` or raises `Missing` with the way to get it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

from benchmarks.contenders.base import Contender, Missing

__all__ = ["NAMES", "Contender", "Missing", "find"]

NAMES: Final = ("wgpy", "wireguard-go", "boringtun", "gotatun", "kernel")


def find(name: str) -> Contender:
    """The contender of that name; `wgpy@FOLDER` is the wgpy of another checkout, to compare two revisions.

    Raises:
        Missing: not on this machine, or nobody of that name.
    """
    module, _, folder = name.partition("@")
    if folder and module == "wgpy":
        from benchmarks.contenders import wgpy

        return wgpy.of_tree(Path(folder).resolve())
    if name not in NAMES:
        raise Missing(f"nobody is called {name!r}: choose from {', '.join(NAMES)}, or wgpy@FOLDER")
    found: Contender = importlib.import_module(f"benchmarks.contenders.{name.replace('-', '_')}").find()
    return found
