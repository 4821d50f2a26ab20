"""A Kubernetes API in this process, as much of it as the edge needs: objects, merge patches, watches, log streams.

It keeps every request, so that a test can say what reached the API server. Over a real socket, with TLS where a test
wants it.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

CLUSTER_UID = "8f7d3f4e-2c5b-4f53-9b53-0d4f8f3f6f11"
KINDS = {"secrets": "Secret", "configmaps": "ConfigMap", "nodes": "Node", "namespaces": "Namespace", "pods": "Pod"}


@dataclass
class Seen:
    """One request."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value.decode() for one, value in self.headers if one == name.lower().encode()), None)


@dataclass
class FakeKube:
    """The API server."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    token: str = "account-token"
    host: str = "127.0.0.1"
    port: int = 0
    is_tls: bool = False
    version: int = 1
    # Asked before each request: a status and a message to refuse it with.
    refuse: Callable[[Seen], tuple[int, str] | None] = lambda seen: None
    # What reviews of our own access deny: verb, resource, namespace.
    denied: set[tuple[str, str, str]] = field(default_factory=set)
    open_streams: int = 0
    open_logs: int = 0  # of these
    log_octets: int = 0
    # What a watch may begin with at least, or at 0; older versions are forgotten, as after a restart.
    oldest: int = 0
    _news: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.host}:{self.port}"

    # --- objects -----------------------------------------------------------------------------------------------------

    def put(self, path: str, document: dict[str, Any]) -> None:
        """Create or replace, by the path that `get` uses."""
        self.version += 1
        document = copy.deepcopy(document)
        metadata = document.setdefault("metadata", {})
        metadata["name"] = path.rpartition("/")[2]
        metadata["resourceVersion"] = str(self.version)
        is_new = path not in self.objects
        self.objects[path] = document
        self._tell("ADDED" if is_new else "MODIFIED", path, document)

    def drop(self, path: str) -> None:
        self.version += 1
        document = self.objects.pop(path)
        document["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", path, document)

    def secret(self, name: str = "daalu-edge-key", namespace: str = "daalu-edge") -> dict[str, bytes]:
        data = self.objects[f"/api/v1/namespaces/{namespace}/secrets/{name}"].get("data") or {}
        return {key: base64.b64decode(value) for key, value in data.items()}

    def config(self, name: str = "daalu-edge-config", namespace: str = "daalu-edge") -> dict[str, str]:
        return dict(self.objects[f"/api/v1/namespaces/{namespace}/configmaps/{name}"].get("data") or {})

    def install(self) -> None:
        """What the chart leaves behind: a Secret without data, a ConfigMap, and a cluster around them."""
        self.put("/api/v1/namespaces/daalu-edge/secrets/daalu-edge-key", {"kind": "Secret"})
        self.put(
            "/api/v1/namespaces/daalu-edge/configmaps/daalu-edge-config", {"kind": "ConfigMap", "data": {"a": "b"}}
        )
        self.put("/api/v1/namespaces/kube-system", {"kind": "Namespace", "metadata": {"uid": CLUSTER_UID}})
        self.put("/apis/apps/v1/namespaces/daalu-edge/deployments/daalu-edge", {"kind": "Deployment"})
        self.put("/api/v1/nodes/one", node("one"))

    def _tell(self, kind: str, path: str, document: dict[str, Any]) -> None:
        self._events.append((path.rpartition("/")[0], {"type": kind, "object": copy.deepcopy(document)}))
        news, self._news = self._news, trio.Event()
        news.set()

    def __post_init__(self) -> None:
        self._events: list[tuple[str, dict[str, Any]]] = []

    # --- HTTP --------------------------------------------------------------------------------------------------------

    async def handle(self, stream: trio.abc.Stream) -> None:
        http = h11.Connection(h11.SERVER)
        try:
            while True:
                request = await _next(http, stream)
                if not isinstance(request, h11.Request):
                    return
                body = b""
                while isinstance(event := await _next(http, stream), h11.Data):
                    body += event.data
                seen = Seen(request.method.decode(), request.target.decode(), list(request.headers.raw_items()), body)
                seen.headers = [(name.lower(), value) for name, value in seen.headers]
                self.seen.append(seen)
                await self._answer(http, stream, seen)
                if http.our_state is not h11.DONE:
                    return
                http.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError, ssl.SSLError):
            return
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(self, http: h11.Connection, stream: trio.abc.Stream, seen: Seen) -> None:
        path, _, query = seen.target.partition("?")
        words = dict(urllib.parse.parse_qsl(query))
        if refusal := self.refuse(seen):
            await _send(http, stream, *status_of(*refusal))
        elif path == "/redirect":
            await _send(http, stream, 302, {}, headers=[("location", "http://169.254.169.254/")])
        elif seen.header("authorization") != f"Bearer {self.token}":
            await _send(http, stream, *status_of(401, "Unauthorized"))
        elif path == "/version":
            await _send(http, stream, 200, {"gitVersion": "v1.36.3", "major": "1", "minor": "36"})
        elif path.endswith("/log"):
            await self._log(http, stream, words)
        elif path.endswith("selfsubjectaccessreviews"):
            asked = json.loads(seen.body)["spec"]["resourceAttributes"]
            words_asked = (asked["verb"], asked["resource"], asked.get("namespace", ""))
            await _send(http, stream, 201, {"status": {"allowed": words_asked not in self.denied}})
        elif words.get("watch"):
            await self._watch(http, stream, path, words)
        elif seen.method == "PATCH" and path in self.objects:
            self.put(path, merged(self.objects[path], json.loads(seen.body)))
            await _send(http, stream, 200, self.objects[path])
        elif path in self.objects:
            await _send(http, stream, 200, self.objects[path])
        elif path.rpartition("/")[2] in KINDS:
            wanted = words.get("fieldSelector", "metadata.name=").partition("=")[2]
            items = [
                one
                for key, one in self.objects.items()
                if key.rpartition("/")[0] == path and wanted in ("", key.rpartition("/")[2])
            ]
            start, limit = int(words.get("continue", 0)), int(words.get("limit", 500))
            metadata = {"resourceVersion": str(self.version)}
            if start + limit < len(items):
                metadata["continue"] = str(start + limit)
            await _send(http, stream, 200, {"items": items[start : start + limit], "metadata": metadata})
        elif path == "/echo":
            await _send(http, stream, 200, {"body": seen.body.decode()}, headers=[("warning", "299 - old")])
        else:
            await _send(http, stream, *status_of(404, f"{path} not found"))

    async def _watch(self, http: h11.Connection, stream: trio.abc.Stream, path: str, words: dict[str, str]) -> None:
        wanted = words.get("fieldSelector", "").partition("=")[2]

        def fits(one: dict[str, Any]) -> bool:
            return not wanted or one["object"]["metadata"]["name"] == wanted

        if not words.get("resourceVersion"):
            # As a real API server with a quiet etcd 3.4.23 does: its cache cannot know that it is fresh.
            await _send(http, stream, *status_of(504, "Timeout: Too large resource version"))
            return
        since = int(words["resourceVersion"])
        if 0 < since < self.oldest:
            await _send(http, stream, *status_of(410, "too old resource version"))
            return
        told = [
            one
            for key, one in self._events
            if key == path and int(one["object"]["metadata"]["resourceVersion"]) > since
        ]
        if since == 0:
            # "At any version" begins with what is there now, each object as if it were new.
            here = [document for key, document in self.objects.items() if key.rpartition("/")[0] == path]
            told = [{"type": "ADDED", "object": copy.deepcopy(document)} for document in here]
        events = [one for one in told if fits(one)]
        position = len(self._events)
        await stream.send_all(
            http.send(h11.Response(status_code=200, headers=[("content-type", "application/json")])) or b""
        )
        self.open_streams += 1
        try:
            async with trio.open_nursery() as nursery:

                async def until_gone() -> None:
                    with contextlib.suppress(trio.BrokenResourceError):
                        await stream.receive_some(1)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(until_gone)
                while True:
                    for one in events:
                        await stream.send_all(http.send(h11.Data(data=json.dumps(one).encode() + b"\n")) or b"")
                    if position == len(self._events):
                        await self._news.wait()
                    events = [one for key, one in self._events[position:] if key == path and fits(one)]
                    position = len(self._events)
        finally:
            self.open_streams -= 1

    async def _log(self, http: h11.Connection, stream: trio.abc.Stream, words: dict[str, str]) -> None:
        """`octets` of lines, then silence if it is followed."""
        left = int(words.get("octets", "0"))
        await stream.send_all(http.send(h11.Response(status_code=200, headers=[("content-type", "text/plain")])) or b"")
        self.open_streams += 1
        self.open_logs += 1
        line = b"x" * 127 + b"\n"
        try:
            while left > 0:
                piece = (line * 256)[:left]
                left -= len(piece)
                await stream.send_all(http.send(h11.Data(data=piece)) or b"")
                self.log_octets += len(piece)
            if words.get("follow"):
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.receive_some(1)
                raise trio.BrokenResourceError
            await stream.send_all(http.send(h11.EndOfMessage()) or b"")
        finally:
            self.open_streams -= 1
            self.open_logs -= 1


def node(name: str, *, ready: bool = True, **labels: str) -> dict[str, Any]:
    """A node as a kubelet describes it."""
    return {
        "kind": "Node",
        "metadata": {"name": name, "creationTimestamp": "2026-01-02T03:04:05Z", "labels": labels},
        "spec": {},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}, {"type": "MemoryPressure", "status": "False"}],
            "nodeInfo": {"kubeletVersion": "v1.36.3"},
        },
    }


def merged(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def status_of(code: int, message: str) -> tuple[int, dict[str, Any]]:
    """A failure in Kubernetes' words."""
    reason = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}.get(code, "")
    return code, {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}


