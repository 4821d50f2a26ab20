"""boringtun-cli: Cloudflare's, in Rust; one packet per system call."""

from __future__ import annotations

from benchmarks.contenders.base import Contender, program, version_line


def find() -> Contender:
    """Find the program.

    Raises:
        Missing: it is not here.
    """
    path = program("boringtun", "boringtun", "cargo install boringtun-cli --root .cache")
    argv = (path, "-f", "--disable-drop-privileges", "--verbosity", "error")
    return Contender("boringtun", version_line(path, "--version"), argv)
