"""gotatun: Mullvad's successor of boringtun, in Rust."""

from __future__ import annotations

from typing import Final

from benchmarks.contenders.base import Contender, program, version_line

# Its packet buffers have 4096 octets: 4096 less the outer headers and the transport overhead, rounded down.
_MAX_MTU: Final = 3900


def find() -> Contender:
    """Find the program.

    Raises:
        Missing: it is not here.
    """
    path = program("gotatun", "gotatun", "cargo install gotatun-cli --root .cache")
    argv = (path, "-f", "--disable-drop-privileges", "--verbosity", "error", "--log", "/dev/null")
    return Contender("gotatun", version_line(path, "--version"), argv, {"HOME": "/root"}, _MAX_MTU)