async def _next(http: h11.Connection, stream: trio.abc.Stream) -> Any:
    while True:
        event = http.next_event()
        if event is not h11.NEED_DATA:
            return event
        http.receive_data(bytes(await stream.receive_some(65536)))


async def _send(
    http: h11.Connection,
    stream: trio.abc.Stream,
    status: int,
    document: dict[str, Any],
    *,
    headers: list[tuple[str, str]] | None = None,
) -> None:
    body = json.dumps(document).encode()
    fields = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("x-secret", "1"),
        *(headers or []),
    ]
    octets = http.send(h11.Response(status_code=status, headers=fields)) or b""
    await stream.send_all(octets + (http.send(h11.Data(data=body)) or b"") + (http.send(h11.EndOfMessage()) or b""))


@contextlib.asynccontextmanager
async def open_kube(
    *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[FakeKube]:
    """A running API server with what the chart installs."""
    kube = FakeKube(is_tls=tls is not None, host=host)
    kube.install()
    async with trio.open_nursery() as nursery:
        listeners: list[Any] = await trio.open_tcp_listeners(port, host=host)
        kube.port = listeners[0].socket.getsockname()[1]
        if tls is not None:
            listeners = [trio.SSLListener(one, tls, https_compatible=True) for one in listeners]
        nursery.start_soon(trio.serve_listeners, kube.handle, listeners)
        yield kube
        nursery.cancel_scope.cancel()
