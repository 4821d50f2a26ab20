"""The daemon of the cross-platform userspace contract: one interface, driven by `wg`.

    set up (TUN, control socket, UDP)  ->  fork unless in the foreground  ->  trio: device, control, link, signals

Whoever starts us may use the interface and the control socket as soon as the foreground process has ended. See
https://www.wireguard.com/xplatform/ and https://git.zx2c4.com/wireguard-tools (wg-quick).
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from wgpy import foreign
from wgpy.config import InterfaceConfig
from wgpy.constants import DEFAULT_MTU
from wgpy.errors import ConfigError, DeviceError, TunnelClosed
from wgpy.protocol.engine import Engine
from wgpy.runtime import world
from wgpy.runtime.addressing import address_link, with_mark
from wgpy.runtime.control import ControlSocket, path_of
from wgpy.runtime.device import Device
from wgpy.runtime.groups import caught
from wgpy.runtime.link import follow_link
from wgpy.runtime.loop import HostLoop
from wgpy.runtime.profile import Profile
from wgpy.runtime.resolving import resolve_again, resolve_endpoints_now
from wgpy.runtime.udp import UdpSockets, bind_group
from wgpy.runtime.workers import MOST_WORKERS, Fleet, Plan
from wgpy.tun.linux import LinuxTun, another_queue, open_tun, tun_of_fd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["run_daemon"]

_log = logging.getLogger("wgpy.device")

# How soon a removed control socket or a deleted interface ends the daemon.
_LARGEST_DESCRIPTOR: Final = 2**31 - 1
_LOOK_AROUND: Final = 1.0
_LEVELS: Final = {"verbose": logging.DEBUG, "debug": logging.DEBUG, "error": logging.ERROR, "silent": None}


def run_daemon(
    name: str, *, foreground: bool, environment: Mapping[str, str], config: InterfaceConfig | None = None
) -> int:
    """Hold an interface until it is deleted or a signal comes.

    Args:
        name: of the interface.
        foreground: do not fork.
        environment: LOG_LEVEL, WG_TUN_FD, WG_UAPI_FD, WG_KEYLOG_FILE, WGPY_WORKERS, WGPY_PROFILE, WGPY_ECN and the
            offload switches.
        config: keys, peers, addresses and routes to start with; without, the interface is down and knows nobody.
            Names of endpoints are looked up, and again while a peer does not answer (by one worker only).

    Returns:
        The exit code: 0 for every orderly end.

    Raises:
        DeviceError: no TUN, no permission, something is in use.
        EndpointUnresolved: an endpoint's name has no address, or no name server answered.
        ConfigError: a variable of the environment, or the configuration, is wrong.
    """
    _start_logging(name, environment.get("LOG_LEVEL", "error"))
    workers = _workers(environment)
    # Lesson S18: no key may end in a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    named = config or InterfaceConfig()
    marked = with_mark(resolve_endpoints_now(named))
    with contextlib.ExitStack() as setup:
        tun = _open_tun(name, environment, marked.mtu or DEFAULT_MTU, has_queues=workers > 1)
        setup.callback(tun.close)
        tun.on_warning = _log.warning
        control = _open_control(tun.name, environment)
        setup.callback(control.close)
        plan = Plan(
            marked,
            keylog=_open_keylog(environment),
            groups=_allows("WGPY_UDP_GSO", environment),
            coalesces=_allows("WGPY_UDP_GRO", environment),
            copies_ecn=_allows("WGPY_ECN", environment),
            is_profiled=environment.get("WGPY_PROFILE") == "1",
        )
        tuns = [tun]
        for _ in range(workers - 1):
            tuns.append(another_queue(tun))
            tuns[-1].on_warning = _log.warning
            setup.callback(tuns[-1].close)
        group = _open_group(plan, workers)
        for udp in group:
            setup.callback(udp.close)
        if config is not None:
            setup.enter_context(address_link(tun.index, marked))
        if not foreground and not _become_daemon(is_quiet=environment.get("LOG_LEVEL", "silent") == "silent"):
            setup.pop_all()  # interface, socket and rules belong to the child now
            return 0
        try:
            if workers > 1:
                return _hold_fleet(Fleet(plan, tuns, group), control)
            _hold_alone(plan, tun, group[0], control, named)
        except BaseExceptionGroup as problem:
            _log.critical("ended by a defect; please report this", exc_info=problem)
            return 1
    return 0


def _hold_alone(plan: Plan, tun: LinuxTun, udp: UdpSockets, control: ControlSocket, named: InterfaceConfig) -> None:
    profile = Profile() if plan.is_profiled else None
    if profile is not None:
        profile.install()
    engine = Engine(
        plan.config,
        random=world.random,
        wall_clock=world.wall_clock,
        keylog=plan.keylog,
        mtu=tun.mtu,
        is_up=False,
        copies_ecn=plan.copies_ecn,
    )
    loop = HostLoop()
    loop.run(_hold, Device(engine, tun, udp, loop=loop), tun, control, named)
    if profile is not None:
        profile.report()


def _hold_fleet(fleet: Fleet, control: ControlSocket) -> int:
    try:
        return 0 if trio.run(_hold_workers, fleet, control) else 1
    finally:
        fleet.close()


async def _hold_workers(fleet: Fleet, control: ControlSocket) -> bool:
    """Until a signal comes, the control socket is removed or a worker ends; says whether in order."""
    is_in_order = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_at_signal, nursery.cancel_scope)
        nursery.start_soon(control.serve, fleet)
        nursery.start_soon(_end_without_control, control, nursery.cancel_scope)
        is_in_order = await fleet.wait_for_end()
        _log.info("a worker has ended: shutting down")
        nursery.cancel_scope.cancel()
    return is_in_order


async def _end_without_control(control: ControlSocket, scope: trio.CancelScope) -> None:
    while True:
        await trio.sleep(_LOOK_AROUND)
        if not control.is_present:
            break
    _log.info("the control socket was removed: shutting down")
    scope.cancel()


async def _hold(device: Device, tun: LinuxTun, control: ControlSocket, named: InterfaceConfig) -> None:
    with caught(TunnelClosed) as closed:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_at_signal, nursery.cancel_scope)
            await nursery.start(_run_device, device)
            nursery.start_soon(follow_link, device, tun)
            nursery.start_soon(resolve_again, device, named)
            nursery.start_soon(control.serve, device)
            nursery.start_soon(_end_without_control, control, nursery.cancel_scope)
            while True:
                await trio.sleep(_LOOK_AROUND)
                tun.current_name()  # raises if the interface was deleted, with its namespace for instance
    if closed:
        _log.info("the interface was deleted: shutting down")


async def _run_device(device: Device, *, task_status: trio.TaskStatus[None]) -> None:
    await device.run(task_status=task_status)


async def _end_at_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            _log.info("%s: shutting down", signal.Signals(number).name)
            break
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(1))  # somebody is in a hurry
    scope.cancel()


# --- set-up ----------------------------------------------------------------------------------------------------------


def _allows(switch: str, environment: Mapping[str, str]) -> bool:
    return environment.get(switch) != "0"


def _descriptor(variable: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(variable)
    if not text:
        return None
    return foreign.decimal(text, _LARGEST_DESCRIPTOR, what="a file descriptor", field=variable)


def _workers(environment: Mapping[str, str]) -> int:
    text = environment.get("WGPY_WORKERS") or "1"
    workers = foreign.decimal(text, MOST_WORKERS, least=1, field="WGPY_WORKERS")
    if workers > 1 and environment.get("WG_TUN_FD"):
        raise ConfigError("an interface that was handed in has one queue: leave out WG_TUN_FD", field="WGPY_WORKERS")
    return workers


def _open_group(plan: Plan, workers: int) -> list[UdpSockets]:
    port, fwmark = plan.config.listen_port, plan.config.fwmark
    if workers == 1:
        return [UdpSockets(port, fwmark=fwmark, groups=plan.groups, coalesces=plan.coalesces)]
    return bind_group(port, workers, fwmark=fwmark, groups=plan.groups, coalesces=plan.coalesces)


def _open_tun(name: str, environment: Mapping[str, str], mtu: int, *, has_queues: bool) -> LinuxTun:
    merges = _allows("WGPY_TUN_GRO", environment)
    descriptor = _descriptor("WG_TUN_FD", environment)
    if descriptor is None:
        offload = _allows("WGPY_TUN_OFFLOAD", environment)
        return open_tun(name, mtu=mtu, offload=offload, merges=merges, has_queues=has_queues)
    os.set_blocking(descriptor, False)
    return tun_of_fd(descriptor, merges=merges)


def _open_control(name: str, environment: Mapping[str, str]) -> ControlSocket:
    descriptor = _descriptor("WG_UAPI_FD", environment)
    return ControlSocket.bind(path_of(name)) if descriptor is None else ControlSocket.of_fd(descriptor)


def _open_keylog(environment: Mapping[str, str]) -> Callable[[str], None] | None:
    path = environment.get("WG_KEYLOG_FILE")
    if not path:
        return None
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as problem:
        raise DeviceError(problem.errno, f"WG_KEYLOG_FILE={path}: {problem.strerror}") from None
    print(f"wireguard-py: WARNING: handshake secrets are written to {Path(path).absolute()}", file=sys.stderr)

    def write(line: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the tunnel
            os.write(descriptor, line.encode() + b"\n")

    return write


def _become_daemon(*, is_quiet: bool) -> bool:
    """Fork; True in the child. Nothing has started a thread or an event loop yet."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        return False
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2) if is_quiet else (0,):
        os.dup2(null, descriptor)
    os.close(null)
    return True


def _start_logging(name: str, level: str) -> None:
    logger = logging.getLogger("wgpy")
    threshold = _LEVELS.get(level, logging.ERROR)
    if threshold is None:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(levelname)s: ({name}) %(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(threshold)
