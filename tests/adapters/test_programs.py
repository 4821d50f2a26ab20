"""What is written for trio's streams runs over those of the tunnel: TLS, h11, websockets, httpx."""

from __future__ import annotations

import ssl
from typing import NamedTuple

import h11
import httpcore
import httpx
import pytest
import trio
import trio.testing
import trio_websocket
import trustme

from tests.runtime.links import Host, Weather, joined_nets
from tests.runtime.test_net import name_server, zone
from wgpy.adapters.httpcore import NetBackend
from wgpy.adapters.socketpair import open_socket
from wgpy.runtime.streams import NetStream

WEATHER = Weather(delay=0.005)


class Certificates(NamedTuple):
    """Of www.example, and of who believes it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("www.example").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Certificates(server, client)


async def serve_http(stream: trio.abc.Stream) -> None:
    """A small HTTP/1.1 server: answers with the size and the end of what it was sent."""
    connection = h11.Connection(h11.SERVER)
    target, body = b"", bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Request):
            target = event.target
            body.clear()
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            answer = target + b" %d " % len(body) + bytes(body[-3:])
            if target == b"/big":
                answer = bytes(300_000)
            response = h11.Response(status_code=200, headers=[("Content-Length", str(len(answer)))])
            octets = connection.send(response) or b""
            octets += connection.send(h11.Data(data=answer)) or b""
            octets += connection.send(h11.EndOfMessage()) or b""
            await stream.send_all(octets)
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()
        else:
            return


def client_of(host: Host, context: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """An httpx client that dials through the tunnel of a host."""
    transport = httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(ssl_context=context, network_backend=NetBackend(host.net))
    return httpx.AsyncClient(transport=transport, trust_env=False)


async def test_tls_by_trio(certificates: Certificates, autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(WEATHER) as (a, b), trio.open_nursery() as nursery:
        listeners = await b.net.open_tcp_listeners(443)

        async def echo(stream: trio.SSLStream[NetStream]) -> None:
            async with stream:
                async for octets in stream:
                    await stream.send_all(octets)

        secured = [trio.SSLListener(listener, certificates.server) for listener in listeners]
        nursery.start_soon(trio.serve_listeners, echo, secured)
        plain = await a.net.open_tcp_stream("10.0.0.2", 443)
        stream = trio.SSLStream(plain, certificates.client, server_hostname="www.example")
        await stream.send_all(bytes(range(256)) * 1000)
        received = bytearray()
        while len(received) < 256_000:
            received += await stream.receive_some()
        assert received == bytes(range(256)) * 1000
        assert stream.version() == "TLSv1.3"
        await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_trio_s_check_of_tls_streams(certificates: Certificates, autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), trio.open_nursery() as nursery:
        [listener] = await b.net.open_tcp_listeners(443)

        async def make() -> tuple[trio.SSLStream[NetStream], trio.SSLStream[NetStream]]:
            plain = await a.net.open_tcp_stream("10.0.0.2", 443)
            client = trio.SSLStream(plain, certificates.client, server_hostname="www.example")
            server = trio.SSLStream(await listener.accept(), certificates.server, server_side=True)
            async with trio.open_nursery() as handshakes:
                handshakes.start_soon(client.do_handshake)
                handshakes.start_soon(server.do_handshake)
            return client, server

        await trio.testing.check_two_way_stream(make, None)
        nursery.cancel_scope.cancel()


async def test_httpx_over_plain_connections(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(WEATHER) as (a, b), name_server(b, zone), trio.open_nursery() as nursery:
        await nursery.start(b.net.serve_tcp, serve_http, 80)
        async with client_of(a) as client:
            for number in range(20):
                answer = await client.post(f"http://www.example/{number}", content=b"x" * 1000 * number + b"end")
                assert answer.text == f"/{number} {1000 * number + 3} end"
            assert len((await client.get("http://10.0.0.2/big")).content) == 300_000
        assert a.net.statistics().opened == 2, "one connection for each name, kept alive"
        nursery.cancel_scope.cancel()


async def test_httpx_over_tls(certificates: Certificates, autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(WEATHER) as (a, b), name_server(b, zone), trio.open_nursery() as nursery:
        listeners = await b.net.open_tcp_listeners(443)
        secured = [trio.SSLListener(one, certificates.server, https_compatible=True) for one in listeners]
        nursery.start_soon(trio.serve_listeners, serve_http, secured)
        async with client_of(a, certificates.client) as client:
            async with trio.open_nursery() as many:
                for _ in range(5):
                    many.start_soon(client.get, "https://www.example/big")
            answer = await client.post("https://www.example/a", content=b"end")
            assert answer.text == "/a 3 end"
        nursery.cancel_scope.cancel()


async def test_what_fails_below_is_told_in_the_words_of_httpx(autojump_clock: trio.testing.MockClock) -> None:
    weather = Weather()
    async with joined_nets(weather) as (a, b), trio.open_nursery() as nursery, client_of(a) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://10.0.0.2:81/")

        async def silent(stream: NetStream) -> None:
            await stream.receive_some()
            await trio.sleep_forever()

        async def rude(stream: NetStream) -> None:
            await stream.receive_some()
            stream.abort()

        await nursery.start(b.net.serve_tcp, silent, 80)
        await nursery.start(b.net.serve_tcp, rude, 82)
        with pytest.raises(httpx.ReadTimeout):
            await client.get("http://10.0.0.2/")
        with pytest.raises(httpx.ReadError):
            await client.get("http://10.0.0.2:82/")
        weather.loss = 1.0
        with pytest.raises(httpx.ConnectTimeout):
            await client.get("http://10.0.0.2/")
        with pytest.raises(httpcore.ConnectError, match="no Unix socket"):
            await NetBackend(a.net).connect_unix_socket("/run/x")
        nursery.cancel_scope.cancel()


async def test_websockets(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(WEATHER) as (a, b), trio.open_nursery() as nursery:

        async def handle(request: trio_websocket.WebSocketRequest) -> None:
            socket = await request.accept()
            while True:
                try:
                    await socket.send_message(await socket.get_message())
                except trio_websocket.ConnectionClosed:
                    return

        listeners = await b.net.open_tcp_listeners(80)
        await nursery.start(trio_websocket.WebSocketServer(handle, listeners).run)
        stream = await a.net.open_tcp_stream("10.0.0.2", 80)
        socket = await trio_websocket.wrap_client_stream(nursery, stream, "www.example", "/")
        for size in (0, 1, 126, 70_000):
            await socket.send_message(bytes(size))
            assert await socket.get_message() == bytes(size)
        await socket.ping()
        await trio.sleep(600)
        await socket.send_message("still here")
        assert await socket.get_message() == "still here"
        await socket.aclose()
        nursery.cancel_scope.cancel()


async def test_a_socket_of_the_system_for_code_that_needs_one() -> None:
    async with joined_nets() as (a, b), trio.open_nursery() as nursery:

        async def count(stream: NetStream) -> None:
            size = 0
            async for octets in stream:
                size += len(octets)
            await stream.send_all(b"%d octets" % size)

        await nursery.start(b.net.serve_tcp, count, 80)
        async with open_socket(a.net, "10.0.0.2", 80) as sock:

            def talk() -> bytes:
                sock.sendall(bytes(3_000_000))
                sock.shutdown(1)
                return sock.makefile("rb").read()

            assert await trio.to_thread.run_sync(talk) == b"3000000 octets"
        nursery.cancel_scope.cancel()
