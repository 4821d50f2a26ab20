"""`wgpy.sync` over a real tunnel: genuine sockets in plain threads, errors as a kernel socket gives them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

import wgpy
import wgpy.sync
from tests.adapters.farend import far_end, trusting
from wgpy.adapters.thread import TunnelThread

LARGE = bytes(range(256)) * 400_000  # 100 MB


@contextlib.contextmanager
def refusing(number: int) -> Iterator[None]:
    """Expect an OSError with this errno."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - by its number
        yield
    assert caught.value.errno == number


def receive_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 20), b""))


def test_a_socket_is_genuine_and_half_closes(config: wgpy.InterfaceConfig) -> None:
    with wgpy.sync.open_tunnel(config) as tunnel:
        for host in ("10.0.0.2", "fd00::2", "office.test"):
            with tunnel.create_connection((host, 7), timeout=20) as connection:
                assert isinstance(connection, socket.socket)
                assert select.select([], [connection], [], 5)[1]
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(b"question")
                connection.shutdown(socket.SHUT_WR)
                assert receive_all(connection) == b"question"


def test_a_hundred_megabytes_both_ways(config: wgpy.InterfaceConfig) -> None:
    with wgpy.sync.open_tunnel(config) as tunnel, tunnel.create_connection(("office.test", 7)) as connection:
        connection.sendall(LARGE)
        connection.shutdown(socket.SHUT_WR)
        assert hashlib.sha256(receive_all(connection)).digest() == hashlib.sha256(LARGE).digest()


def test_many_threads_share_a_tunnel(config: wgpy.InterfaceConfig) -> None:
    answers: list[bytes] = []

    def ask(number: int) -> None:
        with tunnel.create_connection(("10.0.0.2", 7), timeout=30) as connection:
            connection.sendall(b"%d" % number * 1000)
            connection.shutdown(socket.SHUT_WR)
            answers.append(receive_all(connection))

    with wgpy.sync.open_tunnel(config) as tunnel:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == sorted(b"%d" % number * 1000 for number in range(20))


def test_errors_are_those_of_a_kernel_socket(config: wgpy.InterfaceConfig) -> None:
    with wgpy.sync.open_tunnel(config) as tunnel:
        for address, number in (
            (("10.0.0.2", 1), errno.ECONNREFUSED),
            (("office.test", 1), errno.ECONNREFUSED),
            (("192.0.2.1", 80), errno.ENETUNREACH),
        ):
            with refusing(number):
                tunnel.create_connection(address)
        with pytest.raises(socket.gaierror) as unknown:
            tunnel.create_connection(("localhost", 80))
        assert unknown.value.errno == socket.EAI_NONAME
        with pytest.raises(TimeoutError) as late:
            tunnel.create_connection(("10.0.0.77", 80), timeout=0.2)
        assert late.value.errno == errno.ETIMEDOUT


def test_a_reset_in_the_tunnel_is_a_reset_of_the_socket(config: wgpy.InterfaceConfig) -> None:
    """And no orderly end, which would make a truncated answer look whole."""
    with (
        wgpy.sync.open_tunnel(config) as tunnel,
        tunnel.create_connection(("10.0.0.2", 9)) as connection,
        pytest.raises(ConnectionResetError),
    ):
        receive_all(connection)


def test_closing_the_tunnel_breaks_what_is_open(config: wgpy.InterfaceConfig) -> None:
    with wgpy.sync.open_tunnel(config) as tunnel:
        connection = tunnel.create_connection(("10.0.0.2", 11))
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    with refusing(errno.ENETDOWN):
        tunnel.create_connection(("10.0.0.2", 7))


def test_tls_and_http_of_the_standard_library(config: wgpy.InterfaceConfig) -> None:
    with wgpy.sync.open_tunnel(config) as tunnel:
        plain = tunnel.create_connection(("office.test", 443), timeout=20)
        with trusting().wrap_socket(plain, server_hostname="office.test") as secured:
            client = http.client.HTTPConnection("office.test")
            client.sock = secured
            client.request("GET", "/path")
            assert client.getresponse().read() == b"GET /path 0"
        with pytest.raises(ssl.SSLCertVerificationError), tunnel.create_connection(("office.test", 443)) as other:
            ssl.create_default_context().wrap_socket(other, server_hostname="office.test")


