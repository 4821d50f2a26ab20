"""What this machine can run: the groups behind `@pytest.mark.needs`, each with its check and the way to get it.

A group is looked at once per process. Programs that we did not write are found through an environment variable, then
PATH, then the cache folder of the repository that the scripts in `tests/tools/` fill.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("WGPY_CACHE", REPOSITORY / ".cache"))

# One row per program that a test may start: environment variable, then the names it may have.
PROGRAMS = {
    "wireguard-go": ("WGPY_WIREGUARD_GO", ("wireguard-go", "wireguard")),
    "boringtun": ("WGPY_BORINGTUN", ("boringtun-cli",)),
    "gotatun": ("WGPY_GOTATUN", ("gotatun", "gotatun-cli")),
    "chromium": ("DAALU_CHROMIUM", ("chromium", "chromium-browser", "google-chrome")),
    "helm3": ("DAALU_HELM3", ("helm3",)),
    "helm4": ("DAALU_HELM4", ("helm4",)),
    "kubectl-old": ("DAALU_KUBECTL_OLD", ("kubectl-old",)),
    "kubectl-new": ("DAALU_KUBECTL_NEW", ("kubectl-new",)),
}

# Program and the Debian package that brings it.
TOOLS = {
    "ip": "iproute2",
    "wg": "wireguard-tools",
    "wg-quick": "wireguard-tools",
    "ping": "iputils-ping",
    "iperf3": "iperf3",
    "tcpdump": "tcpdump",
    "tshark": "tshark",
    "nft": "nftables",
    "sysctl": "procps",
    "conntrack": "conntrack",
}


def find_program(name: str) -> str | None:
    """The path of one of `PROGRAMS`, or None."""
    variable, names = PROGRAMS[name]
    if chosen := os.environ.get(variable):
        return chosen if os.access(chosen, os.X_OK) else None
    for candidate in names:
        if found := shutil.which(candidate):
            return found
        if os.access(CACHE / "bin" / candidate, os.X_OK):
            return str(CACHE / "bin" / candidate)
    return None


def guest_folder() -> Path:
    """Where `tests/tools/prepare_guest.py` leaves the guest's kernel and initramfs."""
    return Path(os.environ.get("WGPY_GUEST", CACHE / "guest"))


@dataclass(frozen=True, slots=True)
class Group:
    """One part of a machine without which some tests cannot run."""

    check: Callable[[], str | None]
    """None when the part is there, else why not."""
    how: str
    """What to do to get it."""


def _root() -> str | None:
    return None if os.geteuid() == 0 else f"running as user {os.geteuid()}, not as root"


def _tun() -> str | None:
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR)
    except OSError as error:
        return f"/dev/net/tun cannot be opened: {error.strerror}"
    try:
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"wgpyprobe%d", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
    except OSError as error:
        return f"a TUN interface cannot be made: {error.strerror}"
    finally:
        os.close(fd)
    return None


def _netns() -> str | None:
    if shutil.which("ip") is None:
        return "no `ip` in PATH"
    name = f"wgpy-probe-{os.getpid()}"
    for command in (["ip", "netns", "add", name], ["ip", "netns", "del", name]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"`{' '.join(command)}` failed: {done.stderr.strip()}"
    return None


def _tools() -> str | None:
    missing = [name for name in TOOLS if shutil.which(name) is None]
    return f"not in PATH: {', '.join(missing)}" if missing else None


def _program(name: str) -> Callable[[], str | None]:
    variable, names = PROGRAMS[name]
    return lambda: (
        None
        if find_program(name)
        else f"no {name}: neither ${variable}, nor {' or '.join(names)} in PATH or {CACHE}/bin"
    )


def _programs(*names: str) -> Callable[[], str | None]:
    def check() -> str | None:
        missing = [name for name in names if find_program(name) is None]
        return f"no {' and no '.join(missing)} in PATH or {CACHE}/bin" if missing else None

    return check


def _qemu() -> str | None:
    if shutil.which("qemu-system-x86_64") is None:
        return "no qemu-system-x86_64 in PATH"
    missing = [name for name in ("kernel", "initramfs.gz") if not (guest_folder() / name).exists()]
    return f"no {' and no '.join(missing)} in {guest_folder()}" if missing else None


_APT = "apt-get install --no-install-recommends "
GROUPS = {
    "root": Group(_root, "run the tests as root, or in a container with --cap-add NET_ADMIN --cap-add SYS_ADMIN"),
    "tun": Group(_tun, "modprobe tun, or give the container --device /dev/net/tun and --cap-add NET_ADMIN"),
    "netns": Group(_netns, "run as root with CAP_SYS_ADMIN; " + _APT + "iproute2"),
    "tools": Group(_tools, _APT + " ".join(sorted(set(TOOLS.values())))),
    "go": Group(_program("wireguard-go"), "install Go 1.23 or newer, then run tests/tools/build_wireguard_go.py"),
    "boringtun": Group(_program("boringtun"), "cargo install boringtun-cli, or point WGPY_BORINGTUN to the binary"),
    "gotatun": Group(_program("gotatun"), "cargo install gotatun-cli, or point WGPY_GOTATUN to the binary"),
    "helm": Group(_programs("helm3", "helm4"), "run tests/tools/fetch_kubernetes_clients.py"),
    "kubectl": Group(_programs("kubectl-old", "kubectl-new"), "run tests/tools/fetch_kubernetes_clients.py"),
    "chromium": Group(_program("chromium"), _APT + "chromium"),
    "qemu": Group(_qemu, _APT + "qemu-system-x86 && tests/tools/prepare_guest.py"),
}


@functools.cache
def why_missing(group: str) -> str | None:
    """None when this machine has the group, else one sentence that says why not."""
    return GROUPS[group].check()
