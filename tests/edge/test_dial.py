"""Sockets that notice a dead peer, and the way through a proxy."""

from __future__ import annotations

import base64
import pathlib
import re
import socket
import ssl
from typing import Any

import h11
import pytest
import trio
import trustme

from edge_agent.dial import DEAD_AFTER, Origin, Proxy, ProxyRefused, bypasses, dial, open_stream, proxy_of
from edge_agent.tls import client_context

EDGE = pathlib.Path(__file__).resolve().parents[2] / "edge_agent"


async def test_a_socket_asks_whether_its_peer_is_still_there() -> None:
    """An API server whose machine lost its power is found out within 15 seconds, idle or not."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0], await dial("127.0.0.1", listeners[0].socket.getsockname()[1]) as stream:
        one = stream.socket
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, interval, probes = (one.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        assert idle + interval * probes == DEAD_AFTER <= 15
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == DEAD_AFTER * 1000


def test_no_other_module_opens_a_tcp_socket() -> None:
    """Each would be one that does not notice."""
    opens = re.compile(r"open_tcp_stream|socket\.create_connection|open_ssl_over")
    found = [path.name for path in EDGE.glob("*.py") if opens.search(path.read_text())]
    assert sorted(found) == ["dial.py", "tunnel.py"]
    assert "trio.open_tcp_stream" not in (EDGE / "tunnel.py").read_text(), "there it is the tunnel's own"


# --- proxies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_named"),
    [
        ("", "hub.daalu.io", False),
        ("*", "hub.daalu.io", True),
        ("daalu.io", "hub.daalu.io", True),
        ("daalu.io", "daalu.io", True),
        ("daalu.io", "notdaalu.io", False),
        (".daalu.io", "hub.daalu.io", True),
        (".daalu.io", "daalu.io", False),
        ("*.daalu.io", "hub.daalu.io", True),
        ("a.b, HUB.daalu.io ", "hub.Daalu.io.", True),
        ("hub.daalu.io:443", "hub.daalu.io", True),
        ("hub.daalu.io:8443", "hub.daalu.io", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("fd00::/8", "fd12::1", True),
        ("[fd12::1]:443", "fd12::1", True),
        ("2.7", "192.0.2.7", False),
        ("nonsense/99,,", "hub.daalu.io", False),
        ("", "127.0.0.1", True),
        ("", "localhost", True),
    ],
)
def test_no_proxy_names_hosts_as_it_does_for_kubectl(no_proxy: str, host: str, is_named: bool) -> None:
    assert bypasses(no_proxy, host, 443) is is_named


def test_a_proxy_may_have_a_password_that_is_never_shown() -> None:
    proxy = proxy_of("http://user:p%40ss@proxy.test:3128")
    assert proxy is not None
    assert (proxy.origin.host, proxy.origin.port, proxy.origin.tls) == ("proxy.test", 3128, None)
    assert proxy.credentials == b"Basic " + base64.b64encode(b"user:p@ss")
    assert "ss" not in repr(proxy)
    assert proxy_of("") is None
    plain = proxy_of("proxy.test:3128")
    assert plain is not None
    assert plain.origin.port == 3128
    secure = proxy_of("https://proxy.test")
    assert secure is not None
    assert secure.origin.port == 443
    assert secure.origin.tls is not None


@pytest.mark.parametrize("url", ["socks5://user:secret@proxy.test", "http://", "http://proxy:99999", "http://[::1"])
def test_what_is_no_proxy_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        proxy_of(url)
    assert "secret" not in str(refused.value)


class FakeProxy:
    """Connects whoever asks to one place, whatever name is asked for; or answers with a status."""

    def __init__(self, port: int, status: int = 200) -> None:
        self.status = status
        self.asked: list[tuple[bytes, dict[bytes, bytes]]] = []
        self._port = port

    async def handle(self, stream: trio.abc.Stream) -> None:
        http = h11.Connection(h11.SERVER)
        while not isinstance(event := http.next_event(), h11.Request):
            http.receive_data(bytes(await stream.receive_some(65536)))
        self.asked.append((event.target, dict(event.headers)))
        if self.status != 200:
            await stream.send_all(f"HTTP/1.1 {self.status} no\r\nContent-Length: 0\r\n\r\n".encode())
            return
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as there, trio.open_nursery() as nursery:

            async def copy(one: Any, other: Any) -> None:
                async for data in one:
                    await other.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(copy, stream, there)
            await copy(there, stream)


@pytest.mark.parametrize("is_secure", [False, True])
async def test_the_hub_is_reached_through_a_proxy(is_secure: bool) -> None:
    """CONNECT with its credentials, then TLS with the hub itself; the proxy may have TLS of its own."""
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("hub.test", "localhost").configure_cert(server)
    trusting = client_context(None)
    ca.configure_trust(trusting)

    async def echo(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"hub: " + bytes(await stream.receive_some(100)))

    async with trio.open_nursery() as nursery:
        [hub] = await trio.open_ssl_over_tcp_listeners(0, server, host="127.0.0.1", https_compatible=True)
        nursery.start_soon(trio.serve_listeners, echo, [hub])
        fake = FakeProxy(hub.transport_listener.socket.getsockname()[1])
        listeners: list[Any] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        if is_secure:
            listeners = [trio.SSLListener(listeners[0], server, https_compatible=True)]
        nursery.start_soon(trio.serve_listeners, fake.handle, listeners)
        proxy = Proxy(Origin("localhost", port, trusting if is_secure else None), b"Basic abc")
        with trio.fail_after(20):
            stream, _ = await open_stream(Origin("hub.test", 443, trusting), proxy)
            await stream.send_all(b"hello")
            assert bytes(await stream.receive_some()) == b"hub: hello"
            await stream.aclose()
            assert fake.asked[0][0] == b"hub.test:443"
            assert fake.asked[0][1][b"proxy-authorization"] == b"Basic abc"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("status", "words"), [(407, "name and a password"), (403, "forbids"), (502, "cannot")])
async def test_a_proxy_that_refuses_is_named_as_such(status: int, words: str) -> None:
    fake = FakeProxy(1, status)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, fake.handle, listeners)
        proxy = Proxy(Origin("127.0.0.1", listeners[0].socket.getsockname()[1], None), None)
        with trio.fail_after(20), pytest.raises(ProxyRefused, match=words):
            await open_stream(Origin("hub.test", 443, None), proxy)
        nursery.cancel_scope.cancel()
