"""`wgpy proxy`."""

from __future__ import annotations

import signal
import socket
import subprocess

import pytest

from tests.cli.conftest import Run, Spawn, check_help, check_wrong_usage
from wgpy.adapters.proxies.socks5 import decode_datagram, encode_datagram


def doors(process: subprocess.Popen[bytes], count: int) -> list[str]:
    """The lines that say what is open."""
    assert process.stdout
    return [process.stdout.readline().decode().rstrip() for _ in range(count)]


def address_of(line: str) -> tuple[str, int]:
    host, _, port = line.split(" -> ")[0].split(" ")[1].rpartition(":")
    return host, int(port)


def test_help(wgpy: Run) -> None:
    check_help(wgpy, "proxy")


def test_every_door_is_shown_and_leads_into_the_tunnel(start: Spawn) -> None:
    process = start("proxy", "CONF", "--socks5", "0", "--http", "0", "-L", "0:office.test:7", "-U", "0:office.test:7")
    socks5, http, local, udp = doors(process, 4)
    assert local.endswith(" -> office.test:7")
    with socket.create_connection(address_of(local), timeout=30) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"question"
    with socket.create_connection(address_of(http), timeout=30) as client:
        client.sendall(b"GET http://office.test/path HTTP/1.1\r\nHost: office.test\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: client.recv(1000), b"")).endswith(b"\r\n\r\nGET /path 0")
    with socket.create_connection(address_of(socks5), timeout=30) as client:
        client.sendall(b"\x05\x01\x00\x05\x01\x00\x03\x09localhost\x00\x50")
        assert client.recv(2) + client.recv(10) == b"\x05\x00\x05\x04" + bytes.fromhex("0001000000000000")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.sendto(b"datagram", address_of(udp))
        assert client.recv(100) == b"datagram"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stderr
    assert process.stderr.read() == b""


def test_datagrams_through_socks5(start: Spawn) -> None:
    process = start("proxy", "CONF", "--socks5", "0")
    (socks5,) = doors(process, 1)
    with (
        socket.create_connection(address_of(socks5), timeout=30) as control,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        control.sendall(b"\x05\x01\x00" + b"\x05\x03\x00\x01" + bytes(6))
        assert control.recv(2) == b"\x05\x00"
        association = ("127.0.0.1", int.from_bytes(control.recv(10)[8:]))
        client.settimeout(30)
        for target in (("office.test", 7), ("10.0.0.2", 7), ("fd00::2", 7)):
            client.sendto(encode_datagram(target, b"a datagram"), association)
            answered = decode_datagram(client.recv(1000))
            assert answered is not None
            (host, port), payload = answered
            assert host in ("10.0.0.2", "fd00::2")
            assert (port, payload) == (7, b"a datagram")


def test_a_password_is_made_up_where_none_is_given(start: Spawn) -> None:
    process = start("proxy", "CONF", "--socks5", "0", "--user", "me", WGPY_PROXY_PASSWORD="")
    said, socks5 = doors(process, 2)
    password = said.rpartition(" ")[2].encode()
    assert len(password) > 15
    for word, status in ((password, 0), (b"wrong", 1)):
        with socket.create_connection(address_of(socks5), timeout=30) as client:
            client.sendall(b"\x05\x01\x02\x01\x02me" + bytes([len(word)]) + word)
            assert client.recv(2) + client.recv(2) == bytes([5, 2, 1, status])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], b"nothing to do"),
        (["--socks5", "x"], b"--socks5"),
        (["--socks5", "::1"], b"brackets"),
        (["-L", "80"], b"--local"),
        (["-R", "80:h"], b"--remote"),
        (["--udp", "1:h:0"], b"--udp"),
        (["--socks5", "0.0.0.0:0"], b"--user"),
        (["--http", "[::]:0"], b"--open"),
        (["--socks5", "192.0.2.77:0", "--open"], b"cannot listen on 192.0.2.77:0"),
        (["-L", f"{'x' * 64}:0:h:1"], b"neither an address nor a name"),
        (["-L", "\udcff\udcfe:0:h:1"], b"neither an address nor a name"),
        (["--udp", "\udcff\udcfe:0:h:1"], b"neither an address nor a name"),
    ],
)
def test_wrong_usage(wgpy: Run, argv: list[str], words: bytes) -> None:
    assert words in check_wrong_usage(wgpy, "proxy", "CONF", *argv)
