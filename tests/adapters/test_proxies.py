"""Gate, forwards, service, readiness and metrics."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

import wgpy
from tests.adapters.standin import LoopbackNet, echo_when_done, read_all, serving, silence
from wgpy.adapters.net import DIAL_ERRORS
from wgpy.adapters.proxies.forwards import Forward, is_loopback, parse_bind
from wgpy.adapters.proxies.gate import Credentials, Gate, Limits, Refused
from wgpy.adapters.proxies.observe import Observer
from wgpy.adapters.proxies.service import Doors, run_service
from wgpy.errors import ConfigError, DeviceError


class Service:
    """A service at work, and its doors by what their lines begin with."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stop = trio.Event()
        self.is_open = trio.Event()

    def opened(self, lines: list[str]) -> None:
        self.lines = lines
        self.is_open.set()

    def port(self, label: str) -> int:
        (line,) = (line for line in self.lines if line.startswith(f"{label} "))
        return int(line.split(" -> ")[0].rpartition(":")[2])


async def start(
    nursery: trio.Nursery, doors: Doors, *, gate: Gate | None = None, grace: float = 10.0, **names: str
) -> Service:
    service = Service()

    async def run() -> None:
        net = LoopbackNet(intranet_test="127.0.0.1")
        await run_service(doors, net, gate or Gate(), stop=service.stop, grace=grace, on_open=service.opened)

    nursery.start_soon(run)
    await service.is_open.wait()
    return service


