"""What stands behind the HTTPS port of a whole hub: refusals with the id of the log, and who the visitor is."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from hub_server.door import Door
from tests.edge.fakekube import open_kube
from tests.hub.http.ground import answer
from tests.hub.whole import Whole, joined_edge, whole_hub

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def is_page(reply: httpx.Response) -> bool:
    """Whether it is a page; and that its id is that of the answer."""
    request_id = reply.headers["x-request-id"]
    assert request_id in reply.text
    return reply.headers["content-type"].startswith("text/html")


def document(reply: httpx.Response) -> Any:
    """The problem document, which has the id of the answer."""
    assert reply.headers["content-type"] == "application/problem+json"
    found = reply.json()
    assert found["status"] == reply.status_code
    assert found["request_id"] == reply.headers["x-request-id"]
    return found


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PROPFIND"])
async def test_an_address_that_is_none_is_a_page_for_browsers_and_a_document_for_programs(
    tmp_path: Path, method: str
) -> None:
    async with whole_hub(tmp_path) as whole, whole.client() as client:
        reply = await client.request(method, "/nowhere", headers=BROWSER)
        assert (reply.status_code, is_page(reply)) == (404, True)
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert document(await client.request(method, "/nowhere"))["title"] == "Not Found"
        json_first = {"Accept": "text/html;q=0.5, application/json"}
        assert document(await client.request(method, "/nowhere", headers=json_first))["status"] == 404
        # What tools ask that take this for an API server, whatever they accept.
        for path in ("/v1/nothing", "/version", "/api", "/apis/apps/v1", "/openapi/v3", "/openapi.json", "/livez"):
            assert document(await client.request(method, path, headers=BROWSER))["status"] == 404


async def test_a_method_that_an_address_does_not_take_is_told_with_those_it_takes(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as whole, whole.client() as client:
        reply = await client.delete("/sign-in", headers=BROWSER)
        assert (reply.status_code, is_page(reply)) == (405, True)
        assert reply.headers["allow"] == "GET, HEAD, POST"
        reply = await client.put("/v1/edge/bootstrap", headers=BROWSER)
        assert "POST" in document(reply)["detail"]
        assert reply.headers["allow"] == "POST"


async def test_refusals_of_handlers_have_the_id_too(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as whole, whole.client() as client:
        assert document(await client.get("/v1/tenants"))["code"] == "unauthenticated"
        assert document(await client.post("/v1/edge/bootstrap", content=b"x"))["code"] == "bad_request"
        reply = await client.post("/sign-out", headers=BROWSER)
        assert (reply.status_code, is_page(reply)) == (401, True)
    async with whole_hub(tmp_path, password=whole.password) as whole, whole.client(signed_in=True) as client:
        reply = await client.get("/clusters/cl_nothere", headers=BROWSER)
        assert (reply.status_code, is_page(reply)) == (404, True)
        assert document(await client.get("/v1/clusters/cl_nothere"))["code"] == "not_found"


async def test_an_answered_request_is_no_hang_up_in_the_audit_however_soon_its_client_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub_server.services.kubectl import Kubectl

    records: list[Any] = []
    monkeypatch.setattr(Kubectl, "record", lambda self, record: records.append(record))
    async with (
        whole_hub(tmp_path) as whole,
        open_kube() as kube,
        joined_edge(whole, kube, tmp_path / "edge") as cluster_id,
    ):
        issued = await whole.services.kubectl.issue_kubeconfig(await whole.reauthenticated(), cluster_id)
        token = issued.yaml.partition('token: "')[2].partition('"')[0]
        context = ssl.create_default_context(cafile=str(whole.ca))
        asking = f"GET /k8s/clusters/{cluster_id}/version HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
        for _ in range(20):
            port = int(whole.hub.url.rpartition(":")[2])
            stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=context)
            await stream.send_all(asking.encode())
            heard = b""
            while b"v1.36.3" not in heard or not heard.rstrip().endswith((b"}", b"0")):
                heard += await stream.receive_some()
            await trio.aclose_forcefully(stream)
        await whole.until(lambda: len([one for one in records if one.phase == "close"]) == 20)
    assert [(one.status, one.reason) for one in records] == [(200, None)] * 20
    assert len({one.request_id for one in records}) == 20


def break_services(monkeypatch: pytest.MonkeyPatch, whole: Whole) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a secret of the hub")

    accounts, tenants = type(whole.services.accounts), type(whole.services.tenants)
    monkeypatch.setattr(tenants, "list", broken)
    monkeypatch.setattr(accounts, "sign_in", broken)


async def test_a_mistake_of_the_hub_is_told_with_the_id_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        break_services(monkeypatch, whole)
        capsys.readouterr()
        page = await client.post("/sign-in", data={"email": "a@b", "password": "x"}, headers=BROWSER)
        assert (page.status_code, is_page(page)) == (500, True)
        found = await client.get("/v1/tenants", headers=BROWSER)
        assert document(found)["title"] == "Internal Server Error"
        assert "secret" not in page.text + found.text
        log = capsys.readouterr().out
        assert page.headers["x-request-id"] in log
        assert found.headers["x-request-id"] in log


async def test_kubectl_s_door_refuses_with_a_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hub_server.kubeproxy import KubeProxy

    async with whole_hub(tmp_path) as whole, whole.client() as client:
        reply = await client.get(
            "/k8s/clusters/cl_none/version", headers={"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
        )
        assert (reply.status_code, reply.json()["kind"]) == (401, "Status")
        assert reply.headers["x-request-id"] == reply.headers["daalu-request-id"]
        assert len(reply.headers.get_list("date")) == 1
        assert reply.reason_phrase == "Unauthorized"

        async def broken(*_: Any) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(KubeProxy, "_serve", broken)
        reply = await client.get("/k8s/clusters/cl_none/version", headers=BROWSER)
        assert (reply.status_code, reply.json()["kind"], reply.json()["code"]) == (500, "Status", 500)
        assert reply.headers["x-request-id"] in reply.text


@pytest.mark.parametrize(
    "upgrade", [{}, {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "A"}]
)
async def test_pages_are_answered_in_http_1_1_whatever_is_offered(tmp_path: Path, upgrade: dict[str, str]) -> None:
    async with whole_hub(tmp_path) as whole, whole.client() as client:
        for _ in range(3):
            reply = await client.get("/sign-in", headers=upgrade)
            assert (reply.status_code, reply.http_version, reply.reason_phrase) == (200, "HTTP/1.1", "OK")
            assert len(reply.headers.get_list("date")) == 1


@pytest.mark.parametrize(
    ("peer", "forwarded", "visitor"),
    [
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["2001:DB8::1"], "2001:db8::1"),
        ("10.0.0.1", ["<script>"], "10.0.0.1"),
        ("10.0.0.1", ["x" * 9000 + ", 10.0.0.2"], "10.0.0.2"),
    ],
)
async def test_the_visitor_is_whom_trusted_proxies_name(peer: str, forwarded: list[str], visitor: str) -> None:
    seen: list[Any] = []

    async def site(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])
        await answer(send, json.dumps({}).encode())

    async def nowhere(message: Any) -> None:
        pass

    door = Door(site, site, frozenset({"10.0.0.1", "10.0.0.2"}), "https://hub")
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope: Any = {"type": "http", "path": "/", "client": (peer, 1), "headers": headers}
    await door(scope, None, nowhere)  # type: ignore[arg-type]
    assert seen == [visitor]
