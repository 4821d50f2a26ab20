"""A program whose only way out is the tunnel: `wgpy exec`, without any privilege.

    parent, in the outer namespaces                   child, which becomes the program
    -------------------------------                   --------------------------------
    fork                                   ------->   new user, network and mount namespace
    who is who in them (uid_map, gid_map)  <------>
                                                      loopback, TUN with addresses, routes and MTU; name servers
    takes over the TUN (SCM_RIGHTS)        <-------
    UDP sockets out here, Device           ------->   exec
    passes signals on                      ------->
    returns the exit code                  <-------

The new network namespace has the TUN and a loopback of its own, nothing else: what the tunnel does not carry has no
route. The resolver is told the name servers of the configuration; daemons of the host that would answer for it on a
Unix socket are masked, because a Unix socket leads past the namespace.

Source: user_namespaces(7), network_namespaces(7), mount_namespaces(7), unix(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from wgpy.adapters.program import find_program
from wgpy.constants import DEFAULT_MTU
from wgpy.errors import DeviceError, TunnelClosed
from wgpy.runtime.addressing import address_link
from wgpy.runtime.groups import unwrapped
from wgpy.runtime.resolving import resolve_endpoints_now
from wgpy.runtime.tunnel import open_device
from wgpy.tun.linux import LinuxTun, open_tun, tun_of_fd
from wgpy.tun.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wgpy.config import InterfaceConfig

__all__ = ["run_confined"]

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
_MNT_DETACH: Final = 2
_SI_KERNEL: Final = 0x80
_PR_SET_PDEATHSIG: Final = 1

_INTERFACE: Final = "wg0"
_TUN: Final = "/dev/net/tun"
_RESOLV_CONF: Final = "/etc/resolv.conf"
_NSSWITCH_CONF: Final = "/etc/nsswitch.conf"
# A directory that every system has, for files that exist for a moment in our own mount namespace only.
_SCRATCH: Final = "/tmp"
# Daemons that glibc asks before, or instead of, the name servers of resolv.conf.
_RESOLVER_SOCKETS: Final = (
    "/run/nscd/socket",
    "/var/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/avahi-daemon/socket",
)
_PASSED_ON: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_UNSHARED, _MAPPED, _GO = b"unshared", b"mapped", b"go"


def run_confined(config: InterfaceConfig, argv: Sequence[str]) -> int:
    """Run a program inside namespaces whose only way out is the tunnel, until it ends.

    Args:
        config: keys, peers, addresses, name servers, MTU; routes follow AllowedIPs. Endpoints may be names: they are
            resolved out here.
        argv: the program and its arguments, searched for in PATH.

    Returns:
        The exit code of the program; 128 and the number of the signal that ended it; 126 or 127 if it could not be
        started or is not there.

    Raises:
        DeviceError: no user namespaces, no TUN, or a UDP port that is taken.
        EndpointUnresolved: an endpoint's name has no address, or no name server answered.
    """
    resolve_endpoints_now(config)  # before anything is begun; again later, while a peer does not answer
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            child = os.fork()
            if not child:
                ours.close()
                _become(theirs, config, argv, mask)
            theirs.close()
            try:
                trio.run(_carry, child, _adopt_tun(ours, child), config, ours)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# --- the parent ------------------------------------------------------------------------------------------------------


def _adopt_tun(channel: socket.socket, child: int) -> LinuxTun:
    """Help the child into its namespaces and take its TUN over.

    Raises:
        DeviceError: it could not do it.
    """
    _expect(channel, _UNSHARED)
    _map_identities(child)
    channel.send(_MAPPED)
    answer, descriptors, _, _ = socket.recv_fds(channel, 4096, 1)
    if not descriptors:
        raise _refusal(answer)
    tun = tun_of_fd(descriptors[0])
    tun.mtu = int(answer)  # an interface of the same name out here may have another
    return tun


def _expect(channel: socket.socket, word: bytes) -> None:
    answer = channel.recv(4096)
    if answer != word:
        raise _refusal(answer)


def _refusal(answer: bytes) -> DeviceError:
    """What a child said before it gave up."""
    if not answer:
        return DeviceError(errno.ECHILD, "the child that prepares the namespaces was killed")
    number, text = json.loads(answer)
    return DeviceError(number, text)


def _map_identities(child: int) -> None:
    """Everybody is who they are out here; without privilege that is one user and one group."""
    folder = Path(f"/proc/{child}")
    try:
        # Groups first: without privilege that fails, and the other map has not been written yet. Each takes one write.
        for name in ("gid_map", "uid_map"):
            ranges = [line.split() for line in Path("/proc/self", name).read_text().splitlines()]
            # Our numbers are "inside" in our own map and "outside" in that of the child.
            (folder / name).write_text("".join(f"{inside} {inside} {count}\n" for inside, _, count in ranges))
    except PermissionError:
        (folder / "setgroups").write_text("deny")
        (folder / "uid_map").write_text(f"{os.geteuid()} {os.geteuid()} 1\n")
        (folder / "gid_map").write_text(f"{os.getegid()} {os.getegid()} 1\n")


async def _carry(child: int, tun: LinuxTun, config: InterfaceConfig, channel: socket.socket) -> None:
    """Run the tunnel until the program ends."""
    process = os.pidfd_open(child)
    threading.Thread(target=_pass_signals_on, args=(child,), name="wgpy-signals", daemon=True).start()
    try:
        with unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_run_tunnel, tun, config, lambda: channel.send(_GO))
                await trio.lowlevel.wait_readable(process)
                nursery.cancel_scope.cancel()
    finally:
        os.close(process)


async def _run_tunnel(tun: LinuxTun, config: InterfaceConfig, on_open: Callable[[], object]) -> None:
    # The program may have deleted its interface: its own affair, it has no network then.
    with contextlib.suppress(TunnelClosed):
        async with open_device(config, tun):
            on_open()
            await trio.sleep_forever()


def _pass_signals_on(child: int) -> None:
    while True:
        caught = signal.sigwaitinfo(_PASSED_ON)
        # What was typed at the terminal went to the whole process group, and so to the program already.
        if caught.si_code != _SI_KERNEL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, caught.si_signo)


# --- the child -------------------------------------------------------------------------------------------------------


def _become(channel: socket.socket, config: InterfaceConfig, argv: Sequence[str], mask: set[int]) -> NoReturn:
    """Enter the namespaces, prepare them, turn into the program. Never returns into the copy of the caller."""
    code = 1
    try:
        _confine(channel, config)
        # From here on a signal ends us as it would end the program.
        for number in (*_PASSED_ON, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # When who carries the tunnel is killed, nobody is left to end the program, and it has no network.
        _system_call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
        if channel.recv(16) == _GO:
            code = _exec(argv)
    except OSError as problem:
        text = problem.strerror or str(problem)
        if not isinstance(problem, DeviceError) and problem.filename:
            text = f"{problem.filename}: {text}"
        with contextlib.suppress(OSError):
            channel.send(json.dumps([problem.errno, text]).encode())
    finally:
        os._exit(code)


def _exec(argv: Sequence[str]) -> int:
    try:
        os.execv(find_program(argv[0]), list(argv))
    except OSError as problem:
        os.write(2, f"wgpy exec: {argv[0]}: {problem.strerror}\n".encode())
        return 127 if problem.errno in (errno.ENOENT, errno.ENOTDIR) else 126


def _confine(channel: socket.socket, config: InterfaceConfig) -> None:
    try:
        _system_call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS)
    except OSError as problem:
        raise DeviceError(problem.errno, _why_no_namespaces(problem)) from None
    channel.send(_UNSHARED)
    if channel.recv(16) != _MAPPED:
        return
    tun = _open_tun(config.mtu or DEFAULT_MTU)
    with Netlink() as netlink:
        netlink.set_link(netlink.link(name="lo").index, is_up=True)
    # There is nothing here that a default route could hide: it goes into the main table, and no rules are needed.
    address_link(tun.index, dataclasses.replace(config, table="main")).close()
    _allow_ping()
    _replace_resolver(config)
    socket.send_fds(channel, [str(tun.mtu).encode()], [tun.fd])


def _open_tun(mtu: int) -> LinuxTun:
    try:
        return open_tun(_INTERFACE, mtu=mtu)
    except DeviceError as problem:
        if problem.errno not in (errno.EACCES, errno.EPERM):
            raise
        if os.access(_TUN, os.R_OK | os.W_OK):
            text = _why_no_namespaces(problem)
        else:
            text = f"{_TUN} is closed to this user: `chmod 666 {_TUN}` as root, as is usual, or `wgpy proxy`"
        raise DeviceError(problem.errno, text) from None


def _allow_ping() -> None:
    """The program may send echo requests, as on most systems; a courtesy, so failure is none."""
    group = os.getegid()
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv4/ping_group_range").write_text(f"{group} {group}")


def _replace_resolver(config: InterfaceConfig) -> None:
    """Names are asked for in the tunnel, or nowhere."""
    lines = ["# Made by wgpy exec: what the configuration says about DNS, and nothing of the host."]
    lines += [f"nameserver {server}" for server in config.dns]
    lines += [f"search {' '.join(config.dns_search)}"] if config.dns_search else []
    if config.dns and not Path(_RESOLV_CONF).exists():
        raise DeviceError(errno.ENOENT, f"{_RESOLV_CONF} does not exist, so DNS cannot be set: touch {_RESOLV_CONF}")
    texts = {_RESOLV_CONF: "\n".join(lines) + "\n"}
    with contextlib.suppress(FileNotFoundError):
        texts[_NSSWITCH_CONF] = _plain_lookups(Path(_NSSWITCH_CONF).read_text())
    # Files before the scratch directory covers what may be below it.
    targets = {os.path.realpath(path): text for path, text in texts.items() if Path(path).exists()}
    try:
        _mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
        _mount("tmpfs", _SCRATCH, kind="tmpfs", flags=_MS_NOSUID | _MS_NODEV)
        for number, (target, text) in enumerate(targets.items()):
            file = Path(_SCRATCH, str(number))
            file.write_text(text)
            file.chmod(0o444)
            _mount(str(file), target, flags=_MS_BIND)
        _system_call("umount2", os.fsencode(_SCRATCH), _MNT_DETACH)
        for path in {os.path.realpath(path) for path in _RESOLVER_SOCKETS}:
            if Path(path).exists():
                _mount(os.devnull, path, flags=_MS_BIND)
    except PermissionError as problem:
        raise DeviceError(problem.errno, _why_no_namespaces(problem)) from None


def _plain_lookups(nsswitch: str) -> str:
    """The same nsswitch.conf, with hosts looked up in files and by DNS only: other modules talk to daemons."""
    return "".join(
        "hosts: files dns\n" if line.split(":")[0].strip() == "hosts" else f"{line}\n" for line in nsswitch.splitlines()
    )


def _why_no_namespaces(problem: OSError) -> str:
    """What stands in the way of unprivileged namespaces, and how to mend it."""
    switches = (
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
        ("user/max_net_namespaces", "0", "sysctl user.max_net_namespaces=10000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    )
    for name, off, mend in switches:
        with contextlib.suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == off:
                return f"user namespaces are switched off here: `{mend}` as root, or use `wgpy proxy`"
    return (
        f"this system does not let us make user and network namespaces ({problem.strerror}): in a container, allow "
        "unshare and mount (seccomp and AppArmor unconfined), or use `wgpy proxy`"
    )


_libc = ctypes.CDLL(None, use_errno=True)


def _system_call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mount(source: str, target: str, *, kind: str | None = None, flags: int) -> None:
    try:
        _system_call(
            "mount",
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(kind) if kind else None,
            ctypes.c_ulong(flags),
            None,
        )
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, target) from None
