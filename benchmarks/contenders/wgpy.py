"""Ourselves: the daemon of the tree that this file stands in, or of another checkout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from benchmarks.contenders.base import Contender, Missing
from benchmarks.host import REPOSITORY, revision

_PROGRAM: Final = "import sys; sys.argv[0] = 'wireguard-py'; from wgpy.cli import daemon_main; sys.exit(daemon_main())"


def find() -> Contender:
    """The wgpy that is being worked on."""
    return _at(REPOSITORY, "wgpy")


def of_tree(folder: Path) -> Contender:
    """The wgpy of another checkout, with the interpreter and libraries of this one.

    Raises:
        Missing: there is no wgpy.
    """
    if not (folder / "wgpy/__init__.py").is_file():
        raise Missing(f"{folder} has no wgpy/__init__.py: name the root of a checkout")
    return _at(folder, f"wgpy@{folder.name}")


def _at(tree: Path, name: str) -> Contender:
    # -P: the current folder must not come first, or another tree would be measured.
    argv = (sys.executable, "-P", "-c", _PROGRAM, "-f")
    return Contender(name, revision(tree), argv, {"PYTHONPATH": str(tree), "LOG_LEVEL": "error"})
