"""The far end of a real tunnel over the loopback interface, in a thread of its own: servers and names to talk to.

10.0.0.2 and fd00::2, known to its name server as office.test, and from the near end 10.0.0.1 and fd00::1

port 7   echo, TCP once the client is done, UDP at once     port 53  names
port 9   sends a little, then resets                        port 80  HTTP, port 443 HTTPS
port 11  accepts and says nothing
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import trio
import trustme

import wgpy
from tests.adapters.standin import echo_when_done, hang_up, silence
from wgpy.adapters.thread import TunnelThread
from wgpy.runtime.tunnel import open_tunnel

NAMES = {"office.test": ("10.0.0.2", "fd00::2"), "four.test": ("10.0.0.2",), "nowhere.test": ("10.0.0.77",)}
AUTHORITY = trustme.CA()


def trusting() -> ssl.SSLContext:
    """A context that trusts the far end's certificate, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    return context


# What is no answer, or none that ends well.
ODD = {
    b"/garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
    b"/nothing": b"",
    b"/chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n9\r\ncut",
    b"/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"/long": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70000,
    b"/status": b"HTTP/1.1 twenty OK\r\n\r\n",
    b"/away": b"HTTP/1.1 302 Found\r\nLocation: http://h:99999/\r\nContent-Length: 0\r\n\r\n",
    b"/elsewhere": b"HTTP/1.1 302 Found\r\nLocation: ftp://h/\r\nContent-Length: 0\r\n\r\n",
}


async def answer_http(stream: Any) -> None:
    """HTTP/1.1 with keep-alive: says which method, path and body came; /redirect leads to /; /close ends early."""
    buffer = b""
    with contextlib.suppress(trio.BrokenResourceError):
        while True:
            while b"\r\n\r\n" not in buffer:
                data = await stream.receive_some()
                if not data:
                    return
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            method, path, _ = head.split(b"\r\n")[0].split(b" ")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            length = int(fields.get(b"content-length", b"0"))
            while len(buffer) < length:
                buffer += await stream.receive_some()
            body, buffer = buffer[:length], buffer[length:]
            text = b"%s %s %d" % (method, path, len(body))
            status, more = b"200 OK", b""
            if path == b"/redirect":
                status, more = b"302 Found", b"Location: /found\r\n"
            elif path == b"/missing":
                status = b"404 Not Found"
            if path in ODD:
                await stream.send_all(ODD[path])
                return
            promised = len(text) + (1000 if path == b"/close" else 0)
            await stream.send_all(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, promised, more, text))
            if path == b"/close":
                return


async def answer_https(stream: Any) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("office.test").configure_cert(context)
    secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
    with contextlib.suppress(trio.BrokenResourceError):
        await answer_http(secured)
        await secured.aclose()


async def answer_names(net: Any) -> None:
    """A name server for NAMES."""
    async with await net.open_udp(local=(None, 53)) as datagrams:
        async for query, client in datagrams:
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
                at += 1 + query[at]
            (kind,) = struct.unpack_from("!H", query, at + 1)
            known = [ipaddress.ip_address(one) for one in NAMES.get(".".join(labels), ())]
            found = [one.packed for one in known if (one.version, kind) in ((4, 1), (6, 28))]
            head = query[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, len(found), 0, 0)
            body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(one)) + one for one in found)
            await datagrams.send_to(head + query[12 : at + 5] + body, client)


async def echo_datagrams(net: Any) -> None:
    async with await net.open_udp(local=(None, 7)) as datagrams:
        async for data, client in datagrams:
            await datagrams.send_to(data, client)


def closing(handler: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def handle(stream: Any) -> None:
        async with stream:
            await handler(stream)

    return handle


@contextlib.asynccontextmanager
async def serving_far_end(config: wgpy.InterfaceConfig) -> AsyncIterator[Any]:
    servers = {7: echo_when_done, 9: hang_up, 11: silence, 80: closing(answer_http), 443: closing(answer_https)}
    async with open_tunnel(config) as tunnel, trio.open_nursery() as nursery:
        for port, handler in servers.items():
            await nursery.start(tunnel.net.serve_tcp, handler, port)
        nursery.start_soon(answer_names, tunnel.net)
        nursery.start_soon(echo_datagrams, tunnel.net)
        yield tunnel
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def far_end() -> Iterator[tuple[wgpy.InterfaceConfig, TunnelThread]]:
    """The configuration of the near end, and the thread that runs the far end."""
    near, far = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate()
    to_near = wgpy.PeerConfig(near.public_key, allowed_ips=["10.0.0.1/32", "fd00::1/128"])
    config = wgpy.InterfaceConfig(far, addresses=["10.0.0.2/24", "fd00::2/64"], peers=[to_near])
    thread = TunnelThread(lambda: serving_far_end(config))
    thread.start()
    to_far = wgpy.PeerConfig(
        far.public_key,
        allowed_ips=["10.0.0.0/24", "fd00::/64"],
        endpoint=wgpy.Endpoint("127.0.0.1", thread.tunnel.device.udp.port),
    )
    try:
        yield (
            wgpy.InterfaceConfig(near, addresses=["10.0.0.1/24", "fd00::1/64"], peers=[to_far], dns=["10.0.0.2"]),
            thread,
        )
    finally:
        thread.close()
