"""The server on loopback: places and descriptors, accept() that fails, TLS and what is none, the end in order."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from hub_server import supervise, tls
from hub_server.nursery import unwrapped
from tests.hub.http.ground import NAMES, Served, echo, hello, listening, replies_of, serving

GET = b"GET /a HTTP/1.1\r\nHost: hub\r\n\r\n"
LAST = b"GET /a HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n"


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not true():  # noqa: ASYNC110 - the server's own counts have no event
            await trio.sleep(0.01)


async def rest_of(stream: trio.abc.ReceiveStream) -> bytes:
    heard = b""
    with trio.fail_after(60):
        try:
            async for piece in stream:
                heard += piece
        except trio.BrokenResourceError:
            pass
    return heard


async def asked(served: Served) -> bytes:
    """What a page says, by a connection of its own."""
    stream = await served.open()
    async with stream:
        await stream.send_all(LAST)
        [reply] = replies_of(await rest_of(stream), "GET")
    assert reply.status == 200
    return reply.body


# --- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_tls", [False, True])
async def test_a_connection_that_its_client_closed_is_gone_at_once(tmp_path: Path, with_tls: bool) -> None:
    async with serving(hello, tmp_path if with_tls else None) as served:
        for _ in range(20):
            stream = await served.open()
            await stream.send_all(GET)
            assert (await stream.receive_some()).endswith(b"/a")
            await stream.aclose()
        await until(lambda: served.server.statistics.open == 0)
        assert served.server.statistics.accepted == 20


async def test_when_it_is_full_who_rests_longest_goes_and_who_is_served_stays() -> None:
    go = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await go.wait()
        await hello(scope, receive, send)

    async with serving(app, places=5, each=5) as served:
        slow = await served.open()
        await slow.send_all(LAST.replace(b"/a", b"/slow"))
        resting = [await served.open() for _ in range(4)]
        await until(lambda: served.server.statistics.open == 5)
        for _ in range(6):
            assert await asked(served) == b"/a"
        assert await rest_of(resting[0]) == b"", "it was let go"
        go.set()
        assert (await rest_of(slow)).endswith(b"/slow")
        for stream in [slow, *resting]:
            await stream.aclose()


async def test_who_takes_nothing_of_an_answer_is_cut_and_who_takes_little_is_not() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(2**18), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with serving(app, stall=4) as served, await served.open() as deaf, await served.open() as slow:
        await deaf.send_all(GET)
        await slow.send_all(GET)
        heard = 0
        while heard < 64 * 2**18:
            heard += len(await slow.receive_some(2**17))
            await trio.sleep(0.05)
        await until(lambda: served.server.statistics.open == 1)
        await slow.send_all(GET)
        assert await slow.receive_some(1), "it goes on"


class Failing:
    """A listener whose accept() fails a few times."""

    def __init__(self, code: int, times: int) -> None:
        self.real, self.code, self.left = listening(), code, times
        self.fileno, self.close = self.real.fileno, self.real.close

    def accept(self) -> Any:
        if self.left:
            self.left -= 1
            raise OSError(self.code, "no")
        return self.real.accept()


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EPERM", "ENETDOWN"])
async def test_accepting_heals_whatever_accept_says(name: str) -> None:
    async with serving(hello) as served, trio.open_nursery() as nursery:
        failing: Any = Failing(getattr(errno, name), times=3)
        await nursery.start(served.server.serve, [failing], trio.Event())
        port = failing.real.getsockname()[1]
        assert await asked(Served(port, served.server, served.service, served.stopping, None)) == b"/a"
        assert failing.left == 0
        nursery.cancel_scope.cancel()


async def test_a_listener_that_is_gone_is_told() -> None:
    failing: Any = Failing(errno.EBADF, times=1)
    async with serving(hello) as served, await trio.open_tcp_stream("127.0.0.1", failing.real.getsockname()[1]):
        with pytest.raises(supervise.PortLost), unwrapped():
            async with trio.open_nursery() as nursery:
                await supervise.start_server(nursery, "the port", served.server.serve, [failing], trio.Event())


async def test_one_connection_dies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever raises in the task of a connection, short of what ends the process."""
    from hub_server.http.connection import Connection

    real = Connection.run

    async def run(self: Connection) -> None:
        if self.service.chatter.counts.setdefault("runs", 0) == 1:
            self.service.chatter.counts["runs"] += 1
            raise MemoryError
        self.service.chatter.counts["runs"] += 1
        await real(self)

    monkeypatch.setattr(Connection, "run", run)
    failures = supervise.failures.get("connection", 0)
    async with serving(hello) as served:
        old = await served.open()
        await old.send_all(GET)
        assert (await old.receive_some()).endswith(b"/a")
        victim = await served.open()
        assert await rest_of(victim) == b""
        await old.send_all(GET)
        assert (await old.receive_some()).endswith(b"/a")
        assert await asked(served) == b"/a"
        assert supervise.failures["connection"] == failures + 1
        await old.aclose()
        await victim.aclose()
        await until(lambda: served.server.statistics.open == 0)


