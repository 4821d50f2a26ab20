"""The Linux kernel's own WireGuard, in an emulated guest (QEMU without hardware virtualisation).

    test's namespace ═ veth ═ bridge br0 ═ TAP ═ eth0 of the guest
                              └──── namespace of the guest ────┘

The guest boots once per test process. Shell commands reach it over its second serial line, so no network set-up is
needed to configure it, and a broken tunnel cannot cut us off. Each test gets fresh addresses and a fresh WireGuard
interface, and leaves nothing in the guest. `tests/tools/prepare_guest.py` makes the kernel and the initramfs.
"""

from __future__ import annotations

import base64
import re
import shlex
import socket
import threading
from pathlib import Path

from tests.e2e.daemons import RIGHT, Addresses, End
from tests.e2e.lab import CommandFailed, Lab, Namespace, Process, eventually, unique
from tests.machine import guest_folder

BOOT_LIMIT = 120.0

# Busybox's shell prefers its own small `ip` and `ping` to the real ones, whatever PATH says; a function comes first.
PRELUDE = "".join(f'{tool}() {{ /usr/bin/{tool} "$@"; }}\n' for tool in ("ip", "ping"))


class Guest:
    """A booted guest and the line on which it takes commands."""

    def __init__(self, namespace: Namespace, process: Process, line: socket.socket) -> None:
        self.namespace = namespace
        self.process = process
        self._line = line
        self._buffer = b""
        self._lock = threading.Lock()
        self.release = self._read_until(rb"GUEST-READY (\S+)\r?\n").group(1).decode()

    def _read_until(self, pattern: bytes) -> re.Match[bytes]:
        while not (found := re.search(pattern, self._buffer, re.DOTALL)):
            chunk = self._line.recv(65536)
            assert chunk, f"the guest is gone: {self.process.output[-2000:]}"
            self._buffer += chunk
        self._buffer = self._buffer[found.end() :]
        return found

    def run(self, script: str, *, check: bool = True) -> str:
        """Run a shell script in the guest; what it printed."""
        with self._lock:
            self._line.sendall(base64.b64encode((PRELUDE + script).encode()) + b"\n")
            found = self._read_until(rb"GUEST-OUTPUT\r?\n(.*?)GUEST-STATUS (\d+)\r?\n")
        output = base64.b64decode(found.group(1)).decode(errors="replace")
        if check and found.group(2) != b"0":
            raise CommandFailed(f"in the guest: {script}: {output.strip()}")
        return output


def boot_guest(lab: Lab, *, initramfs: Path | None = None, megabytes: int = 384) -> Guest:
    """Start QEMU in a namespace of its own and wait for the guest's shell.

    Args:
        lab: what takes everything down again.
        initramfs: instead of the prepared one.
        megabytes: memory of the guest.
    """
    namespace = lab.namespace("guest")
    folder = guest_folder()
    namespace.ip("link", "add", "br0", "type", "bridge")
    namespace.ip("tuntap", "add", "tap0", "mode", "tap")
    namespace.ip("link", "set", "tap0", "master", "br0", "up")
    namespace.ip("link", "set", "br0", "up")
    line_path = Path("/tmp") / unique("wgpy-guest-")  # a socket path may have 107 octets only
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(line_path))
    lab.cleanup(lambda: line_path.unlink(missing_ok=True))
    listener.listen(1)
    listener.settimeout(BOOT_LIMIT)
    process = namespace.spawn(
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
        *("-m", str(megabytes)),
        *("-display", "none", "-no-reboot", "-monitor", "none", "-serial", "stdio"),
        *("-kernel", str(folder / "kernel"), "-initrd", str(initramfs or folder / "initramfs.gz")),
        *("-append", "console=ttyS0 quiet panic=-1"),
        *("-chardev", f"socket,id=line,path={line_path}", "-serial", "chardev:line"),
        *("-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no"),
        *("-device", "virtio-net-pci,netdev=net"),
    )
    with listener:
        line, _ = listener.accept()
    lab.cleanup(line.close)
    line.settimeout(BOOT_LIMIT)
    guest = Guest(namespace, process, line)
    # Earlier commands first: no duplicate address detection, so that addresses work at once.
    guest.run(
        "echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad;"
        "ip link set eth0 up"
    )
    return guest


class KernelEnd(End):
    """An end that is a WireGuard interface of the guest's kernel."""

    def __init__(self, lab: Lab, guest: Guest, beside: Namespace, own: Addresses = RIGHT) -> None:
        """Cable a namespace of the test to the guest and make the interface there.

        Args:
            lab: what takes everything down again.
            guest: the booted guest.
            beside: the namespace that shall reach the guest; the cable's end there is called `to-guest`.
            own: the outer addresses of the guest; inner ones are given by `up`.
        """
        super().__init__(lab, guest.namespace, "kernel", unique("wg"))
        self.guest = guest
        _, port = lab.cable(beside, guest.namespace, names=("to-guest", unique("v")))
        guest.namespace.ip("link", "set", port, "master", "br0")
        guest.run(
            f"ip address add {own.outer4}/24 dev eth0; ip address add {own.outer6}/64 dev eth0 nodad;"
            f"ip link add {self.interface} type wireguard"
        )
        lab.cleanup(
            lambda: guest.run(f"ip link del {self.interface}; ip address flush dev eth0 scope global", check=False)
        )

    def run(self, *argv: str, text_in: str | None = None, check: bool = True) -> str:
        script = shlex.join(argv)
        if text_in is not None:
            script = f"echo {base64.b64encode(text_in.encode()).decode()} | base64 -d | {script}"
        return self.guest.run(script, check=check)

    def secret_file(self, text: str) -> str:
        path = f"/tmp/{unique('secret-')}"
        self.guest.run(f"umask 077; echo {shlex.quote(text)} > {path}")
        return path

    def kernel_log(self) -> str:
        """What the guest's kernel said, for a failed test."""
        return self.guest.run("dmesg | tail -50")


def wait_for_neighbour(namespace: Namespace, address: str) -> None:
    """Until the guest answers on the outer path; its emulated card needs a moment after boot."""
    eventually(f"{address} answers", lambda: namespace.ping(address, limit=2))
