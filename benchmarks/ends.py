"""One end of the loads of `netstack`, a process of its own: over wgpy's own stack, or over sockets of the system.

    python -m benchmarks.ends CONFIG serve
    python -m benchmarks.ends CONFIG VERB HOST NUMBER

CONFIG is a file as wg-quick has it, or "system". `contenders/gvisor/main.go` does the same in the same order. A client
opens a stream to port 5001 and says one letter and, but for E, eight octets, a number N:

D   the server sends N octets, then their SHA-256
U   the client sends N octets; the server sends "!" when it has them, then their SHA-256
E   the server sends back what it gets
M   the server sends its resident set in eight octets
R   the server opens a UDP port and says which in eight octets; after one more octet it says how many datagrams came,
how
    many of them were damaged, and over how many seconds

A client that says nothing and closes has been a connection. Each verb prints one line of JSON; `is_whole` says that
what arrived was what had been sent. Digests are taken when the clock has stopped. A datagram begins with the SHA-256 of
its rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

import wgpy

if TYPE_CHECKING:
    from wgpy.runtime.net import Net

PORT: Final = 5001
_BLOCK: Final = 2**20
_DIGEST: Final = 32
_MESSAGE: Final = 1024
# 1,400 octets with the headers of IPv4 and UDP.
_DATAGRAM: Final = 1372
# Connections that are opened at once.
_DIALERS: Final = 32
_NUMBER: Final = struct.Struct("!Q")
_REPORT: Final = struct.Struct("!QQd")
# What is under way when the last datagram was sent needs a moment.
_SETTLING: Final = 0.3


class SystemNet:
    """The words of `Net` over the sockets of the system, with CUBIC, whatever the machine prefers."""

    async def open_tcp_stream(self, host: str, port: int) -> trio.SocketStream:
        """Connect."""
        stream = await trio.open_tcp_stream(host, port)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        return stream

    async def serve_tcp(
        self,
        handler: Callable[[trio.SocketStream], Awaitable[None]],
        port: int,
        *,
        task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept for ever."""
        listeners = await trio.open_tcp_listeners(port)
        for listener in listeners:
            listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")  # streams inherit it
        await trio.serve_listeners(handler, listeners, task_status=task_status)


def block() -> bytes:
    """What is sent again and again."""
    return random.Random(1).randbytes(_BLOCK)


def digest_of(pattern: bytes, octets: int) -> bytes:
    """The SHA-256 of that many octets of a pattern that repeats."""
    whole, rest = divmod(octets, len(pattern))
    found = hashlib.sha256()
    for _ in range(whole):
        found.update(pattern)
    found.update(pattern[:rest])
    return found.digest()


