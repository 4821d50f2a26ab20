"""httpx, httpcore, urllib3 and requests over a real tunnel, each in one line."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpcore
import httpx
import pytest
import requests
import trio
import urllib3

import wgpy
import wgpy.sync
from tests.adapters.farend import trusting
from wgpy.adapters import asyncio as asyncio_face
from wgpy.adapters.httpcore import backend
from wgpy.adapters.httpx import transport
from wgpy.adapters.requests import TunnelAdapter, session
from wgpy.adapters.thread import TunnelThread
from wgpy.adapters.urllib3 import pool_manager
from wgpy.runtime.tunnel import open_tunnel


@pytest.fixture(autouse=True)
def proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that would lead outside of the tunnel if anybody followed it."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")


# --- httpx -----------------------------------------------------------------------------------------------------------


async def ask(client: httpx.AsyncClient) -> None:
    for _ in range(2):  # the second time over the same connection
        assert (await client.get("http://office.test/path")).text == "GET /path 0"
    assert (await client.post("https://office.test/", content=bytes(100_000))).text == "POST / 100000"
    answers = [client.get(f"http://10.0.0.2/{number}") for number in range(1)]
    assert [(await answer).text for answer in answers] == ["GET /0 0"]
    with pytest.raises(httpx.ConnectError):
        await client.get("http://10.0.0.2:1/")
    with pytest.raises(httpx.ConnectError):
        await client.get("http://localhost/")
    with pytest.raises(httpx.ConnectTimeout):
        await client.get("http://nowhere.test/", timeout=0.2)
    with pytest.raises(httpx.ReadTimeout):
        await client.get("http://10.0.0.2:11/", timeout=0.2)
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("http://10.0.0.2/close")


async def test_httpx_under_trio(config: wgpy.InterfaceConfig) -> None:
    async with (
        open_tunnel(config) as tunnel,
        httpx.AsyncClient(transport=transport(tunnel, verify=trusting())) as client,
    ):
        await ask(client)


def test_httpx_under_asyncio(config: wgpy.InterfaceConfig) -> None:
    async def main() -> None:
        async with (
            asyncio_face.open_tunnel(config) as tunnel,
            httpx.AsyncClient(transport=transport(tunnel, verify=trusting())) as client,
        ):
            await ask(client)

    asyncio.run(main())


def test_httpx_in_threads(config: wgpy.InterfaceConfig) -> None:
    with (
        wgpy.sync.open_tunnel(config) as tunnel,
        httpx.Client(transport=transport(tunnel, verify=trusting())) as client,
    ):
        for _ in range(2):
            assert client.get("http://office.test/path").text == "GET /path 0"
        assert client.post("https://office.test/", content=bytes(100_000)).text == "POST / 100000"
        with pytest.raises(httpx.ConnectError):
            client.get("http://10.0.0.2:1/")
        with pytest.raises(httpx.ConnectTimeout):
            client.get("http://nowhere.test/", timeout=0.2)
        with pytest.raises(httpx.ReadTimeout):
            client.get("http://10.0.0.2:11/", timeout=0.2)


def test_httpx_does_not_believe_a_stranger_s_certificate(config: wgpy.InterfaceConfig) -> None:
    with (
        wgpy.sync.open_tunnel(config) as tunnel,
        httpx.Client(transport=transport(tunnel)) as client,
        pytest.raises(httpx.ConnectError, match="certificate"),
    ):
        client.get("https://office.test/")


async def test_httpcore_knows_no_unix_sockets_here(config: wgpy.InterfaceConfig) -> None:
    async with open_tunnel(config) as tunnel:
        with pytest.raises(httpcore.ConnectError, match="Unix"):
            await backend(tunnel).connect_unix_socket("/run/docker.sock")


async def test_httpcore_hands_the_stream_of_an_upgrade_back(config: wgpy.InterfaceConfig) -> None:
    """The echo server answers nothing before the client is done: only the bare stream can do that."""
    async with open_tunnel(config) as tunnel:
        stream = await backend(tunnel).connect_tcp("office.test", 443, timeout=20)
        secured = await stream.start_tls(trusting(), "office.test", timeout=20)
        assert secured.get_extra_info("ssl_object").version().startswith("TLS")
        assert secured.get_extra_info("server_addr")[1] == 443
        await secured.aclose()


# --- requests and urllib3 --------------------------------------------------------------------------------------------


def test_requests(config: wgpy.InterfaceConfig, tmp_path: Any) -> None:
    from tests.adapters.farend import AUTHORITY

    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    with wgpy.sync.open_tunnel(config) as tunnel, session(tunnel) as client:
        client.trust_env = False
        client.verify = str(tmp_path / "ca.pem")
        for _ in range(2):
            assert client.get("http://office.test/path", timeout=20).text == "GET /path 0"
        assert client.post("https://office.test/", data=bytes(100_000), timeout=20).text == "POST / 100000"
        assert client.get("http://office.test/redirect", timeout=20).text == "GET /found 0"
        assert client.get("http://[fd00::2]/six", timeout=20).text == "GET /six 0"
        for url in ("http://10.0.0.2:1/", "http://localhost/"):
            with pytest.raises(requests.ConnectionError):
                client.get(url, timeout=20)
        with pytest.raises(requests.ConnectTimeout):
            client.get("http://nowhere.test/", timeout=0.2)
        with pytest.raises(requests.ReadTimeout):
            client.get("http://10.0.0.2:11/", timeout=0.2)


def test_requests_dials_proxies_in_the_tunnel_or_not_at_all(
    config: wgpy.InterfaceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The far end's web server stands in for a proxy: it shows the absolute address that it was asked for."""
    with wgpy.sync.open_tunnel(config) as tunnel, session(tunnel) as client:
        monkeypatch.setenv("http_proxy", "http://10.0.0.2:80")
        assert client.get("http://elsewhere.test/", timeout=20).text == "GET http://elsewhere.test/ 0"
        monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
        with pytest.raises(requests.exceptions.InvalidProxyURL, match="outside of the tunnel"):
            client.get("http://elsewhere.test/", timeout=20)


