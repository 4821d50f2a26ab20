"""The control socket over real UNIX sockets, with a device that only remembers; protocol notes 3.1, 3.5, B34, B46."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from wgpy.errors import ConfigError, DeviceError
from wgpy.runtime import control
from wgpy.runtime.control import ControlSocket
from wgpy.uapi import DeviceState, DeviceUpdate


class Device:
    """What the control socket asks of one."""

    def __init__(self) -> None:
        self.updates: list[DeviceUpdate] = []
        self.fails: Exception | None = None
        self.asking_fails: Exception | None = None
        self.peers: list[object] = []

    def state(self) -> DeviceState:
        if self.asking_fails is not None:
            raise self.asking_fails
        return DeviceState(None, 1234, 0, self.peers)  # type: ignore[arg-type]

    def apply(self, update: DeviceUpdate) -> None:
        if self.fails is not None:
            raise self.fails
        self.updates.append(update)


@pytest.fixture
def device() -> Device:
    return Device()


@asynccontextmanager
async def serving(path: Path, device: Device) -> AsyncIterator[Callable[[], Awaitable[trio.SocketStream]]]:
    listening = ControlSocket.bind(path)

    async def connect() -> trio.SocketStream:
        return await trio.open_unix_socket(str(path))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listening.serve, device)
        yield connect
        nursery.cancel_scope.cancel()
    listening.close()
    assert not os.path.lexists(path)  # noqa: ASYNC240 - of a file system in memory


async def answer_to(stream: trio.SocketStream, request: bytes, count: int = 1) -> bytes:
    await stream.send_all(request)
    octets = b""
    while octets.count(b"\n\n") < count:
        more = await stream.receive_some()
        if not more:
            break
        octets += more
    return octets


async def test_get_and_set_and_pipelined_requests(tmp_path: Path, device: Device) -> None:
    async with serving(tmp_path / "wg0.sock", device) as connect, await connect() as stream:
        assert await answer_to(stream, b"get=1\n\n") == b"listen_port=1234\nerrno=0\n\n"
        assert await answer_to(stream, b"set=1\nfwmark=5\n\n") == b"errno=0\n\n"
        three = await answer_to(stream, b"set=1\nfwmark=6\n\nget=1\n\nset=1\nfwmark=x\n\n", 3)
        assert three == b"errno=0\n\nlisten_port=1234\nerrno=0\n\nerrno=-22\n\n"
    assert [update.fwmark for update in device.updates] == [5, 6]


@pytest.mark.parametrize(
    ("problem", "number"),
    [
        (DeviceError(errno.EADDRINUSE, "taken"), 98),
        (DeviceError(errno.EPERM, "mark"), 98),
        (ConfigError("too many"), 22),
        (RuntimeError("a bug"), 55),
    ],
)
async def test_what_fails_when_it_is_applied(
    tmp_path: Path, device: Device, problem: Exception, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Protocol notes 3.5; the connection goes on, and the log knows more."""
    async with serving(tmp_path / "wg0.sock", device) as connect, await connect() as stream:
        device.fails = problem
        assert await answer_to(stream, b"set=1\nlisten_port=1\n\n") == f"errno=-{number}\n\n".encode()
        device.fails = None
        assert await answer_to(stream, b"set=1\nlisten_port=1\n\n") == b"errno=0\n\n"
    assert caplog.records


async def test_an_unknown_first_line_closes_without_an_answer(tmp_path: Path, device: Device) -> None:
    async with serving(tmp_path / "wg0.sock", device) as connect:
        async with await connect() as stream:
            assert await answer_to(stream, b"hello\n\n") == b""
        async with await connect() as stream:
            assert await answer_to(stream, b"get=1\nmore=1\n\n") == b"errno=22\n\n"
            assert await stream.receive_some() == b""
        async with await connect() as stream:
            await stream.aclose()  # as `wg show interfaces` does
        async with await connect() as stream:
            assert b"errno=0" in await answer_to(stream, b"get=1\n\n")


async def test_half_a_request_and_the_end_of_it_change_nothing(tmp_path: Path, device: Device) -> None:
    async with serving(tmp_path / "wg0.sock", device) as connect, await connect() as stream:
        await stream.send_all(b"set=1\nfwmark=5\n")
        await stream.send_eof()
        assert await stream.receive_some() == b""
    assert device.updates == []