# --- what is written on a command line -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1080", ("127.0.0.1", 1080)),
        (":1080", ("127.0.0.1", 1080)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_addresses_to_listen_on(text: str, expected: tuple[str, int]) -> None:
    assert parse_bind(text) == expected


@pytest.mark.parametrize("text", ["", "a:b:1", "::1", "[::1]", "[::1:80", "x", "70000", "1:", "-1", "[::1]80"])
def test_what_is_no_address_to_listen_on(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_bind(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1:h:2", Forward(None, 1, ("h", 2))),
        ("*:0:h:2", Forward("*", 0, ("h", 2))),
        ("[fd00::1]:1:[fd00::2]:2", Forward("fd00::1", 1, ("fd00::2", 2))),
    ],
)
def test_forwards(text: str, expected: Forward) -> None:
    assert Forward.parse(text) == expected


@pytest.mark.parametrize("text", ["", "1", "1:2", "1::2", "1:h:0", "x:h:1", "a:1:h:2:3", "1:h:2:"])
def test_what_is_no_forward(text: str) -> None:
    with pytest.raises(ConfigError):
        Forward.parse(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("x", False),
    ],
)
def test_loopback_addresses(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_credentials_are_not_shown() -> None:
    assert "secret" not in repr(Credentials("me", "secret"))


# --- forwards --------------------------------------------------------------------------------------------------------


async def test_a_local_forward_leads_into_the_tunnel_with_half_close() -> None:
    async with serving(echo_when_done) as port, trio.open_nursery() as nursery:
        service = await start(nursery, Doors(local=(Forward(None, 0, ("intranet.test", port)),)))
        async with await trio.open_tcp_stream("127.0.0.1", service.port("local")) as client:
            await client.send_all(b"question")
            await client.send_eof()
            assert await read_all(client) == b"question"
        service.stop.set()


async def test_a_local_forward_to_nowhere_resets() -> None:
    async with trio.open_nursery() as nursery:
        service = await start(nursery, Doors(local=(Forward(None, 0, ("unknown.test", 1)),)))
        async with await trio.open_tcp_stream("127.0.0.1", service.port("local")) as client:
            with pytest.raises(trio.BrokenResourceError):
                await read_all(client)
        service.stop.set()


async def test_a_remote_forward_leads_out_of_the_tunnel() -> None:
    """The stand-in's tunnel is the loopback interface: a free port of it is found first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        inside = probe.getsockname()[1]
    async with serving(echo_when_done) as port, trio.open_nursery() as nursery:
        service = await start(nursery, Doors(remote=(Forward(None, inside, ("127.0.0.1", port)),)))
        assert service.lines == [f"remote *:{inside} -> 127.0.0.1:{port}"]
        async with await trio.open_tcp_stream("127.0.0.1", inside) as client:
            await client.send_all(b"question")
            await client.send_eof()
            assert await read_all(client) == b"question"
        service.stop.set()


async def test_a_server_out_here_can_be_told_who_its_client_in_the_tunnel_is() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        inside = probe.getsockname()[1]
    async with serving(echo_when_done) as port, trio.open_nursery() as nursery:
        doors = Doors(remote=(Forward(None, inside, ("127.0.0.1", port)),), names_clients=True)
        service = await start(nursery, doors)
        async with await trio.open_tcp_stream("127.0.0.1", inside) as client:
            own = client.socket.getsockname()[1]
            await client.send_all(b"question")
            await client.send_eof()
            answer = await read_all(client)
            assert answer == f"PROXY TCP4 127.0.0.1 127.0.0.1 {own} {inside}\r\nquestion".encode()
        service.stop.set()


async def test_a_datagram_forward_answers_each_client_by_itself() -> None:
    server = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    await server.bind(("127.0.0.1", 0))
    sources = set()

    async def answer() -> None:
        while True:
            data, sender = await server.recvfrom(65535)
            sources.add(sender)
            await server.sendto(data[::-1], sender)

    clients = [trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    gate = Gate(limits=Limits(datagram_flows=2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        forward = Forward(None, 0, ("intranet.test", server.getsockname()[1]))
        service = await start(nursery, Doors(udp=(forward,)), gate=gate)
        for number, client in enumerate(clients):
            await client.sendto(b"from %d" % number, ("127.0.0.1", service.port("udp")))
            assert (await client.recvfrom(100))[0] == b"%d morf" % number
        await clients[2].sendto(b"", ("127.0.0.1", service.port("udp")))
        assert (await clients[2].recvfrom(100))[0] == b"", "an empty datagram is a datagram"
        assert len(sources) == 3
        assert gate.refused == {"too many datagram flows": 1}
        service.stop.set()
        nursery.cancel_scope.cancel()
    for one in (*clients, server):
        one.close()


# --- limits and the end ----------------------------------------------------------------------------------------------


async def test_more_connections_than_the_cap_are_reset() -> None:
    gate = Gate(limits=Limits(connections=1))
    async with serving(silence) as port, trio.open_nursery() as nursery:
        service = await start(nursery, Doors(local=(Forward(None, 0, ("127.0.0.1", port)),)), gate=gate, grace=0)
        async with await trio.open_tcp_stream("127.0.0.1", service.port("local")):
            while not gate.open:
                await trio.lowlevel.checkpoint()
            async with await trio.open_tcp_stream("127.0.0.1", service.port("local")) as second:
                with pytest.raises(trio.BrokenResourceError):
                    await read_all(second)
            assert (gate.open, gate.accepted, dict(gate.refused)) == (1, 1, {"too many connections": 1})
            service.stop.set()


async def is_taken_in(port: int) -> bool:
    try:
        await (await LoopbackNet().open_tcp_stream("127.0.0.1", port)).aclose()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:  # the door closed at this very moment
        return True
    return True


async def test_asked_to_stop_it_takes_nobody_in_and_lets_others_finish() -> None:
    gate = Gate()
    async with serving(echo_when_done) as port, trio.open_nursery() as nursery:
        service = await start(nursery, Doors(local=(Forward(None, 0, ("127.0.0.1", port)),)), gate=gate)
        async with await trio.open_tcp_stream("127.0.0.1", service.port("local")) as client:
            await client.send_all(b"before, ")
            while not gate.open:
                await trio.lowlevel.checkpoint()
            service.stop.set()
            while await is_taken_in(service.port("local")):
                pass
            await client.send_all(b"after")
            await client.send_eof()
            assert await read_all(client) == b"before, after"
    assert gate.open == 0


async def test_a_taken_address_is_one_error_that_names_it() -> None:
    async with serving(silence) as port:
        doors = Doors(socks5=(("127.0.0.1", port),))
        with pytest.raises(DeviceError, match=f"cannot listen on 127.0.0.1:{port}"):
            await run_service(doors, LoopbackNet(), Gate(), stop=trio.Event())


async def test_systemd_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.fspath(path))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(path))
        async with trio.open_nursery() as nursery:
            service = await start(nursery, Doors(socks5=(("127.0.0.1", 0),)))
            assert manager.recv(1000).decode() == f"READY=1\nSTATUS=socks5 127.0.0.1:{service.port('socks5')}"
            service.stop.set()
        assert manager.recv(1000).decode() == "STOPPING=1\nSTATUS=draining 0 connections"


async def test_a_defect_with_one_client_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()

    async def handler(stream: trio.SocketStream) -> None:
        async with trio.open_nursery():
            raise {b"r": trio.BrokenResourceError(), b"d": ZeroDivisionError(), b"t": Refused("why")}[
                bytes(await stream.receive_some(1))
            ]

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.serve, [listener], handler, nursery)
        for kind in (b"r", b"d", b"t"):
            async with await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]) as client:
                await client.send_all(kind)
                assert await client.receive_some() == b""
        nursery.cancel_scope.cancel()
    assert gate.refused == {"defect": 1, "why": 1}
    assert "ZeroDivisionError" in caplog.text


# --- readiness and metrics -------------------------------------------------------------------------------------------


@pytest.fixture
async def observed() -> AsyncIterator[tuple[Observer, wgpy.Device, trio.Event]]:
    """An observer of a real device whose one peer answers when the event is set."""
    alice, bob = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate()
    to_alice = wgpy.PeerConfig(alice.public_key, allowed_ips=["10.0.0.1/32"])
    echo = bytes.fromhex("4500001c00004000401126cf0a0000010a000002000700070008ebcd")
    async with wgpy.open_device(wgpy.InterfaceConfig(bob, peers=[to_alice]), wgpy.MemoryDevice("bob")) as far:
        to_bob = wgpy.PeerConfig(
            bob.public_key, allowed_ips=["10.0.0.2/32"], endpoint=wgpy.Endpoint("127.0.0.1", far.udp.port)
        )
        config = wgpy.InterfaceConfig(alice, peers=[to_bob])
        packets = wgpy.MemoryDevice("alice")
        answers = trio.Event()

        class Net(LoopbackNet):
            async def ping(self, host: str, *, size: int = 56, timeout: float = 1.0) -> float:  # noqa: ASYNC109
                assert host == "10.0.0.2"
                await answers.wait()
                await packets.send([echo])
                raise TimeoutError

        async with wgpy.open_device(config, packets) as device:
            yield Observer(config, device, Net(), Gate()), device, answers


async def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as client:
        await client.send_all(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = (await read_all(client)).decode().partition("\r\n\r\n")
        return int(head.split()[1]), body


async def test_ready_and_metrics(observed: tuple[Observer, wgpy.Device, trio.Event]) -> None:
    observer, device, answers = observed
    doors = Doors(socks5=(("127.0.0.1", 0),), observers=(("127.0.0.1", 0),))
    service = Service()
    async with trio.open_nursery() as nursery, device.events() as events:

        async def run() -> None:
            await run_service(
                doors, LoopbackNet(), Gate(), stop=service.stop, observer=observer, on_open=service.opened
            )

        nursery.start_soon(run)
        await service.is_open.wait()
        port = service.port("observe")
        assert await get(port, "/ready") == (503, "not ready: no peer has answered\n")
        answers.set()
        async for event in events:
            if isinstance(event, wgpy.HandshakeCompleted):
                break
        assert await get(port, "/ready") == (200, "ready\n")
        status, text = await get(port, "/metrics")
        assert status == 200
        samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert samples["wgpy_ready"] == "1"
        (peer,) = device.statistics().peers.values()
        assert float(samples[f'wgpy_peer_sent_bytes_total{{peer="{peer.public_key}"}}']) == peer.tx_bytes > 0
        assert (await get(port, "/nothing"))[0] == 404
        assert (await get(port, "/ready", "POST"))[0] == 405
        assert await get(port, "/ready", "HEAD") == (200, "")
        service.stop.set()


@pytest.mark.parametrize(
    ("ours", "allowed", "host"),
    [
        ("10.0.0.1/24", "10.0.0.0/24", "10.0.0.2"),
        ("10.0.0.2/24", "10.0.0.0/24", "10.0.0.1"),
        ("10.0.0.1/24 10.0.0.2/24 10.0.0.3/24", "10.0.0.0/24", "10.0.0.4"),
        ("10.0.0.0/31", "10.0.0.0/31", "10.0.0.1"),
        ("10.0.0.1/31", "10.0.0.0/31", "10.0.0.0"),
        ("fd00::1/64", "10.0.0.0/24 fd00::/64", "fd00::2"),
        ("10.0.0.1/32", "10.0.0.1/32 10.9.0.0/16", "10.9.0.1"),
    ],
)
async def test_a_quiet_peer_is_asked_at_an_address_that_is_not_ours(ours: str, allowed: str, host: str) -> None:
    """Our own would be answered here, and no handshake would come of it."""
    there = wgpy.PeerConfig(
        wgpy.PrivateKey.generate().public_key,
        allowed_ips=allowed.split(),
        endpoint=wgpy.Endpoint("127.0.0.1", 9),
    )
    config = wgpy.InterfaceConfig(wgpy.PrivateKey.generate(), addresses=ours.split(), peers=[there])
    async with wgpy.open_tunnel(config) as tunnel, trio.open_nursery() as nursery:
        asked: list[str] = []

        class Net(LoopbackNet):
            async def ping(self, host: str, *, size: int = 56, timeout: float = 1.0) -> float:  # noqa: ASYNC109
                asked.append(host)
                return await tunnel.net.ping(host, size=size, timeout=timeout)

        await nursery.start(Observer(config, tunnel.device, Net(), Gate()).run)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert asked == [host]
        assert tunnel.device.statistics().peers[there.public_key].tx_bytes, "an initiation has left"
        nursery.cancel_scope.cancel()


async def test_a_peer_that_has_only_our_own_address_is_not_asked() -> None:
    there = wgpy.PeerConfig(
        wgpy.PrivateKey.generate().public_key, allowed_ips=["10.0.0.1/32"], endpoint=wgpy.Endpoint("127.0.0.1", 9)
    )
    config = wgpy.InterfaceConfig(wgpy.PrivateKey.generate(), addresses=["10.0.0.1/24"], peers=[there])
    async with wgpy.open_tunnel(config) as tunnel, trio.open_nursery() as nursery:

        class Net(LoopbackNet):
            async def ping(self, host: str, *, size: int = 56, timeout: float = 1.0) -> float:  # noqa: ASYNC109
                raise AssertionError(host)

        await nursery.start(Observer(config, tunnel.device, Net(), Gate()).run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_handshake_that_was_over_before_anybody_looked_counts(
    observed: tuple[Observer, wgpy.Device, trio.Event],
) -> None:
    """A client was faster than the observer: traffic flows, and no further handshake comes for two minutes."""
    observer, device, answers = observed
    answers.set()
    async with device.events() as events:
        with contextlib.suppress(TimeoutError):
            await observer._net.ping("10.0.0.2")
        async for event in events:
            if isinstance(event, wgpy.HandshakeCompleted):
                break
    doors = Doors(socks5=(("127.0.0.1", 0),), observers=(("127.0.0.1", 0),))
    service = Service()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await run_service(
                doors, LoopbackNet(), Gate(), stop=service.stop, observer=observer, on_open=service.opened
            )

        nursery.start_soon(run)
        await service.is_open.wait()
        assert await get(service.port("observe"), "/ready") == (200, "ready\n")
        service.stop.set()


def test_what_dialling_may_raise_is_no_base_exception() -> None:
    assert all(issubclass(kind, Exception) for kind in DIAL_ERRORS)
