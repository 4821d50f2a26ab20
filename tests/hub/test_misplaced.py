"""Requests to an API server that came to the hub itself."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from hub_server.misplaced import is_misplaced, serve_hint


def scope(path: str, accept: bytes = b"application/json, */*", method: str = "GET") -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": [(b"accept", accept)]}


@pytest.mark.parametrize(
    "path", ["/api", "/api/v1", "/api/v1/nodes", "/apis", "/apis/apps/v1", "/version", "/openapi/v2", "/openapi/v3"]
)
def test_what_kubectl_asks_for_without_a_cluster_is_known(path: str) -> None:
    assert is_misplaced(scope(path))
    assert is_misplaced(scope(path, b"application/com.github.proto-openapi.spec.v2@v1.0+protobuf"))
    assert not is_misplaced(scope(path, b"text/html,application/xhtml+xml")), "a browser gets a page"


@pytest.mark.parametrize(
    "path", ["/", "/v1/me", "/versions", "/apiary", "/clusters/cl_1", "/healthz", "/static/app.js"]
)
def test_what_is_the_hub_s_own_is_left_alone(path: str) -> None:
    assert not is_misplaced(scope(path))


async def test_where_kubectl_reads_no_status_it_gets_the_text_that_it_shows() -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        raise AssertionError

    asking = scope("/api")
    asking["headers"].append((b"user-agent", b"kubectl/v1.37.1 (linux/amd64) kubernetes/f03cf63"))
    await serve_hint(asking, receive, send, "https://hub.example")
    assert sent[0]["status"] == 403
    assert (b"content-type", b"text/plain; charset=utf-8") in sent[0]["headers"]
    assert sent[1]["body"].startswith(b"this is a Daalu hub")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_hint_says_how_to_name_a_cluster(method: str) -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        raise AssertionError

    await serve_hint(scope("/version", method=method), receive, send, "https://hub.example")
    assert sent[0]["status"] == 404
    body = b"".join(message["body"] for message in sent[1:])
    if method == "HEAD":
        assert body == b""
        return
    document = json.loads(body)
    assert document["kind"] == "Status"
    assert "--append-server-path" in document["message"]
    assert "https://hub.example/k8s/clusters/<id>" in document["message"]
