"""What every contender has in common: a daemon in the foreground that makes an interface which `wg` configures."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from typing import Final

from tests.e2e.daemons import SOCKETS, End
from tests.e2e.lab import Lab, Namespace, Process, eventually, unique
from tests.machine import GROUPS, find_program

# linux/posix-timers.h: user and system time together.
_CPUCLOCK_SCHED: Final = 2


class Missing(Exception):
    """A contender is not on this machine; says how to get it."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to get a WireGuard interface.

    Attributes:
        name: in tables.
        version: for the record.
        argv: the daemon in the foreground, quiet, without the interface name; empty for the kernel.
        env: what it needs beside the environment.
        max_mtu: the greatest inner MTU that it can carry.
    """

    name: str
    version: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    max_mtu: int = 65535

    def start(self, lab: Lab, namespace: Namespace, env: dict[str, str] | None = None) -> BenchEnd:
        """One end of a tunnel in that namespace, its control socket answering."""
        return BenchEnd(lab, namespace, self, env or {})


class BenchEnd(End):
    """An end of a contender; its daemon logs nothing that would cost time."""

    def __init__(self, lab: Lab, namespace: Namespace, contender: Contender, env: dict[str, str]) -> None:
        """Start the daemon and wait for it."""
        super().__init__(lab, namespace, contender.name, unique("wg"))
        self.process: Process | None = None
        if not contender.argv:
            namespace.ip("link", "add", self.interface, "type", "wireguard")
            return
        lab.cleanup(lambda: (SOCKETS / f"{self.interface}.sock").unlink(missing_ok=True))
        self.process = namespace.spawn(*contender.argv, self.interface, env={**contender.env, **env})
        eventually(f"{contender.name} answers", self._is_ready)

    def _is_ready(self) -> bool:
        assert self.process is not None
        if not self.process.is_running:
            raise RuntimeError(f"{self.implementation} ended: {self.process.output[-2000:]}")
        return (SOCKETS / f"{self.interface}.sock").exists() and self.namespace.succeeds("wg", "show", self.interface)

    def cpu_seconds(self) -> float | None:
        """User and system time of the daemon so far; None for the kernel, whose work has no owner.

        The same sum as in /proc/PID/stat, in nanoseconds instead of hundredths: the CPU clock of the process (what
        clock_getcpuclockid would return).
        """
        return None if self.process is None else time.clock_gettime(~self.process.pid << 3 | _CPUCLOCK_SCHED)

    def peak_octets(self) -> float | None:
        """The greatest resident set so far; None for the kernel."""
        return None if self.process is None else self.process.status("VmHWM") * 1024


def program(name: str, group: str, how: str) -> str:
    """The path of a program of `tests.machine`.

    Raises:
        Missing: with the way to get it.
    """
    found = find_program(name)
    if found is None:
        raise Missing(f"{GROUPS[group].check()}\n  to get it: {how}")
    return found


def version_line(*argv: str) -> str:
    """The first line that a program says about its version."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return ((done.stdout + done.stderr).strip().splitlines() or ["unknown"])[0]
