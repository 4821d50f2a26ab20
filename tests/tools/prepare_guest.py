#!/usr/bin/env python3
"""Prepare a guest with the Linux kernel's own WireGuard for QEMU: kernel and initramfs, in the cache folder.

usage: tests/tools/prepare_guest.py [FOLDER] [--package NAME]      (default: .cache/guest, git-ignored)

Nothing is installed on the host. A kernel package and busybox-static are downloaded by `apt-get download` and
unpacked; the initramfs holds busybox, the host's `wg`, `ip`, `ping` and `iperf3` with their libraries, and the modules
in the order in which they depend on each other. The guest answers shell commands on its second serial line; see
`tests/e2e/guest.py`.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

# Meta packages to try, the smallest first: Debian's cloud flavour, Debian's ordinary one, Ubuntu's.
META_PACKAGES = ("linux-image-cloud-amd64", "linux-image-amd64", "linux-image-virtual")
MODULES = (
    "virtio_pci",
    "virtio_net",
    "veth",
    "tun",
    "chacha_x86_64",
    "poly1305_x86_64",
    "curve25519_x86_64",
    "wireguard",
)
HOST_TOOLS = ("wg", "ip", "ping", "iperf3")

# Reads one line of shell from the second serial line, runs it, prints what it said and a line with its exit status.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin:/sbin HOME=/
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts /run/netns
for module in /modules/*.ko; do insmod $module || echo "insmod $module failed"; done
ip link set lo up
stty raw -echo < /dev/ttyS1
exec < /dev/ttyS1 > /dev/ttyS1 2>&1
echo "GUEST-READY $(uname -r)"
while read -r line; do
    echo "$line" | base64 -d > /command
    sh /command < /dev/null > /output 2>&1
    status=$?
    echo "GUEST-OUTPUT"; base64 /output; echo "GUEST-STATUS $status"
done
poweroff -f
"""


def run(*argv: str, cwd: Path | None = None) -> str:
    """Run a command; its output, or an exception that shows what it said."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def depends(package: str) -> list[str]:
    """The packages that a package depends on."""
    done = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True, check=False)
    return re.findall(r"^\s*Depends: (\S+)", done.stdout, re.MULTILINE)


def choose_packages(chosen: str | None) -> list[str]:
    """The kernel package, and on Ubuntu the package that holds its modules."""
    if chosen is None:
        images = [name for meta in META_PACKAGES for name in depends(meta) if re.match(r"linux-image-\S*\d", name)]
        if not images:
            raise SystemExit("no kernel package known to apt: run apt-get update, or name one with --package")
        chosen = images[0]
    return [chosen, *(name for name in depends(chosen) if name.startswith("linux-modules-"))]


def archive(root: Path) -> bytes:
    """The files below a folder as a newc cpio archive, which is what the kernel unpacks."""
    out = bytearray()
    paths = sorted(root.rglob("*"))
    names = [(path, str(path.relative_to(root))) for path in paths] + [(None, "TRAILER!!!")]
    for inode, (path, name) in enumerate(names, 1):
        mode, data = 0, b""
        if path is not None:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                data = os.readlink(path).encode()
            elif stat.S_ISREG(mode):
                data = path.read_bytes()
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def read_module(path: Path) -> bytes:
    """A module's ELF image, unpacked: the guest's insmod knows no compression."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout
    return path.read_bytes()


def load_order(folder: Path) -> list[tuple[str, bytes]]:
    """The wanted modules and all they need, each after what it depends on.

    Each module says what it needs in its .modinfo section (`depends=a,b`), so depmod is not needed. A module that is
    not there is built into the kernel, or belongs to another kernel version.
    """
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in folder.rglob("*.ko*")}
    order: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in order or name not in files:
            return
        image = read_module(files[name])
        needed = re.search(rb"\0depends=([^\0]*)\0", image)
        for other in (needed.group(1).decode() if needed else "").replace("-", "_").split(","):
            add(other)
        order[name] = image

    for name in MODULES:
        add(name)
    if "wireguard" not in order or "virtio_net" not in order:
        raise SystemExit(f"{folder} has no wireguard or no virtio_net module")
    return list(order.items())


def copy_tool(root: Path, name: str) -> None:
    """Copy a program of the host and the libraries it is linked with."""
    source = shutil.which(name)
    if source is None:
        raise SystemExit(f"no `{name}` in PATH")
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(os.path.realpath(source), root / "usr/bin" / name)
    for library in re.findall(r"(/\S+\.so\S*)", run("ldd", source)):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(os.path.realpath(library), target)


def main() -> int:
    """Download, unpack, pack."""
    parser = argparse.ArgumentParser(description="prepare kernel and initramfs for the QEMU tests")
    default = Path(__file__).resolve().parents[2] / ".cache" / "guest"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    parser.add_argument("--package", help="kernel package, for example linux-image-6.1.0-51-cloud-amd64")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        packages = choose_packages(options.package)
        run("apt-get", "download", *packages, "busybox-static", cwd=work)
        for package in work.glob("*.deb"):
            run("dpkg-deb", "-x", str(package), str(work / "unpacked"))
        unpacked = work / "unpacked"
        kernel = next(unpacked.glob("boot/vmlinuz-*"))
        root = work / "root"
        for folder in ("bin", "sbin", "proc", "sys", "dev", "tmp", "run", "var", "lib64", "modules", "etc"):
            (root / folder).mkdir(parents=True)
        (root / "var/run").symlink_to("/run")
        shutil.copy(next(path for path in unpacked.rglob("bin/busybox") if path.is_file()), root / "bin/busybox")
        for name in HOST_TOOLS:
            copy_tool(root, name)
        modules = next(path for path in unpacked.rglob("lib/modules/*") if path.is_dir())
        for number, (name, image) in enumerate(load_order(modules)):
            (root / f"modules/{number:02d}-{name}.ko").write_bytes(image)
        (root / "init").write_text(INIT)
        (root / "init").chmod(0o755)
        options.folder.mkdir(parents=True, exist_ok=True)
        (options.folder / "initramfs.gz").write_bytes(gzip.compress(archive(root), 1))
        shutil.copy(kernel, options.folder / "kernel")
        (options.folder / "version").write_text(packages[0] + "\n")
    print(f"{options.folder}: {packages[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
