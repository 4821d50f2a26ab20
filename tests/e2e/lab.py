"""The bench on which an end-to-end test builds: namespaces, cables, processes, captures; all of it gone afterwards.

Everything that a `Lab` makes has a name that no other test run uses, and is remembered on one stack of clean-up steps
that runs in reverse order even when the test failed. Processes are ended by their id. Waiting is polling, with a limit
so generous that reaching it means "never".
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Generous on purpose: two busy cores, an emulated guest, seven other test processes.
PATIENCE = 60.0
# Less than REKEY_TIMEOUT (5 s): an answer within it was not rescued by a retransmitted handshake.
AT_ONCE = 4

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_counter = itertools.count()
_run_id = secrets.token_hex(2)


class CommandFailed(AssertionError):
    """A command that had to succeed did not."""


def unique(prefix: str = "") -> str:
    """A short name that nothing else on this machine has."""
    return f"{prefix}{_run_id}{next(_counter):x}"


def eventually(what: str, probe: Callable[[], T], *, limit: float = PATIENCE, pause: float = 0.05) -> T:
    """Poll until the probe returns something true; AssertionErrors of the probe count as "not yet"."""
    end = time.monotonic() + limit
    while True:
        trouble = ""
        try:
            if result := probe():
                return result
        except (AssertionError, OSError) as error:
            trouble = f": {error}"
        if time.monotonic() > end:
            raise AssertionError(f"still not so after {limit:g} s: {what}{trouble}")
        time.sleep(pause)


class Process:
    """A process of the lab, its output in a file, ended by its id."""

    def __init__(self, argv: Sequence[str], log: Path, *, env: dict[str, str] | None = None, **more: object) -> None:
        self.argv = list(argv)
        self.log = log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(  # type: ignore[call-overload]
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                **more,
            )
        self.pid: int = self.popen.pid

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, limit: float = PATIENCE) -> int:
        """The exit status; fails when the process never ends."""
        return self.popen.wait(limit)

    def signal(self, number: int) -> None:
        if self.is_running:
            os.kill(self.pid, number)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not listen."""
        self.signal(signal.SIGTERM)
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def status(self, field: str) -> int:
        """A number of /proc/PID/status, such as VmRSS or VmHWM (kB)."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)
        assert found, f"{field} is not in /proc/{self.pid}/status"
        return int(found.group(1))

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Namespace:
    """A network namespace of its own; commands run inside it."""

    def __init__(self, lab: Lab, label: str) -> None:
        self.lab = lab
        self.label = label
        self.name = unique(f"wgpy-{label}-")
        lab.host("ip", "netns", "add", self.name)
        lab.cleanup(self.delete)
        self.ip("link", "set", "lo", "up")
        # Addresses can be used at once: nobody else is on these cables.
        self.sysctl("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")

    def delete(self) -> None:
        """Remove the name; harmless when it is gone already."""
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def argv(self, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str, text_in: str | None = None, check: bool = True, env: dict[str, str] | None = None) -> str:
        """Run a command here and return what it printed."""
        return self.lab.host(*self.argv(*argv), text_in=text_in, check=check, env=env)

    def succeeds(self, *argv: str) -> bool:
        """Whether a command's exit status is 0."""
        done = subprocess.run(self.argv(*argv), capture_output=True, stdin=subprocess.DEVNULL, check=False)
        return done.returncode == 0

    def ip(self, *argv: str) -> str:
        return self.lab.host("ip", "-n", self.name, *argv)

    def sysctl(self, *settings: str) -> None:
        self.run("sysctl", "-q", "-w", *settings)

    def spawn(self, *argv: str, env: dict[str, str] | None = None) -> Process:
        return self.lab.spawn(*self.argv(*argv), env=env)

    def address(self, interface: str, *addresses: str) -> None:
        for address in addresses:
            more = ["nodad"] if ":" in address else []
            self.ip("address", "add", address, "dev", interface, *more)

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A socket that lives in this namespace, made by a thread that enters it."""
        made: list[socket.socket | BaseException] = []

        def enter() -> None:
            try:
                with Path(f"/run/netns/{self.name}").open() as handle:
                    if _libc.setns(handle.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns {self.name}")
                made.append(socket.socket(family, kind))
            except BaseException as error:  # handed to the caller's thread
                made.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if isinstance(made[0], BaseException):
            raise made[0]
        return made[0]

    def ping(
        self, target: str, *, count: int = 1, limit: int = AT_ONCE, size: int = 56, more: Sequence[str] = ()
    ) -> bool:
        """Whether every echo request was answered within the limit."""
        return f" {count} received" in self.ping_output(target, count=count, limit=limit, size=size, more=more)

    def ping_output(
        self, target: str, *, count: int = 1, limit: int = AT_ONCE, size: int = 56, more: Sequence[str] = ()
    ) -> str:
        return self.run(
            *("ping", "-n", "-c", str(count), "-i", "0.05", "-W", str(limit), "-s", str(size), *more, target),
            check=False,
        )


class Capture:
    """What passes one interface, taken by tcpdump and read by tshark."""

    def __init__(self, namespace: Namespace, interface: str, expression: str = "udp") -> None:
        self.namespace = namespace
        self.path = namespace.lab.folder / f"{unique('capture-')}.pcap"
        self.process = namespace.spawn(
            *(
                "tcpdump",
                "-i",
                interface,
                "-U",
                "--immediate-mode",
                "-Z",
                "root",
                "-w",
                str(self.path),
                "-s",
                "0",
                expression,
            )
        )
        eventually("tcpdump listens", lambda: "listening on" in self.process.output)

    def stop(self) -> None:
        """End the capture, the file complete."""
        self.process.signal(signal.SIGINT)
        self.process.wait()

    def packets(
        self, *fields: str, display_filter: str = "wg", keylog: Path | None = None
    ) -> list[dict[str, list[str]]]:
        """The fields of each packet that tshark shows for a filter; every field is a list, empty when absent."""
        options = ["-o", f"wg.keylog_file:{keylog}"] if keylog else []
        out = subprocess.run(
            ["tshark", "-r", str(self.path), *options, "-Y", display_filter, "-T", "json", "--no-duplicate-keys"]
            + [word for field in fields for word in ("-e", field)],
            capture_output=True,
            text=True,
            check=False,
        )
        if out.returncode:
            raise CommandFailed(f"tshark: {out.stderr}")
        layers = [packet["_source"].get("layers", {}) for packet in json.loads(out.stdout or "[]")]
        return [{field: layer.get(field, []) for field in fields} for layer in layers]

    def count(self, display_filter: str) -> int:
        """How many packets match, so far."""
        return len(self.packets("frame.number", display_filter=display_filter))

    def wait_for(self, display_filter: str, count: int = 1) -> None:
        """Poll until at least so many packets match; tcpdump writes each packet through at once."""
        eventually(f"{count} packets of {display_filter}", lambda: self.count(display_filter) >= count, pause=0.2)


class Lab:
    """Everything one test makes; `close` takes it down again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []
        self._stack = contextlib.ExitStack()

    def cleanup(self, step: Callable[[], object]) -> None:
        """Remember a step for `close`; steps run in reverse order, each even if another fails."""
        self._stack.callback(step)

    def close(self) -> None:
        self._stack.close()

    def host(
        self, *argv: str, text_in: str | None = None, check: bool = True, env: dict[str, str] | None = None
    ) -> str:
        """Run a command and return its standard output.

        With `check=False` standard error too, and any status is fine.
        """
        done = subprocess.run(
            argv,
            input=text_in if text_in is not None else "",
            capture_output=True,
            text=True,
            check=False,
            timeout=4 * PATIENCE,
            env={**os.environ, **env} if env else None,
        )
        if check and done.returncode:
            raise CommandFailed(
                f"{' '.join(argv)}: status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout if check else done.stdout + done.stderr

    def spawn(self, *argv: str, env: dict[str, str] | None = None, **more: object) -> Process:
        process = Process(argv, self.folder / f"{unique('process-')}.log", env=env, **more)
        self.processes.append(process)
        self.cleanup(process.stop)
        return process

    def show_output(self, most: int = 4000) -> None:
        """Print the end of what every process has said."""
        for process in self.processes:
            print(f"--- {' '.join(process.argv)[-200:]}\n{process.output[-most:]}")

    def namespace(self, label: str) -> Namespace:
        return Namespace(self, label)

    def cable(self, left: Namespace, right: Namespace, *, names: tuple[str, str] | None = None) -> tuple[str, str]:
        """A veth pair between two namespaces, both ends up; the names of its two ends."""
        # The pair is made under unique names, so that two tests never meet in this namespace.
        made = unique("va"), unique("vb")
        ends = names or (f"to-{right.label}", f"to-{left.label}")
        self.host(
            "ip", "link", "add", made[0], "netns", left.name, "type", "veth", "peer", made[1], "netns", right.name
        )
        for namespace, old, new in zip((left, right), made, ends, strict=True):
            namespace.ip("link", "set", old, "name", new)
            namespace.ip("link", "set", new, "up")
        return ends

    def capture(self, namespace: Namespace, interface: str, expression: str = "udp") -> Capture:
        return Capture(namespace, interface, expression)


@contextlib.contextmanager
def open_lab(folder: Path) -> Iterator[Lab]:
    """A lab that is always closed."""
    lab = Lab(folder)
    try:
        yield lab
    finally:
        lab.close()
