"""The guest of the tests with Python and wgpy added: an initramfs of two parts, one behind the other.

The kernel unpacks as many archives as it finds, so the prepared one stays as it is. Everything lies in the guest where
it lies here, except wgpy and its libraries, which are in /opt/wgpy.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.host import REPOSITORY
from tests.machine import find_program, guest_folder
from tests.tools.prepare_guest import archive

PYTHON: Final = os.path.realpath(sys.executable)
WGPY_FOLDER: Final = "/opt/wgpy"
RIVAL: Final = "/usr/bin/wireguard-go"
_NEEDED: Final = ("cryptography", "pynacl", "trio", "numpy")
# Folders of the standard library and of packages that a daemon never imports, and that are large.
_LEFT_OUT: Final = frozenset(
    ("__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "tkinter")
)


def build(folder: Path) -> Path:
    """Write the initramfs into a folder; its path. Takes some ten seconds."""
    root = folder / "root"
    _copy_interpreter(root)
    target = root / WGPY_FOLDER.lstrip("/")
    for name in sorted(_requirements()):
        _copy_distribution(name, target)
    shutil.copytree(REPOSITORY / "wgpy", target / "wgpy", ignore=shutil.ignore_patterns("__pycache__"))
    if rival := find_program("wireguard-go"):
        _copy(Path(rival), root / RIVAL.lstrip("/"))
    _copy_libraries(root)
    # Compiled here and taken on trust there: the archive keeps no times, and the emulated CPU would need a minute.
    compileall.compile_dir(
        str(root), quiet=2, stripdir=str(root), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    image = folder / "initramfs"
    prepared = (guest_folder() / "initramfs.gz").read_bytes()
    # An archive must begin at a multiple of four.
    image.write_bytes(prepared + bytes(-len(prepared) % 4) + archive(root))
    shutil.rmtree(root)
    return image


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _copy_interpreter(root: Path) -> None:
    _copy(Path(PYTHON), root / PYTHON.lstrip("/"))
    for name in ("stdlib", "platstdlib"):
        # Of the interpreter itself, not of a virtual environment.
        library = Path(sysconfig.get_path(name, vars={"base": sys.base_prefix, "platbase": sys.base_exec_prefix}))
        shutil.copytree(
            library,
            root / str(library).lstrip("/"),
            ignore=lambda _, names: [one for one in names if one in _LEFT_OUT or one.startswith("config-")],
            dirs_exist_ok=True,
        )


def _requirements() -> set[str]:
    """The distributions that the daemon needs, and what they need in turn."""
    found: set[str] = set()
    waiting = list(_NEEDED)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            # Asked for under a condition that does not hold here, such as another version of Python.
            continue
        found.add(name)
        waiting += [re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in lines if "extra ==" not in line]
    return found


def _copy_distribution(name: str, target: Path) -> None:
    for file in importlib.metadata.files(name) or []:
        if ".." not in file.parts and not _LEFT_OUT.intersection(file.parts):
            _copy(Path(str(file.locate())), target / file)


def _copy_libraries(root: Path) -> None:
    """The shared libraries of every program and extension that was copied, unless they came with it."""
    for file in list(_binaries(root)):
        said = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+\.so\S*) \(", said):
            target = root / library.lstrip("/")
            if not library.startswith(str(root)) and not target.exists():
                _copy(Path(os.path.realpath(library)), target)


def _binaries(root: Path) -> Iterator[Path]:
    for file in root.rglob("*"):
        if file.is_file() and (file.suffix == ".so" or os.access(file, os.X_OK)):
            yield file
