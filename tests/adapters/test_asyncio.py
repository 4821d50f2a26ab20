"""`wgpy.adapters.asyncio` over a real tunnel, inside `asyncio.run`."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

import wgpy
from tests.adapters.farend import trusting
from wgpy.adapters.asyncio import Tunnel, open_tunnel
from wgpy.adapters.net import abort
from wgpy.adapters.thread import TunnelThread

LARGE = bytes(range(256)) * 130_000  # 33 MB


async def ask(tunnel: Tunnel, host: str, octets: bytes) -> bytes:
    reader, writer = await tunnel.open_connection(host, 7)
    writer.write(octets)
    await writer.drain()
    writer.write_eof()
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received


def test_streams_half_close_and_run_side_by_side(config: wgpy.InterfaceConfig) -> None:
    async def main() -> list[bytes]:
        async with open_tunnel(config) as tunnel:
            hosts = ("10.0.0.2", "fd00::2", "office.test")
            return await asyncio.gather(*(ask(tunnel, host, LARGE) for host in hosts))

    assert asyncio.run(main()) == [LARGE] * 3


def test_tls(config: wgpy.InterfaceConfig) -> None:
    async def main() -> bytes:
        async with open_tunnel(config) as tunnel:
            reader, writer = await tunnel.open_connection("office.test", 443, ssl=trusting())
            writer.write(b"GET /path HTTP/1.1\r\nHost: office.test\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(11)
            writer.close()
            return body

    assert asyncio.run(main()) == b"GET /path 0"


def test_errors_and_cancellation(config: wgpy.InterfaceConfig) -> None:
    async def main() -> None:
        async with open_tunnel(config) as tunnel:
            with pytest.raises(ConnectionRefusedError):
                await tunnel.open_connection("office.test", 1)
            with pytest.raises(socket.gaierror):
                await tunnel.open_connection("localhost", 80)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await tunnel.open_connection("10.0.0.77", 80)
            reader, writer = await tunnel.open_connection("10.0.0.2", 9)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
        with pytest.raises(OSError) as caught:  # noqa: PT011 - by its number
            await tunnel.open_connection("10.0.0.2", 7)
        assert caught.value.errno == errno.ENETDOWN

    asyncio.run(main())


def test_transports_and_datagrams(config: wgpy.InterfaceConfig) -> None:
    class Collector(asyncio.Protocol, asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.received: asyncio.Queue[bytes] = asyncio.Queue()

        def data_received(self, data: bytes) -> None:
            self.received.put_nowait(data)

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.received.put_nowait(data)

    async def main() -> None:
        async with open_tunnel(config) as tunnel:
            stream, heard = await tunnel.create_connection(Collector, "office.test", 7)
            stream.write(b"by protocol")
            stream.write_eof()
            assert await heard.received.get() == b"by protocol"
            stream.close()
            datagrams, collector = await tunnel.create_datagram_endpoint(Collector, ("office.test", 7))
            datagrams.sendto(b"a datagram")
            assert await collector.received.get() == b"a datagram"
            datagrams.close()
            assert await tunnel.ping("office.test", timeout=10) > 0
            assert {info[4][0] for info in await tunnel.getaddrinfo("four.test", 1)} == {"10.0.0.2"}

    asyncio.run(main())


def test_a_server_in_the_tunnel(far: tuple[wgpy.InterfaceConfig, TunnelThread]) -> None:
    config, thread = far

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        await writer.drain()

    def dial() -> bytes:
        with thread.submit(thread.connect, "10.0.0.1", 8000).result() as client:
            client.sendall(b"quiet")
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(100), b""))

    async def main() -> bytes:
        async with open_tunnel(config) as tunnel:
            serving = asyncio.create_task(tunnel.serve(shout, 8000))
            await tunnel.ping("10.0.0.2", timeout=20)
            answer = await asyncio.to_thread(dial)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            return answer

    assert asyncio.run(main()) == b"QUIET"


def test_one_client_ends_nothing_but_its_own_connection(
    far: tuple[wgpy.InterfaceConfig, TunnelThread], caplog: pytest.LogCaptureFixture
) -> None:
    """One hangs up inside `readexactly`, one meets a defect; both are reset or gone, and the third is served."""
    config, thread = far
    peers: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])
        word = await reader.readexactly(4)
        if word == b"oops":
            raise RuntimeError("a defect")
        writer.write(word.upper())
        await writer.drain()

    def dial(octets: bytes) -> bytes:
        with thread.submit(thread.connect, "10.0.0.1", 8000).result() as client:
            client.sendall(octets)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(100), b""))

    async def main() -> None:
        async with open_tunnel(config) as tunnel:
            serving = asyncio.create_task(tunnel.serve(serve, 8000))
            await tunnel.ping("10.0.0.2", timeout=20)
            for octets in (b"ab", b"oops"):
                with pytest.raises(ConnectionResetError):
                    await asyncio.to_thread(dial, octets)
                assert await asyncio.to_thread(dial, b"word") == b"WORD"
            assert not serving.done()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving

    asyncio.run(main())
    assert peers == ["10.0.0.2"] * 4
    [told] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "10.0.0.2" in told.getMessage()


def test_a_server_outlasts_a_lack_of_descriptors(
    far: tuple[wgpy.InterfaceConfig, TunnelThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, thread = far
    lacks = [OSError(errno.EMFILE, "too many"), OSError(errno.EMFILE, "too many")]

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        await writer.drain()

    def dial() -> bytes:
        with thread.submit(thread.connect, "10.0.0.1", 8000).result() as client:
            client.sendall(b"quiet")
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(100), b""))

    async def main() -> None:
        async with open_tunnel(config) as tunnel:
            as_socket = tunnel._thread._as_socket

            async def sometimes(stream: Any) -> socket.socket:
                if lacks:
                    await abort(stream)
                    raise lacks.pop()
                return await as_socket(stream)

            monkeypatch.setattr(tunnel._thread, "_as_socket", sometimes)
            serving = asyncio.create_task(tunnel.serve(shout, 8000))
            await tunnel.ping("10.0.0.2", timeout=20)
            for _ in range(2):
                with pytest.raises(ConnectionResetError):
                    await asyncio.to_thread(dial)
            assert await asyncio.to_thread(dial) == b"QUIET"
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving

    asyncio.run(main())
