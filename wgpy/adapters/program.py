"""Where a program is, as a shell looks for it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["find_program"]


def find_program(name: str) -> str:
    """The path of a program, which is searched for in PATH unless it has a slash in it.

    A folder of PATH that we may not read holds nothing for us: execvp(3) would say "Permission denied" at its end, of
    a program that is nowhere.

    Raises:
        FileNotFoundError: it is nowhere.
        PermissionError: it is there, and must not be run.
    """
    folders = [""] if "/" in name else os.get_exec_path()
    refused: Path | None = None
    for folder in folders:
        path = Path(folder, name)
        try:
            is_there = path.is_file()
        except OSError:
            continue
        if is_there and os.access(path, os.X_OK):
            return str(path)
        refused = refused or (path if is_there or (path.is_dir() and "/" in name) else None)
    number = errno.ENOENT if refused is None else errno.EACCES
    raise OSError(number, os.strerror(number), name)