def test_servers_in_the_tunnel(far: tuple[wgpy.InterfaceConfig, TunnelThread]) -> None:
    config, thread = far
    with wgpy.sync.open_tunnel(config) as tunnel, tunnel.create_server(8000) as listener:
        tunnel.ping("10.0.0.2", timeout=20)  # the far end knows no endpoint of ours before
        dialled = thread.submit(thread.connect, "10.0.0.1", 8000)
        accepted, remote = listener.accept(timeout=20)
        with accepted, dialled.result() as client:
            assert remote[0] == "10.0.0.2"
            assert accepted.getpeername() == remote
            assert accepted.getsockname() == ("10.0.0.1", 8000)
            assert client.getpeername() == ("10.0.0.1", 8000)
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert receive_all(accepted) == b"hello"
            accepted.sendall(b"goodbye")
            accepted.close()
            assert receive_all(client) == b"goodbye"
        with pytest.raises(TimeoutError):
            listener.accept(timeout=0.05)
        listener.close()
        with refusing(errno.EBADF):
            listener.accept()
        with pytest.raises(ConnectionRefusedError):
            thread.submit(thread.connect, "10.0.0.1", 8000).result()


def test_datagrams_ping_and_names(config: wgpy.InterfaceConfig) -> None:
    with wgpy.sync.open_tunnel(config) as tunnel:
        with tunnel.create_datagram_socket(("office.test", 7)) as datagrams:
            assert isinstance(datagrams, socket.socket)
            for payload in (b"one", b"", bytes(1200)):
                datagrams.send(payload)
                assert datagrams.recv(65535) == payload
        assert 0 < tunnel.ping("office.test", size=100, timeout=10) < 10
        with pytest.raises(TimeoutError):
            tunnel.ping("10.0.0.77", timeout=0.1)
        found = {info[4][0] for info in tunnel.getaddrinfo("office.test", 80)}
        assert found == {"10.0.0.2", "fd00::2"}


def test_a_forward_for_libraries_that_dial_by_themselves(config: wgpy.InterfaceConfig) -> None:
    with wgpy.sync.open_tunnel(config) as tunnel:
        with tunnel.forward("office.test", 7) as address, socket.create_connection(address) as connection:
            connection.sendall(b"by itself")
            connection.shutdown(socket.SHUT_WR)
            assert receive_all(connection) == b"by itself"
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(address).close()
            except ConnectionRefusedError:
                break
        else:
            raise AssertionError("the forward outlives its context")


def test_what_open_tunnel_raises_comes_through() -> None:
    with pytest.raises(wgpy.ConfigError, match="Address"), wgpy.sync.open_tunnel(wgpy.InterfaceConfig()):
        pass


def test_two_tunnels_with_the_same_addresses(config: wgpy.InterfaceConfig) -> None:
    with (
        far_end() as (other, _),
        wgpy.sync.open_tunnel(config) as first,
        wgpy.sync.open_tunnel(other) as second,
        first.create_connection(("10.0.0.2", 7)) as one,
        second.create_connection(("10.0.0.2", 7)) as two,
    ):
        for connection, word in ((one, b"first"), (two, b"second")):
            connection.sendall(word)
            connection.shutdown(socket.SHUT_WR)
        assert (receive_all(one), receive_all(two)) == (b"first", b"second")


@pytest.mark.long
def test_a_socket_that_was_closed_while_the_far_end_is_silent_is_noticed(config: wgpy.InterfaceConfig) -> None:
    """To its other end it looks half-closed, until the kernel forgets it after a minute."""
    with wgpy.sync.open_tunnel(config) as tunnel:
        tunnel.create_connection(("10.0.0.2", 11)).close()
        deadline = time.monotonic() + 200
        while tunnel._thread.tunnel.net.statistics().connections and time.monotonic() < deadline:
            time.sleep(1)  # the time of the kernel, which no mock clock moves
        assert tunnel._thread.tunnel.net.statistics().connections == 0
