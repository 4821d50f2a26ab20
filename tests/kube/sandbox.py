"""A machine inside this machine: network, mount, PID and UTS namespaces with one process that holds them open.

What runs inside cannot outlive it: the kernel ends every process of the PID namespace with its first one, and with the
last process go links, addresses, packet filter rules and mounts. Only cgroups remain, and `Node` removes those. Paths
under /var, /etc and /opt may be written inside: an overlay takes the writes.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")

# Generous on purpose: two cores that others use too. Reaching it means "never".
PATIENCE = 120.0
OVERLAID = ("/etc", "/opt", "/var")
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_counter = itertools.count()
_run_id = secrets.token_hex(2)


class CommandFailed(AssertionError):
    """A command that had to succeed did not."""

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        super().__init__(f"{' '.join(argv)}: status {status}: {output.strip()[-4000:]}")
        self.status, self.output = status, output


def unique(prefix: str) -> str:
    """A short name that nothing else on this machine has; short enough for an interface."""
    return f"{prefix}{_run_id}{next(_counter):x}"


def eventually(what: str, probe: Callable[[], T], *, limit: float = PATIENCE, pause: float = 0.1) -> T:
    """Poll until the probe returns something true; assertion and system errors of the probe count as "not yet"."""
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
    """A process of a sandbox, its output in a file."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.argv, self.log = list(argv), log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=dict(env)
            )

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The program itself: nsenter forks into the PID namespace and waits for it."""
        with contextlib.suppress(OSError):
            if children := Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split():
                return int(children[0])
        return self.popen.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, limit: float = 10) -> None:
        """End it and wait; SIGKILL for what does not listen."""
        self.send(number)
        try:
            self.popen.wait(limit)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.popen.wait(limit)


class Sandbox:
    """Namespaces of one pretended machine; commands and daemons run inside it."""

    def __init__(self, label: str, folder: Path | None = None) -> None:
        self.label = label
        self.name = unique(f"{label}-")
        # A short path: socket addresses end at 107 characters.
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes: list[Process] = []
        self.hosts: dict[str, str] = {"localhost": "127.0.0.1", self.label: "127.0.0.1"}
        self.env = {**os.environ, "HOME": str(self.folder)}
        self._stack = contextlib.ExitStack()
        try:
            self._hold()
        except BaseException:
            self.close()
            raise

    def _hold(self) -> None:
        holder = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--mount",
                "--uts",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                sys.executable,
                "-I",
                str(Path(__file__).with_name("init.py")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(self._end, holder)
        assert holder.stdout is not None
        if holder.stdout.readline().strip() != "holding":
            raise AssertionError(f"no sandbox: unshare ended with {holder.wait()}")
        self.pid = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()[0])
        self.run("ip", "link", "set", "lo", "up")
        self.run("hostname", self.label)
        for path in OVERLAID:
            upper, work = self.folder / f"upper{path}", self.folder / f"work{path}"
            upper.mkdir(parents=True)
            work.mkdir(parents=True)
            options = f"lowerdir={path},upperdir={upper},workdir={work}"
            self.run("mount", "-t", "overlay", "overlay", "-o", options, path)
        self.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        self.write("/etc/resolv.conf", "")
        self.name_hosts({})

    def _end(self, holder: subprocess.Popen[str]) -> None:
        self.kill()
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()

    def kill(self) -> None:
        """End every process inside: killing the first one of a PID namespace ends all the others."""
        with contextlib.suppress(ProcessLookupError, AttributeError):
            os.kill(self.pid, signal.SIGKILL)
        for process in self.processes:
            process.popen.wait()

    def cleanup(self, step: Callable[[], object]) -> None:
        """Remember a step for `close`; steps run in reverse order, each even if another fails."""
        self._stack.callback(step)

    def close(self) -> None:
        """End everything inside and remove the folder, but for the logs when `WGPY_KEEP_LOGS` names a folder."""
        self._stack.close()
        if kept := os.environ.get("WGPY_KEEP_LOGS"):
            target = Path(kept) / self.label
            target.mkdir(parents=True, exist_ok=True)
            for log in self.folder.glob("*.log"):
                shutil.copy(log, target)
        # Overlay's own work folder cannot be listed by its mode; root removes it all the same.
        shutil.rmtree(self.folder, ignore_errors=True)

    def argv(self, *argv: str) -> list[str]:
        """The command that runs a command inside."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--pid", "--", *argv]

    def run(
        self,
        *argv: str,
        text_in: str | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        limit: float = 4 * PATIENCE,
    ) -> str:
        """Run a command and return what it printed; with `check=False` standard error too, and any status is fine."""
        done = subprocess.run(
            self.argv(*argv),
            input=text_in or "",
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
            env={**self.env, **(env or {})},
        )
        if check and done.returncode:
            raise CommandFailed(argv, done.returncode, done.stderr or done.stdout)
        return done.stdout if check else done.stdout + done.stderr

    def popen(self, *argv: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A process whose output the caller reads and whose end the caller sees to."""
        return subprocess.Popen(
            self.argv(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**self.env, **(env or {})},
        )  # fmt: skip

    def spawn(self, log: str, *argv: str, env: Mapping[str, str] | None = None) -> Process:
        """Start a daemon; it ends with the sandbox at the latest."""
        process = Process(self.argv(*argv), self.folder / f"{log}.log", {**self.env, **(env or {})})
        self.processes.append(process)
        return process

    def write(self, path: str, text: str) -> None:
        """Write a file as the inside sees it."""
        self.run("sh", "-c", f'mkdir -p "$(dirname {path})" && cat > {path}', text_in=text)

    def name_hosts(self, hosts: Mapping[str, str]) -> None:
        """More names for /etc/hosts."""
        self.hosts.update(hosts)
        self.write("/etc/hosts", "".join(f"{address} {name}\n" for name, address in self.hosts.items()))

    def trust(self, certificate: Path) -> None:
        """Add an authority to those that every program inside trusts, as a company does on its machines."""
        known = "/etc/ssl/certs/ca-certificates.crt"
        self.write(known, self.run("cat", known) + "\n" + certificate.read_text())

    def inside(self, action: Callable[[], T]) -> T:
        """Call a function in a thread that has entered the network namespace: what it opens lives there."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                with Path(f"/proc/{self.pid}/ns/net").open() as handle:
                    if _libc.setns(handle.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns {self.name}")
                results.append(action())
            except BaseException as error:  # handed to the caller's thread
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def show_output(self, most: int = 4000, to: IO[str] | None = None) -> None:
        """Print the end of what every process has said."""
        for process in self.processes:
            print(f"--- {self.label}: {process.log.name}\n{process.output[-most:]}", file=to or sys.stdout)


def cable(left: Sandbox, right: Sandbox, addresses: tuple[str, str]) -> tuple[str, str]:
    """A veth pair between two sandboxes, both ends up and addressed (such as 192.0.2.1/24); the names of the ends."""
    names = (f"to-{right.label}", f"to-{left.label}")
    made = unique("va"), unique("vb")
    subprocess.run(
        [
            "ip",
            "link",
            "add",
            made[0],
            "netns",
            str(left.pid),
            "type",
            "veth",
            "peer",
            "name",
            made[1],
            "netns",
            str(right.pid),
        ],
        check=True,
    )
    for sandbox, old, new, address in zip((left, right), made, names, addresses, strict=True):
        sandbox.run("ip", "link", "set", old, "name", new)
        sandbox.run("ip", "address", "add", address, "dev", new)
        sandbox.run("ip", "link", "set", new, "up")
    return names


@contextlib.contextmanager
def open_sandbox(label: str) -> Iterator[Sandbox]:
    """A sandbox that is always closed."""
    made = Sandbox(label)
    try:
        yield made
    finally:
        made.close()