# --- TLS -------------------------------------------------------------------------------------------------------------


async def test_plain_http_on_the_port_of_tls_is_told_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(hello, tmp_path) as served:
        for _ in range(50):
            stream = await trio.open_tcp_stream("127.0.0.1", served.port)
            async with stream:
                await stream.send_all(GET)
                [reply] = replies_of(await rest_of(stream), "GET")
            assert (reply.status, b"https://" in reply.body) == (400, True)
        for octets in (b"", b"\x00\x01", b"\x16", b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n", bytes(200)):
            stream = await trio.open_tcp_stream("127.0.0.1", served.port)
            async with stream:
                with contextlib.suppress(trio.BrokenResourceError):  # it may be gone after the first octet
                    await stream.send_all(octets)
                    await stream.send_eof()
                await rest_of(stream)
        await until(lambda: served.server.statistics.open == 0)
        happenings = served.server.statistics.happenings
    assert happenings["a client did not speak TLS"] >= 52
    out = capsys.readouterr().out
    assert "Traceback" not in out
    assert len(out.splitlines()) == len(happenings), "one line for each kind of thing"


async def test_a_client_that_does_not_trust_it_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def distrust(port: int) -> None:
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            pytest.raises(ssl.SSLCertVerificationError),
            ssl.create_default_context().wrap_socket(raw, server_hostname="localhost"),
        ):
            pass

    async with serving(hello, tmp_path) as served:
        for _ in range(10):
            await trio.to_thread.run_sync(distrust, served.port)
        await until(lambda: served.server.statistics.open == 0)
        assert served.server.statistics.happenings == {"a client does not trust the certificate": 10}
    assert len(capsys.readouterr().out.splitlines()) == 1


async def test_hang_ups_at_every_octet_of_the_handshake_harm_nobody(tmp_path: Path) -> None:
    """As FIN and as RST, also in the middle of an answer."""
    async with serving(hello, tmp_path) as served:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = served.trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello_octets = outgoing.read()
        for cut in [*range(0, len(hello_octets), 7), len(hello_octets)]:
            for is_reset in (False, True):
                stream = await trio.open_tcp_stream("127.0.0.1", served.port)
                if is_reset:
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if cut:
                    await stream.send_all(hello_octets[:cut])
                await stream.aclose()
        assert await asked(served) == b"/a"
        await until(lambda: served.server.statistics.open == 0)