def resident() -> int:
    """The resident set of this process, octets."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def send_pattern(stream: Any, pattern: bytes, octets: int) -> None:
    """Send that many octets of it."""
    view = memoryview(pattern)
    while octets > 0:
        await stream.send_all(view[:octets])
        octets -= len(pattern)


class Reader:
    """Exact counts out of a stream, without copying what is long."""

    def __init__(self, stream: Any) -> None:
        """Nothing has been read."""
        self._stream = stream
        self._rest = b""

    async def pieces(self, octets: int) -> list[bytes]:
        """That many octets, as they came.

        Raises:
            EOFError: the stream ended before.
        """
        found: list[bytes] = []
        while octets:
            piece = self._rest or bytes(await self._stream.receive_some())
            if not piece:
                raise EOFError("the stream ended early")
            self._rest = piece[octets:]
            piece = piece[:octets]
            found.append(piece)
            octets -= len(piece)
        return found

    async def exactly(self, octets: int) -> bytes:
        """That many octets in one. Raises like `pieces`."""
        return b"".join(await self.pieces(octets))


def digest_of_pieces(pieces: list[bytes]) -> bytes:
    """Their SHA-256 as one."""
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.digest()


# --- serving ---------------------------------------------------------------------------------------------------------


async def serve(net: Any) -> None:
    """Answer until somebody ends the process."""
    pattern = block()

    async def handle(stream: Any) -> None:
        try:
            async with stream:
                await answer(net, stream, pattern)
        except (trio.BrokenResourceError, EOFError):
            pass

    async with trio.open_nursery() as nursery:
        await nursery.start(net.serve_tcp, handle, PORT)
        print("serving", flush=True)


async def answer(net: Any, stream: Any, pattern: bytes) -> None:
    """Do what one client asks for."""
    reader = Reader(stream)
    kind = bytes(await stream.receive_some(1))
    if not kind:
        return
    if kind == b"E":
        async for message in stream:
            await stream.send_all(message)
        return
    (number,) = _NUMBER.unpack(await reader.exactly(_NUMBER.size))
    match kind:
        case b"D":
            digest = digest_of(pattern, number)
            await send_pattern(stream, pattern, number)
            await stream.send_all(digest)
        case b"U":
            pieces = await reader.pieces(number)
            await stream.send_all(b"!")
            await stream.send_all(digest_of_pieces(pieces))
        case b"M":
            await stream.send_all(_NUMBER.pack(resident()))
        case b"R":
            await collect(net, stream, reader)


async def collect(net: Net, stream: Any, reader: Reader) -> None:
    """Count datagrams until the client says that it is done."""
    datagrams: list[bytes] = []
    first = last = 0.0

    async def receive() -> None:
        nonlocal first, last
        while True:
            batch = await udp.receive_many(1024)
            last = time.perf_counter()
            first = first or last
            datagrams.extend(payload for payload, _ in batch)

    async with await net.open_udp(local=(None, 0)) as udp, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await stream.send_all(_NUMBER.pack(udp.local_address[1]))
        await reader.exactly(1)
        nursery.cancel_scope.cancel()
    bad = sum(hashlib.sha256(one[_DIGEST:]).digest() != one[:_DIGEST] for one in datagrams)
    await stream.send_all(_REPORT.pack(len(datagrams), bad, last - first))


# --- asking ----------------------------------------------------------------------------------------------------------


async def download(net: Any, host: str, octets: int) -> dict[str, object]:
    """Seconds until that many octets had arrived."""
    async with await net.open_tcp_stream(host, PORT) as stream:
        reader = Reader(stream)
        begin = time.perf_counter()
        await stream.send_all(b"D" + _NUMBER.pack(octets))
        pieces = await reader.pieces(octets)
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "is_whole": digest_of_pieces(pieces) == await reader.exactly(_DIGEST)}


async def upload(net: Any, host: str, octets: int) -> dict[str, object]:
    """Seconds until that many octets had arrived at the other end, and the news of it here."""
    pattern = block()
    digest = digest_of(pattern, octets)
    async with await net.open_tcp_stream(host, PORT) as stream:
        reader = Reader(stream)
        begin = time.perf_counter()
        await stream.send_all(b"U" + _NUMBER.pack(octets))
        await send_pattern(stream, pattern, octets)
        await reader.exactly(1)
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "is_whole": digest == await reader.exactly(_DIGEST)}


async def trips(net: Any, host: str, count: int) -> dict[str, object]:
    """Seconds from a request of 1 KB to the last octet of its answer of 1 KB."""
    message, taken, is_whole = block()[:_MESSAGE], [], True
    async with await net.open_tcp_stream(host, PORT) as stream:
        reader = Reader(stream)
        await stream.send_all(b"E")
        for _ in range(count):
            begin = time.perf_counter()
            await stream.send_all(message)
            answered = await reader.exactly(_MESSAGE)
            taken.append(time.perf_counter() - begin)
            is_whole = is_whole and answered == message
    taken.sort()
    return {"p50": taken[count // 2], "p99": taken[count * 99 // 100], "is_whole": is_whole}


async def connects(net: Any, host: str, seconds: int) -> dict[str, object]:
    """Connections opened and closed per second, several at once."""
    await (await net.open_tcp_stream(host, PORT)).aclose()
    begin = time.perf_counter()
    count = 0

    async def dial() -> None:
        nonlocal count
        while time.perf_counter() - begin < seconds:
            await (await net.open_tcp_stream(host, PORT)).aclose()
            count += 1

    async with trio.open_nursery() as nursery:
        for _ in range(_DIALERS):
            nursery.start_soon(dial)
    return {"rate": count / (time.perf_counter() - begin), "is_whole": True}


async def idle(net: Any, host: str, count: int) -> dict[str, object]:
    """The resident sets of both ends while so many connections, each used once, wait."""
    before, streams, is_whole, message = resident(), [], True, block()[:_MESSAGE]

    async def dial(share: int) -> None:
        nonlocal is_whole
        for _ in range(share):
            stream = await net.open_tcp_stream(host, PORT)
            await stream.send_all(b"E" + message)
            is_whole = await Reader(stream).exactly(_MESSAGE) == message and is_whole
            streams.append(stream)

    async with trio.open_nursery() as nursery:
        for first in range(_DIALERS):
            nursery.start_soon(dial, len(range(first, count, _DIALERS)))
    here = resident()
    async with await net.open_tcp_stream(host, PORT) as stream:
        await stream.send_all(b"M" + _NUMBER.pack(0))
        (there,) = _NUMBER.unpack(await Reader(stream).exactly(_NUMBER.size))
    return {"before": before, "here": here, "there": there, "is_whole": is_whole}


async def datagrams(net: Net, host: str, seconds: int) -> dict[str, object]:
    """Datagrams that arrived per second, while we send as fast as we can."""
    pattern = block()
    bodies = [pattern[at * _DATAGRAM : (at + 1) * _DATAGRAM - _DIGEST] for at in range(64)]
    burst = [hashlib.sha256(body).digest() + body for body in bodies]
    sent = 0
    async with await net.open_tcp_stream(host, PORT) as stream:
        reader = Reader(stream)
        await stream.send_all(b"R" + _NUMBER.pack(0))
        (port,) = _NUMBER.unpack(await reader.exactly(_NUMBER.size))
        async with await net.open_udp(remote=(host, port)) as udp:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                for datagram in burst:
                    try:
                        udp.send_nowait(datagram)
                    except trio.WouldBlock:
                        await udp.send(datagram)
                sent += len(burst)
            await trio.sleep(_SETTLING)
        await stream.send_all(b"!")
        arrived, bad, taken = _REPORT.unpack(await reader.exactly(_REPORT.size))
    return {"rate": arrived / taken, "sent": sent, "arrived": arrived, "is_whole": bad == 0}


VERBS: Final[dict[str, Callable[[Any, str, int], Awaitable[dict[str, object]]]]] = {
    "download": download,
    "upload": upload,
    "trips": trips,
    "connects": connects,
    "idle": idle,
    "datagrams": datagrams,
}


async def run(config: str, verb: str, host: str = "", number: str = "0") -> None:
    """Be one end."""

    async def play(net: Any) -> None:
        if verb == "serve":
            await serve(net)
        else:
            print(json.dumps(await VERBS[verb](net, host, int(number))), flush=True)

    if config == "system":
        await play(SystemNet())
    else:
        text = await trio.Path(config).read_text()
        async with wgpy.open_tunnel(wgpy.InterfaceConfig.from_ini(text)) as tunnel:
            await play(tunnel.net)


if __name__ == "__main__":
    trio.run(run, *sys.argv[1:])
