"""Install this project with one of its extras into a folder that becomes part of an image.

    python3 images/install.py EXTRA FOLDER

Used by both Dockerfiles, in a stage that has pip; needs no shell. What only developers read is left out: tests, stubs,
caches, and pip itself. $INTERPRETER is where the final stage has its Python, of the same version as the one that runs
this; the program in FOLDER/bin names it.
"""

from __future__ import annotations

import compileall
import os
import pathlib
import py_compile
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parent.parent
# Beside the folders of tests: declarations for type checkers, objects to link against, sources of compiled modules.
NOT_NEEDED = ("*.pyi", "*.pyx", "*.pxd", "*.a", "*.lib", "*.h", "*.c", "*.cpp")
PACKAGES = {"edge": ("wgpy", "edge_agent"), "hub": ("wgpy", "hub_server")}
PROGRAMS = {"edge": ("daalu-edge", "edge_agent.cli"), "hub": ("daalu-hub", "hub_server.__main__")}


def main(extra: str, target: str) -> None:
    """Fill the folder."""
    folder = pathlib.Path(target)
    interpreter = os.environ.get("INTERPRETER", "/usr/bin/python3")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-compile"]
    command += ["--target", target, "--constraint", str(SOURCE / "constraints.txt"), f"{SOURCE}[{extra}]"]
    subprocess.run(command, check=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and path.name in ("tests", "__pycache__"):
            shutil.rmtree(path)
        elif path.is_file() and any(path.match(pattern) for pattern in NOT_NEEDED):
            path.unlink()
    for other in {name for names in PACKAGES.values() for name in names} - set(PACKAGES[extra]):
        shutil.rmtree(folder / other, ignore_errors=True)
    shutil.rmtree(folder / "bin", ignore_errors=True)
    (folder / "bin").mkdir()
    name, module = PROGRAMS[extra]
    program = folder / "bin" / name
    program.write_text(f"#!{interpreter}\nfrom {module} import main\n\nmain()\n")
    program.chmod(0o755)
    # The final stage is read-only: without this, every start would compile everything. By content, since copying files
    # between stages may change their times.
    compileall.compile_dir(folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


if __name__ == "__main__":
    main(*sys.argv[1:])