async def test_a_new_certificate_counts_for_the_next_connection(tmp_path: Path) -> None:
    context = tls.server_context(tls.ensure_own(tmp_path, NAMES))
    fresh = tls.ensure_own(tmp_path / "fresh", NAMES)
    async with serving(hello, tmp_path) as served:
        served.server._context = context
        assert await asked(served) == b"/a"
        context.load_cert_chain(fresh.chain, fresh.key)
        renewed = Served(served.port, served.server, served.service, served.stopping, tmp_path / "fresh" / "ca.crt")
        assert await asked(renewed) == b"/a"


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_it_ends_in_order() -> None:
    go = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait() if scope["path"] == "/slow" else None
        await trio.sleep_forever() if scope["path"] == "/never" else None
        await hello(scope, receive, send)

    async with serving(app, drain=3) as served:
        resting, slow, never = [await served.open() for _ in range(3)]
        await resting.send_all(GET)
        assert (await resting.receive_some()).endswith(b"/a")
        await slow.send_all(GET.replace(b"/a", b"/slow"))
        await never.send_all(GET.replace(b"/a", b"/never"))
        await until(lambda: served.server.statistics.waiting == 1)
        served.stopping.set()
        assert await rest_of(resting) == b"", "at once"
        with pytest.raises(OSError, match="connect"):
            await served.open()
        go.set()
        assert (await rest_of(slow)).endswith(b"/slow")
        assert await rest_of(never) == b"", "when its time is over"
        await until(lambda: served.server.statistics.open == 0)
        for stream in (resting, slow, never):
            await stream.aclose()


# --- judges that others wrote ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_tls", [False, True])
async def test_clients_of_others_agree(tmp_path: Path, with_tls: bool) -> None:
    def standard(served: Served) -> None:
        for _ in range(2):
            kind: Any = http.client.HTTPSConnection if with_tls else http.client.HTTPConnection
            more = {"context": served.trusting()} if with_tls else {}
            client = kind("127.0.0.1", served.port, timeout=30, **more)
            for method, body in (("GET", None), ("POST", b"x" * 100_000), ("HEAD", None), ("POST", iter([b"a", b"b"]))):
                client.request(method, "/", body=body, encode_chunked=not isinstance(body, bytes | None))
                answer = client.getresponse()
                assert (answer.status, answer.reason) == (200, "OK")
                answer.read()
            client.close()

    async with serving(echo, tmp_path if with_tls else None) as served:
        await trio.to_thread.run_sync(standard, served)
        verify: Any = served.trusting() if with_tls else True
        async with httpx.AsyncClient(base_url=served.url, verify=verify, timeout=30) as client:

            async def several() -> None:
                for size in (0, 1, 1000, 300_000):
                    assert (await client.post("/", content=b"y" * size)).content == b"y" * size

            async with trio.open_nursery() as nursery:
                for _ in range(12):
                    nursery.start_soon(several)
        await until(lambda: served.server.statistics.open == 0)


@pytest.mark.needs("tools")
@pytest.mark.parametrize("how", ["--http1.0", "--http1.1", "--http2", "--http2-prior-knowledge"])
@pytest.mark.parametrize("with_tls", [False, True])
async def test_curl_is_answered_in_http_1_1_or_not_at_all(tmp_path: Path, how: str, with_tls: bool) -> None:
    async with serving(hello, tmp_path if with_tls else None) as served:
        command = ["curl", "-sS", "-m", "30", how, "-w", " %{http_version} %{http_code}", f"{served.url}/a"]
        if with_tls:
            command += ["--cacert", str(served.ca)]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        if how == "--http2-prior-knowledge" and not with_tls:
            assert done.returncode != 0
        else:
            assert done.returncode == 0, done.stderr
            assert done.stdout == b"/a 1.1 200"
        assert await asked(served) == b"/a"


@pytest.mark.needs("tools")
async def test_openssl_sees_http_1_1_alone(tmp_path: Path) -> None:
    async with serving(hello, tmp_path) as served:
        for offered in ("h2,http/1.1", "h2", ""):
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-quiet", "-ign_eof"]
            command += ["-alpn", offered] if offered else []
            done = await trio.run_process(command, stdin=LAST, capture_stdout=True, capture_stderr=True, check=False)
            assert done.stdout.endswith(b"\r\n\r\n/a"), (offered, done)
