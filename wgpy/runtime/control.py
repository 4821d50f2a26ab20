"""The control socket: where `wg` asks for the state of a device and changes it.

    wg --UNIX stream--> serve -> RequestReader -> Device.state / Device.apply -> answer

The grammar is in `wgpy.uapi`; here are the socket, its path and its limits (https://www.wireguard.com/xplatform/).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import trio

from wgpy.errors import ConfigError, DeviceError
from wgpy.uapi import BadRequest, DeviceState, DeviceUpdate, GetRequest, RequestReader, format_errno, format_state

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SOCKET_DIRECTORY", "ControlSocket", "Controlled", "converse", "path_of"]

_log = logging.getLogger("wgpy.control")

SOCKET_DIRECTORY: Final = Path("/var/run/wireguard")

_MOST_CLIENTS: Final = 64
# A client that stops in the middle of a request, or does not read its answer, loses the connection.
_PATIENCE: Final = 60.0
_RECEIVE_SIZE: Final = 65536
_BACKLOG: Final = 16


class Controlled(Protocol):
    """What the control socket speaks for: a device, or a fleet of them."""

    def apply(self, update: DeviceUpdate) -> None:
        """See `Device.apply`."""
        ...

    def state(self) -> DeviceState:
        """See `Device.state`."""
        ...


def path_of(name: str) -> Path:
    """Where the control socket of an interface is."""
    return SOCKET_DIRECTORY / f"{name}.sock"


class ControlSocket:
    """A listening UNIX socket at the path where wireguard-tools look for it.

    Attributes:
        path: where it listens; None when it was handed in as a descriptor.
    """

    def __init__(self, listener: socket.socket, path: Path | None) -> None:
        """Wrap a listening socket; `bind` and `of_fd` make one."""
        self._listener = listener
        self.path = path
        self._inode = None if path is None else _inode_of(path)

    @classmethod
    def bind(cls, path: Path) -> ControlSocket:
        """Listen at `path`; the remains of a daemon that died are replaced.

        Raises:
            DeviceError: another daemon answers there, or the path cannot be used.
        """
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _remove_remains(path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            before = os.umask(0o077)
            try:
                listener.bind(str(path))
                listener.listen(_BACKLOG)
            except OSError:
                listener.close()
                raise
            finally:
                os.umask(before)
        except DeviceError:
            raise
        except OSError as problem:
            raise DeviceError(
                problem.errno, f"cannot listen at the control socket {path}: {problem.strerror}; run this as root"
            ) from None
        return cls(listener, path)

    @classmethod
    def of_fd(cls, descriptor: int) -> ControlSocket:
        """Take over a listening socket from the environment (WG_UAPI_FD).

        Raises:
            DeviceError: the descriptor is no listening UNIX socket.
        """
        try:
            listener = socket.socket(fileno=descriptor)
        except OSError as problem:
            raise DeviceError(problem.errno, f"WG_UAPI_FD={descriptor} is no socket: {problem.strerror}") from None
        if listener.family != socket.AF_UNIX or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.detach()  # it stays with whoever opened it
            raise DeviceError(errno.EINVAL, f"WG_UAPI_FD={descriptor} is no listening UNIX socket")
        name = listener.getsockname()
        return cls(listener, Path(name) if isinstance(name, str) and name else None)

    @property
    def is_present(self) -> bool:
        """Whether the path still leads here. Removing the file is how wg-quick ends a userspace daemon."""
        return self.path is None or _inode_of(self.path) == self._inode

    def close(self) -> None:
        """Stop listening; the path is removed if it is still ours."""
        self._listener.close()
        if self.path is not None and self.is_present:
            with contextlib.suppress(OSError):
                self.path.unlink()

    async def serve(self, device: Controlled) -> None:
        """Answer clients until cancelled."""
        listener = trio.socket.from_stdlib_socket(self._listener)
        # Those who have been silent for longest first.
        clients: dict[trio.CancelScope, None] = {}
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    client, _ = await listener.accept()
                except OSError as problem:
                    _log.warning("cannot accept a control connection: %s", problem)
                    await trio.sleep(0.1)  # out of descriptors: some will be closed
                    continue
                if len(clients) >= _MOST_CLIENTS:
                    silent = next(iter(clients))
                    del clients[silent]
                    silent.cancel()
                    _log.info("more than %d control clients: the one that was silent for longest goes", _MOST_CLIENTS)
                scope = trio.CancelScope()
                clients[scope] = None
                nursery.start_soon(_serve_client, client, device, scope, clients)


async def _serve_client(
    client: trio.socket.SocketType,
    device: Controlled,
    scope: trio.CancelScope,
    clients: dict[trio.CancelScope, None],
) -> None:
    def heard() -> None:
        if scope in clients:  # not sent away meanwhile
            del clients[scope]
            clients[scope] = None

    try:
        with scope, client, contextlib.suppress(OSError):
            if not await converse(client, device, heard):
                _log.warning("a control client stood still for %d s: disconnected", _PATIENCE)
    except Exception:
        # One client, one victim: the tunnel and the others go on.
        _log.exception("a control connection ended by a defect; please report this")
    finally:
        clients.pop(scope, None)


async def converse(
    client: trio.socket.SocketType, device: Controlled, heard: Callable[[], None] = lambda: None
) -> bool:
    """Answer one client until it closes. False if it stood still for too long.

    Args:
        client: connected.
        device: asked.
        heard: called whenever the client says something.
    """
    reader = RequestReader()
    while True:
        with trio.move_on_after(math.inf if reader.is_idle else _PATIENCE) as patience:
            octets = await client.recv(_RECEIVE_SIZE)
        heard()
        if patience.cancelled_caught:
            return False
        if not octets:
            return True
        for request in reader.feed(octets):
            answer = _answer(request, device)
            while answer:
                with trio.move_on_after(_PATIENCE) as patience:
                    answer = answer[await client.send(answer) :]
                if patience.cancelled_caught:
                    return False
            if isinstance(request, BadRequest) and request.closes:
                return True


def _answer(request: GetRequest | DeviceUpdate | BadRequest, device: Controlled) -> memoryview:
    return memoryview(_octets_of(request, device))


def _octets_of(request: GetRequest | DeviceUpdate | BadRequest, device: Controlled) -> bytes:
    if isinstance(request, BadRequest):
        if request.is_silent:
            return b""
        _log.info("bad control request: %s", request.reason)
        return format_errno(request.errno, is_set=request.is_set)
    is_set = not isinstance(request, GetRequest)
    try:
        if isinstance(request, GetRequest):
            return b"".join(format_state(device.state()))
        device.apply(request)
    except DeviceError as problem:
        _log.error("%s", problem)
        return format_errno(errno.EADDRINUSE if is_set else errno.EIO, is_set=is_set)
    except ConfigError as problem:
        _log.error("%s", problem)
        return format_errno(errno.EINVAL, is_set=is_set)
    except Exception:
        # Whatever it is, the tunnel and the other clients go on; the operator gets the whole story in the log.
        _log.exception("a control request failed")
        return format_errno(errno.ENOANO, is_set=is_set)
    return format_errno(0, is_set=is_set)


def _inode_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove_remains(path: Path) -> None:
    """Make room where a daemon died without cleaning up; never touch what is no socket.

    Raises:
        DeviceError: somebody answers there, or it is no socket.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise DeviceError(errno.EEXIST, f"{path} exists and is no socket: move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
    raise DeviceError(errno.EADDRINUSE, f"{path} is in use: another daemon holds this interface")
