"""A hub under attack before anybody signs in: what strangers send, when they hang up, how many come; and what it costs.

    python -m tests.hub.http.hostile --openings 1000000 [--tls] [--seed N]

starts a hub under a limit of 1,024 descriptors, attacks it, and prints whether its process is alive, its memory and
descriptors before and after, and a page's time before, during and after.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import socket
import ssl
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

DESCRIPTORS = 1024
_HEADS = (
    b"GET / HTTP/1.1\r\nHost: hub\r\nAccept: text/html\r\nCookie: __Host-daalu=x\r\n\r\n",
    b"POST /sign-in HTTP/1.1\r\nHost: hub\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 40\r\n\r\nemail=a%40b&password=x",
    b"POST /v1/edge/bootstrap HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"GET /k8s/clusters/cl_x/api/v1/pods?watch=1 HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABk\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    b"HEAD http://hub:1/static/app.css HTTP/1.1\r\nHost: hub\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: hub\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
    b"OPTIONS * HTTP/1.1\r\nHost: hub\r\n\r\n" + b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
)
_HTTP2 = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    b"\x00\x00\x0a\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x85\xff\xff\xff\xff\xff\x00\x00\x04\x03\x00\x00\x00\x00\x01"
)
_WEBSOCKET = (
    b"GET /k8s/clusters/cl_x/api/v1/namespaces/a/pods/b/exec HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n\x81\x85\x00\x00\x00\x00hello\x88\x80\x00\x00\x00\x00"
)


_ODD = (b"\r\n", b"\n", b"\r", b" ", b":", b"\x00", b"%00", b"\xff" * 9, b"9" * 30)


def mutated(chance: random.Random, octets: bytes) -> bytes:
    """Some octets changed, doubled, left out or put in."""
    result = bytearray(octets)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(result) + 1)
        match chance.randrange(5):
            case 0:
                result[at : at + 1] = chance.randbytes(1)
            case 1:
                result[at:at] = chance.randbytes(chance.randrange(1, 20))
            case 2:
                del result[at : at + chance.randrange(1, 20)]
            case 3:
                result[at:at] = result[at : at + 60]
            case 4:
                result[at:at] = chance.choice(
                    [b"\r\n", b"\n", b"\r", b" ", b":", b"\x00", b"%00", b"\xff" * 9, b"9" * 30]
                )
    return bytes(result)


def opening(chance: random.Random) -> bytes:
    """What a stranger may say."""
    match chance.randrange(8):
        case 0:
            return chance.randbytes(chance.randrange(1, 300))
        case 1:
            return chance.choice(_HEADS)
        case 2:
            return mutated(chance, _HTTP2)
        case 3:
            return mutated(chance, _WEBSOCKET)
        case 4:
            return b"GET /" + b"a" * chance.choice([100, 20_000, 100_000]) + b" HTTP/1.1\r\nHost: hub\r\n\r\n"
        case _:
            return mutated(chance, chance.choice(_HEADS))


@dataclass
class Target:
    """A hub in a process of its own, under a limit of descriptors."""

    process: trio.Process
    port: int
    ca: Path | None
    log: Path

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None and Path(f"/proc/{self.process.pid}").exists()

    @property
    def memory(self) -> int:
        """Octets that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    async def settled(self, descriptors: int) -> int:
        """Its descriptors, when no more than these are left over, or after a while."""
        with trio.move_on_after(60):
            while self.descriptors > descriptors:  # noqa: ASYNC110 - another process tells by its files alone
                await trio.sleep(0.1)
        return self.descriptors

    async def calm(self) -> None:
        """Wait until it has worked off what was asked before: its descriptors no longer become fewer."""
        before = self.descriptors + 1
        with trio.move_on_after(120):
            while self.descriptors < before or self.descriptors > 60:
                before = self.descriptors
                await trio.sleep(3)

    async def page(self) -> float:
        """How long the sign-in page takes, by a connection of its own."""
        began = time.perf_counter()
        with trio.fail_after(60):
            raw = await connected(self.port, "127.0.0.1")
            stream: trio.abc.Stream = raw
            if self.ca is not None:
                stream = trio.SSLStream(raw, self.context(), server_hostname="localhost", https_compatible=True)
            async with stream:
                await stream.send_all(b"GET /sign-in HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                heard = b""
                async for piece in stream:
                    heard += piece
        assert heard.startswith(b"HTTP/1.1 200 OK\r\n"), heard[:200]
        assert heard.rstrip().endswith(b"</html>")
        return time.perf_counter() - began

    async def page_median(self, times: int = 9) -> float:
        return statistics.median([await self.page() for _ in range(times)])


async def connected(port: int, source: str) -> trio.SocketStream:
    """A connection from one of the loopback addresses."""
    raw = trio.socket.socket()
    try:
        await raw.bind((source, 0))
        await raw.connect(("127.0.0.1", port))
    except BaseException:
        raw.close()
        raise
    return trio.SocketStream(raw)


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS // 2, DESCRIPTORS))


@contextlib.asynccontextmanager
async def attacked_hub(folder: Path, *, with_tls: bool) -> AsyncIterator[Target]:
    """Start a hub, and end it at last as its administrator would."""
    log = folder / "log"
    command = [sys.executable, "-m", "hub_server", "serve", "--json", "--data", str(folder / "hub"), "--drain", "1"]
    command += ["--listen", "127.0.0.1:0", "--wireguard-port", "0", "--tls", "true" if with_tls else "false"]
    with log.open("wb") as errors:
        async with trio.open_nursery() as nursery:
            start: Callable[..., Any] = trio.run_process
            process: trio.Process = await nursery.start(
                lambda task_status: start(
                    command, stdout=-1, stderr=errors, check=False, preexec_fn=_limited, task_status=task_status
                )
            )
            try:
                assert process.stdout is not None
                told = b""
                with trio.fail_after(120):
                    while not told.endswith(b"\n"):
                        told += (await process.stdout.receive_some()) or b"{}\n"
                ready = json.loads(told)
                port = int(ready["url"].rpartition(":")[2])
                ca = folder / "hub" / "tls" / "ca.crt" if with_tls else None
                yield Target(process, port, ca, log)
            finally:
                process.terminate()
                with trio.move_on_after(30, shield=True):
                    await process.wait()
                nursery.cancel_scope.cancel()


async def one_opening(target: Target, chance: random.Random, context: ssl.SSLContext | None) -> None:
    """Connect, say something, perhaps listen, and hang up: politely or not, at any point."""
    try:
        raw = await connected(target.port, f"127.0.0.{chance.randrange(2, 12)}")
    except OSError:
        return  # the backlog is full for a moment
    try:
        if chance.random() < 0.5:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await _converse(raw, chance, context)
    except (trio.BrokenResourceError, OSError):
        pass  # the hub hung up first
    finally:
        raw.socket.close()


async def _converse(raw: trio.SocketStream, chance: random.Random, context: ssl.SSLContext | None) -> None:
    stream: trio.abc.Stream = raw
    if context is not None and chance.random() < 0.8:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        hello = outgoing.read()
        if chance.random() < 0.7:
            hello = hello[: chance.randrange(len(hello) + 1)] if chance.random() < 0.5 else mutated(chance, hello)
            await raw.send_all(hello)
            with trio.move_on_after(chance.choice([0, 0.005])):
                await raw.receive_some(4096)
            return
        stream = trio.SSLStream(raw, context, server_hostname="localhost", https_compatible=True)
    octets = opening(chance)
    while octets:
        size = chance.choice([1, 10, len(octets), len(octets), len(octets)])
        await stream.send_all(octets[:size])
        octets = octets[size:]
        if chance.random() < 0.1:
            return
    with trio.move_on_after(chance.choice([0, 0.001, 0.05])):
        while await stream.receive_some(65536):
            pass


async def attack(target: Target, seed: int, openings: int, *, at_once: int = 30) -> None:
    """So many openings."""
    left = iter(range(openings))
    context = target.context() if target.ca is not None else None

    async def attacker(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        for _ in left:
            with trio.move_on_after(20):
                await one_opening(target, chance, context)

    async with trio.open_nursery() as nursery:
        for number in range(at_once):
            nursery.start_soon(attacker, number)


@contextlib.asynccontextmanager
async def crowd(target: Target, count: int) -> AsyncIterator[None]:
    """So many connections at once, each with half a head or nothing."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(count):
            try:
                stream = await connected(target.port, f"127.0.0.{2 + number % 40}")
                stack.callback(stream.socket.close)
                await stream.send_all(b"\x16\x03\x01" if target.ca else b"GET / HTTP/1.1\r\n"[: number % 17])
            except (OSError, trio.BrokenResourceError):
                pass  # it was let go already
        yield


async def in_turn(target: Target, count: int) -> None:
    """So many visitors, one after the other, who close politely."""
    for number in range(count):
        stream = await connected(target.port, f"127.0.0.{2 + number % 40}")
        async with stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: hub\r\n\r\n")
            heard = await stream.receive_some()
            assert heard.endswith(b"ok\n"), heard


# A visitor in a process of its own, since the attacker's is busy: prints how long each visit took.
_VISITOR = """
import http.client, ssl, sys, time
port, ca = int(sys.argv[1]), sys.argv[2]
while True:
    began = time.perf_counter()
    context = ssl.create_default_context(cafile=ca) if ca else None
    kind = http.client.HTTPSConnection if ca else http.client.HTTPConnection
    client = kind("127.0.0.1", port, timeout=60, **({"context": context} if ca else {}))
    client.request("GET", "/sign-in")
    answer = client.getresponse()
    assert answer.status == 200 and answer.read().rstrip().endswith(b"</html>")
    client.close()
    print(time.perf_counter() - began, flush=True)
    time.sleep(0.5)
"""


@contextlib.asynccontextmanager
async def visited(target: Target) -> AsyncIterator[list[float]]:
    """Somebody looks at the sign-in page all the time; how long it took, in seconds."""
    command = [sys.executable, "-c", _VISITOR, str(target.port), str(target.ca or "")]
    times: list[float] = []
    async with trio.open_nursery() as nursery:
        start: Callable[..., Any] = trio.run_process
        process: trio.Process = await nursery.start(
            lambda task_status: start(command, stdout=-1, check=False, task_status=task_status)
        )
        yield times
        process.terminate()
        assert process.stdout is not None
        told = b"".join([piece async for piece in process.stdout])
        times += [float(line) for line in told.splitlines()]


async def _measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with attacked_hub(Path(folder), with_tls=options.tls) as target:
            await attack(target, options.seed + 1, min(10_000, options.openings))
            await target.calm()
            memory, descriptors, page = target.memory, target.descriptors, await target.page_median()
            began = time.perf_counter()
            async with visited(target) as during:
                await attack(target, options.seed, options.openings, at_once=options.at_once)
            seconds = time.perf_counter() - began
            await target.calm()
            after = await target.settled(descriptors + 5)
            print(f"seed {options.seed}: {options.openings} openings in {seconds:.0f} s, alive: {target.is_alive}")
            print(f"memory {memory / 1e6:.1f} MB before, {target.memory / 1e6:.1f} MB after")
            print(f"descriptors {descriptors} before, {after} after")
            middle = statistics.median(during) if during else float("nan")
            last = await target.page_median()
            print(f"a page {page * 1000:.0f} ms before, {middle * 1000:.0f} ms during, {last * 1000:.0f} ms after")
            log = target.log.read_text()
            print(f"log {len(log.splitlines())} lines, {log.count('Traceback')} tracebacks")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description="Attack a hub and print what it cost.")
    parser.add_argument("--openings", type=int, default=1_000_000)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    trio.run(_measure, parser.parse_args())


if __name__ == "__main__":
    main()