def test_requests_through_the_tunnel_for_some_addresses_only(config: wgpy.InterfaceConfig) -> None:
    with wgpy.sync.open_tunnel(config) as tunnel, requests.Session() as client:
        client.trust_env = False
        client.mount("http://office.test", TunnelAdapter(tunnel))
        assert client.get("http://office.test/", timeout=20).text == "GET / 0"
        assert not isinstance(client.get_adapter("http://10.0.0.2/"), TunnelAdapter)


def test_urllib3(config: wgpy.InterfaceConfig) -> None:
    with wgpy.sync.open_tunnel(config) as tunnel, pool_manager(tunnel, ssl_context=trusting(), retries=False) as pool:
        assert pool.request("GET", "https://office.test/path").data == b"GET /path 0"
        with pytest.raises(urllib3.exceptions.NameResolutionError):
            pool.request("GET", "http://localhost/")
        with pytest.raises(urllib3.exceptions.NewConnectionError, match="refused"):
            pool.request("GET", "http://10.0.0.2:1/")
        with pytest.raises(urllib3.exceptions.ConnectTimeoutError):
            pool.request("GET", "http://nowhere.test/", timeout=0.2)


# --- connections that the server has closed meanwhile ----------------------------------------------------------------


async def answer_once(stream: Any) -> None:
    """A server that keeps no connection alive, and does not say so."""
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def impatient(far: tuple[wgpy.InterfaceConfig, TunnelThread]) -> wgpy.InterfaceConfig:
    """The near end of a tunnel with such a server on port 81."""
    config, thread = far
    [listener] = thread.submit(thread.tunnel.net.open_tcp_listeners, 81).result()
    thread.submit(trio.serve_listeners, answer_once, [listener])
    return config


def has_ended(response: httpx.Response) -> bool:
    return bool(response.extensions["network_stream"].get_extra_info("is_readable"))


async def test_a_connection_that_was_closed_while_idle_is_not_used_under_trio(impatient: wgpy.InterfaceConfig) -> None:
    async with (
        open_tunnel(impatient) as tunnel,
        httpx.AsyncClient(transport=transport(tunnel, verify=trusting())) as client,
    ):
        for _ in range(3):
            response = await client.get("http://10.0.0.2:81/")
            assert response.text == "ok"
            with trio.fail_after(20):
                while not has_ended(response):  # noqa: ASYNC110 - nothing tells of it
                    await trio.sleep(0.01)


def test_a_connection_that_was_closed_while_idle_is_not_used_under_asyncio(impatient: wgpy.InterfaceConfig) -> None:
    async def main() -> None:
        async with (
            asyncio_face.open_tunnel(impatient) as tunnel,
            httpx.AsyncClient(transport=transport(tunnel, verify=trusting())) as client,
        ):
            for _ in range(3):
                response = await client.get("http://10.0.0.2:81/")
                assert response.text == "ok"
                async with asyncio.timeout(20):
                    while not has_ended(response):  # noqa: ASYNC110 - nothing tells of it
                        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_connection_that_was_closed_while_idle_is_not_used_in_threads(impatient: wgpy.InterfaceConfig) -> None:
    with (
        wgpy.sync.open_tunnel(impatient) as tunnel,
        httpx.Client(transport=transport(tunnel, verify=trusting())) as client,
    ):
        for _ in range(3):
            response = client.get("http://10.0.0.2:81/")
            assert response.text == "ok"
            deadline = time.monotonic() + 20
            while not has_ended(response):
                assert time.monotonic() < deadline
                time.sleep(0.01)
