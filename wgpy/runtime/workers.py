"""Several processes that hold one interface behind one UDP port: for devices with many peers.

    front    control socket and signals; knows all peers and holds none
      |  the text protocol of `wg`, over a socket to each worker
    worker   a Device with its share of the peers, a queue of the TUN interface, a socket of the port's group
      |  mesh: what comes to the wrong worker
    worker

Datagrams of a session reach their worker by the receiver index (`udp.bind_group`). The kernel steers a flow from the
TUN interface to the queue that its answers were written to; what it has not learnt yet may come to any worker and goes
on through the mesh, as initiations do. A peer belongs to one worker, so its packets keep their order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import trio

from wgpy.errors import DeviceError, TunnelClosed
from wgpy.protocol.engine import Engine
from wgpy.protocol.shard import Shard
from wgpy.runtime import world
from wgpy.runtime.binding import Member
from wgpy.runtime.control import converse
from wgpy.runtime.device import Device
from wgpy.runtime.groups import caught
from wgpy.runtime.link import follow_link
from wgpy.runtime.loop import HostLoop
from wgpy.runtime.mesh import Mesh
from wgpy.runtime.udp import UdpSockets, bind_group
from wgpy.uapi import DeviceState, DeviceUpdate, format_update, parse_state

if TYPE_CHECKING:
    from wgpy.config import InterfaceConfig
    from wgpy.tun.linux import LinuxTun

__all__ = ["MOST_WORKERS", "Fleet", "Plan"]

_log = logging.getLogger("wgpy.device")

# A receiver index tells its worker by one octet.
MOST_WORKERS: Final = 128
# How long a worker may take for an answer, or to end, before the front gives it up.
_PATIENCE: Final = 60.0
_GRACE: Final = 1.0


class Plan(NamedTuple):
    """What workers are made of.

    Attributes:
        config: keys and peers to begin with.
        keylog: called with one line per handshake secret.
        groups: use UDP_SEGMENT where it works.
        coalesces: use UDP_GRO where it works.
        copies_ecn: see `Engine`.
        is_profiled: print where the time went at the end.
    """

    config: InterfaceConfig
    keylog: Callable[[str], None] | None
    groups: bool
    coalesces: bool
    copies_ecn: bool
    is_profiled: bool


class _Worker(NamedTuple):
    """A worker as the front sees it.

    Attributes:
        pid: of its process.
        control: speaks the text protocol of `wg`.
        sockets: takes the descriptors of new UDP sockets.
    """

    pid: int
    control: socket.socket
    sockets: socket.socket


class Fleet:
    """All workers, for the control socket: looks like one device."""

    def __init__(self, plan: Plan, tuns: Sequence[LinuxTun], group: list[UdpSockets]) -> None:
        """Start the workers; call it before any event loop or thread exists.

        Args:
            plan: what they are made of.
            tuns: a queue for each; they are theirs from now on.
            group: UDP sockets for each, from `bind_group`.
        """
        count = len(tuns)
        self._plan = plan
        self._group = group
        # Knows every peer and holds none.
        self._engine = Engine(
            plan.config, random=world.random, wall_clock=world.wall_clock, is_up=False, shard=Shard(count, count)
        )
        self._engine.listen_port = group[0].port
        self._workers: list[_Worker] = []
        meshes = Mesh.create(count)
        for number in range(count):
            ours, theirs = socket.socketpair()
            to_worker, from_front = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if not pid:
                for one in (ours, to_worker, *(end for worker in self._workers for end in worker[1:])):
                    one.close()
                for other in range(count):
                    if other != number:
                        tuns[other].close()
                        group[other].close()
                _work(plan, Shard(number, count), tuns[number], group[number], meshes[number], theirs, from_front)
            theirs.close()
            from_front.close()
            ours.settimeout(_PATIENCE)
            self._workers.append(_Worker(pid, ours, to_worker))
        for tun in tuns:
            tun.close()

    async def wait_for_end(self) -> bool:
        """Return when a worker has ended; says whether in order."""
        ended: list[bool] = []
        async with trio.open_nursery() as nursery:

            async def watch(worker: _Worker) -> None:
                descriptor = os.pidfd_open(worker.pid)
                try:
                    await trio.lowlevel.wait_readable(descriptor)
                finally:
                    os.close(descriptor)
                ended.append(_ended_in_order(worker))
                nursery.cancel_scope.cancel()

            for worker in self._workers:
                nursery.start_soon(watch, worker)
        return all(ended)

    def close(self) -> None:
        """End the workers and give the port back."""
        for worker in self._workers:
            worker.control.close()
            worker.sockets.close()
        for member in self._group:
            member.close()
        deadline = time.monotonic() + _GRACE
        for worker in self._workers:
            while time.monotonic() < deadline and os.waitpid(worker.pid, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
        self._workers.clear()

    # --- what the control socket asks for ----------------------------------------------------------------------------

    def apply(self, update: DeviceUpdate) -> None:
        """As `Device.apply`.

        Raises:
            DeviceError: the port is taken, the mark not allowed, or a worker does not answer.
            ConfigError: there would be too many peers.
        """
        self._engine.check(update)
        fwmark = self._engine.fwmark if update.fwmark is None else update.fwmark
        if update.listen_port is not None and update.listen_port != self._engine.listen_port:
            self._move(update.listen_port, fwmark)
        elif fwmark != self._engine.fwmark:
            for member in self._group:
                member.set_fwmark(fwmark)
        update = dataclasses.replace(update, listen_port=self._group[0].port)
        self._ask(format_update(update))
        self._engine.apply(update, world.boot_time())

    def _move(self, port: int, fwmark: int) -> None:
        plan = self._plan
        group = bind_group(port, len(self._workers), fwmark=fwmark, groups=plan.groups, coalesces=plan.coalesces)
        for worker, member in zip(self._workers, group, strict=True):
            socket.send_fds(worker.sockets, [b"\0"], [one.socket.fileno() for one in member])
        for member in self._group:
            member.close()
        self._group = group

    def state(self) -> DeviceState:
        """As `Device.state`: each peer as its worker sees it."""
        whole = self._engine.state()
        shard = Shard(0, len(self._workers))
        answers = [{peer.public_key: peer for peer in parse_state(one).peers} for one in self._ask(b"get=1\n\n")]
        peers = [answers[shard.worker_of(peer.public_key)].get(peer.public_key, peer) for peer in whole.peers]
        return dataclasses.replace(whole, peers=peers)

    def _ask(self, request: bytes) -> list[bytes]:
        """Ask all workers at once.

        Raises:
            DeviceError: one of them does not answer, or refuses.
        """
        answers: list[bytes] = []
        try:
            for worker in self._workers:
                worker.control.sendall(request)
            for worker in self._workers:
                answer = bytearray()
                while not answer.endswith(b"\n\n"):
                    octets = worker.control.recv(2**20)
                    if not octets:
                        raise DeviceError(errno.EPIPE, "a worker has ended")
                    answer += octets
                if not answer.endswith(b"errno=0\n\n"):
                    raise DeviceError(errno.EIO, f"a worker refused: {answer[-40:].decode(errors='replace').strip()}")
                answers.append(bytes(answer))
        except TimeoutError:
            raise DeviceError(errno.ETIMEDOUT, f"a worker did not answer within {_PATIENCE:g} s") from None
        return answers


def _ended_in_order(worker: _Worker) -> bool:
    """Whether a worker that has ended did so with status 0; its process stays to be waited for."""
    ended = os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    return ended is not None and ended.si_code == os.CLD_EXITED and ended.si_status == 0


# --- in a worker -----------------------------------------------------------------------------------------------------


class _Part:
    """A worker's device as the front speaks to it: the sockets are not its business."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def apply(self, update: DeviceUpdate) -> None:
        if update.fwmark is not None:
            self._device.engine.forget_sources(world.now())
        self._device.apply_to_engine(update)

    def state(self) -> DeviceState:
        return self._device.state()


