"""Where each microsecond of a batch goes: `WGPY_PROFILE=1 wireguard-py wg0` prints a table when the daemon ends.

The steps of the packet path are wrapped once, before the first packet; without the switch nothing is wrapped, so it
costs nothing. Each step counts its own time, without that of the steps it calls. Two clock readings per step and batch
(of the processor time of the thread, half a microsecond) are what the measurement adds.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

__all__ = ["Profile", "Step"]

# In packet order: name, module, and attribute within it. What is called through another name is not seen.
_STEPS: Final = (
    ("tun read", "wgpy.tun.linux", "LinuxTun.read_batch"),
    ("headers", "wgpy.dataplane.split", "finish"),
    ("engine send", "wgpy.protocol.engine", "Engine.send_slabs"),
    ("seal: counters", "wgpy.dataplane.transport", "seal_slabs"),
    ("seal: cipher", "wgpy.crypto.aead", "TransportCipher.seal_rows"),
    ("udp send", "wgpy.runtime.udp", "UdpSockets.send"),
    ("udp receive", "wgpy.runtime.udp", "UdpSocket.receive"),
    ("engine receive", "wgpy.protocol.engine", "Engine.receive_batches"),
    ("open: counters", "wgpy.dataplane.transport", "open_slabs"),
    ("open: cipher", "wgpy.crypto.aead", "TransportCipher.open_rows"),
    ("inner", "wgpy.dataplane.inner", "sort_rows"),
    ("merge", "wgpy.dataplane.merge", "merge"),
    ("tun write", "wgpy.tun.linux", "LinuxTun.write_batch"),
    ("timers", "wgpy.protocol.engine", "Engine.handle_timer"),
)


class Step(NamedTuple):
    """What one step took.

    Attributes:
        name: of the step.
        calls: how often it ran: batches, not packets.
        seconds: of its own, all calls together.
    """

    name: str
    calls: int
    seconds: float


class Profile:
    """Counts the calls and the own time of each step from `install` on; once per process."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self._steps: dict[str, list[float]] = {}
        # Time spent in steps called by the one that runs, for each that runs.
        self._inner: list[float] = []
        self._started = time.thread_time()

    def install(self) -> None:
        """Wrap the steps."""
        for name, module, path in _STEPS:
            owner: Any = importlib.import_module(module)
            *parents, attribute = path.split(".")
            for parent in parents:
                owner = getattr(owner, parent)
            setattr(owner, attribute, self._timed(name, getattr(owner, attribute)))

    def _timed(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        record = self._steps[name] = [0.0, 0.0]
        inner, clock = self._inner, time.thread_time

        @functools.wraps(function)
        def timed(*args: object, **kwargs: object) -> object:
            inner.append(0.0)
            began = clock()
            try:
                return function(*args, **kwargs)
            finally:
                took = clock() - began
                record[0] += 1
                record[1] += took - inner.pop()
                if inner:
                    inner[-1] += took

        return timed

    def steps(self) -> list[Step]:
        """The steps in packet order, and what is left of the processor time: the event loop and the interpreter."""
        steps = [Step(name, int(calls), seconds) for name, (calls, seconds) in self._steps.items()]
        rest = time.thread_time() - self._started - sum(step.seconds for step in steps)
        return [*steps, Step("event loop and rest", 0, max(0.0, rest))]

    def report(self, file: Any = None) -> None:
        """Print `profile: STEP | CALLS | MICROSECONDS | PER CALL` for every step that ran."""
        for name, calls, seconds in self.steps():
            if calls or seconds:
                each = seconds / calls * 1e6 if calls else 0.0
                print(f"profile: {name} | {calls} | {seconds * 1e6:.0f} | {each:.1f}", file=file or sys.stderr)