async def test_b34_a_client_that_stands_still_blocks_only_itself_and_for_a_minute(
    tmp_path: Path, device: Device, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with serving(tmp_path / "wg0.sock", device) as connect, await connect() as stuck, await connect() as idle:
        await stuck.send_all(b"set=1\nfwmark=5\n")
        start = trio.current_time()
        async with await connect() as other:
            assert b"errno=0" in await answer_to(other, b"get=1\n\n")
        assert await stuck.receive_some() == b"", "disconnected"
        assert 59 <= trio.current_time() - start <= 62
        assert b"errno=0" in await answer_to(idle, b"get=1\n\n"), "who waits between requests may"
    assert device.updates == []


async def test_b34_a_client_that_never_reads_is_disconnected(
    tmp_path: Path, device: Device, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    autojump_clock.autojump_threshold = 0.05
    monkeypatch.setattr(control, "format_state", lambda state: [bytes(4 << 20)])
    async with serving(tmp_path / "wg0.sock", device) as connect, await connect() as stuck:
        await stuck.send_all(b"get=1\n\n")
        await trio.sleep(61)
        received = 0
        while more := await stuck.receive_some(1 << 20):
            received += len(more)
        assert 0 < received < 4 << 20


async def test_b34_a_thousand_connections_come_and_go(tmp_path: Path, device: Device) -> None:
    async with serving(tmp_path / "wg0.sock", device) as connect:
        for number in range(1000):
            async with await connect() as stream:
                if number % 100 == 0:
                    assert b"errno=0" in await answer_to(stream, b"get=1\n\n")
        async with await connect() as stream:
            assert b"errno=0" in await answer_to(stream, b"get=1\n\n")


async def test_of_64_clients_the_one_that_was_silent_for_longest_makes_room(tmp_path: Path, device: Device) -> None:
    async with serving(tmp_path / "wg0.sock", device) as connect, contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(await connect()) for _ in range(64)]
        for stream in streams[1:]:
            assert b"errno=0" in await answer_to(stream, b"get=1\n\n")
        assert b"errno=0" in await answer_to(streams[0], b"get=1\n\n"), "now the second one is the most silent"
        late = await stack.enter_async_context(await connect())
        assert b"errno=0" in await answer_to(late, b"get=1\n\n")
        assert await streams[1].receive_some() == b""
        for stream in (*streams[:1], *streams[2:], late):
            assert b"errno=0" in await answer_to(stream, b"get=1\n\n")


async def test_sixty_four_who_never_say_a_word_do_not_keep_the_next_one_waiting(tmp_path: Path, device: Device) -> None:
    async with serving(tmp_path / "wg0.sock", device) as connect, contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(await connect()) for _ in range(64)]
        for _ in range(70):
            async with await connect() as stream:
                assert b"errno=0" in await answer_to(stream, b"get=1\n\n")
        assert await silent[0].receive_some() == b""


async def test_what_fails_while_it_is_asked_costs_that_answer_only(
    tmp_path: Path, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path / "wg0.sock", device) as connect, await connect() as stream:
        for problem, number in [(DeviceError(errno.EPIPE, "a worker has ended"), 5), (RuntimeError("a bug"), 55)]:
            device.asking_fails = problem
            assert await answer_to(stream, b"get=1\n\n") == f"errno={number}\n\n".encode()
        device.asking_fails = None
        assert b"listen_port=1234" in await answer_to(stream, b"get=1\n\n")
    assert len(caplog.records) == 2


# --- the path --------------------------------------------------------------------------------------------------------


def test_the_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "run" / "wg0.sock"
    listening = ControlSocket.bind(path)
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert listening.is_present
    path.unlink()
    assert not listening.is_present
    path.write_text("somebody else's")
    listening.close()
    assert path.exists(), "removed only while it is ours"


def test_b46_what_a_dead_daemon_left_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "wg0.sock"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(str(path))
    dead.close()
    listening = ControlSocket.bind(path)
    with pytest.raises(DeviceError, match="another daemon") as raised:
        ControlSocket.bind(path)
    assert raised.value.errno == errno.EADDRINUSE
    listening.close()


def test_b46_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "wg0.sock"
    path.write_text("mine")
    with pytest.raises(DeviceError, match="is no socket"):
        ControlSocket.bind(path)
    assert path.read_text() == "mine"
    path.unlink()
    path.mkdir()
    with pytest.raises(DeviceError, match="is no socket"):
        ControlSocket.bind(path)


def test_a_descriptor_must_be_a_listening_unix_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as idle, pytest.raises(DeviceError, match="no listening"):
        ControlSocket.of_fd(os.dup(idle.fileno()))
    with socket.socket() as other, pytest.raises(DeviceError, match="no listening"):
        ControlSocket.of_fd(os.dup(other.fileno()))
    with pytest.raises(DeviceError, match="is no socket"):
        ControlSocket.of_fd(os.open(os.devnull, os.O_RDONLY))
    path = tmp_path / "wg0.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        taken = ControlSocket.of_fd(os.dup(listener.fileno()))
        assert taken.path == path
        taken.close()


def test_the_path_is_where_wg_looks() -> None:
    assert str(control.path_of("wg0")) == "/var/run/wireguard/wg0.sock"