def _work(
    plan: Plan,
    shard: Shard,
    tun: LinuxTun,
    udp: UdpSockets,
    mesh: Mesh,
    control: socket.socket,
    sockets: socket.socket,
) -> NoReturn:
    """Be a worker."""
    code = 1
    try:
        # Ctrl-C reaches the whole group of processes; the front decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        profile = None
        if plan.is_profiled:
            from wgpy.runtime.profile import Profile

            profile = Profile()
            profile.install()
        engine = Engine(
            plan.config,
            random=world.random,
            wall_clock=world.wall_clock,
            keylog=plan.keylog,
            mtu=tun.mtu,
            is_up=False,
            copies_ecn=plan.copies_ecn,
            shard=shard,
        )
        loop = HostLoop()
        device = Device(engine, tun, udp, loop=loop, mesh=mesh)
        loop.run(_hold_part, device, tun, control, sockets, plan)
        if profile is not None:
            profile.report()
        code = 0
    except BaseException:
        _log.critical("a worker ended by a defect; please report this", exc_info=True)
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _hold_part(device: Device, tun: LinuxTun, control: socket.socket, sockets: socket.socket, plan: Plan) -> None:
    control.setblocking(False)
    sockets.setblocking(False)
    with caught(TunnelClosed):
        async with trio.open_nursery() as nursery:
            await nursery.start(_run_device, device)
            nursery.start_soon(follow_link, device, tun)
            nursery.start_soon(_take_sockets, device, sockets, plan)
            await converse(trio.socket.from_stdlib_socket(control), _Part(device))
            nursery.cancel_scope.cancel()  # the front has gone


async def _run_device(device: Device, *, task_status: trio.TaskStatus[None]) -> None:
    await device.run(task_status=task_status)


async def _take_sockets(device: Device, sockets: socket.socket, plan: Plan) -> None:
    """Move to the sockets that the front has bound to another port."""
    while True:
        await trio.lowlevel.wait_readable(sockets)
        _, descriptors, _, _ = socket.recv_fds(sockets, 1, len(Member._fields))
        if not descriptors:
            return
        bound = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        device.use_sockets(UdpSockets.adopt(bound, groups=plan.groups, coalesces=plan.coalesces))
