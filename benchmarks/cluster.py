"""A small Kubernetes API in one process, for the demonstration and the benchmarks: `python -m benchmarks.cluster`.

It has nodes, namespaces, pods with logs, deployments, services and events; lists, tables, watches, logs that follow,
discovery and access reviews, as far as a stock kubectl asks for them. Nothing in it runs: it says of itself that it is
the demonstration's cluster. Whoever asks must bring the token that was printed when it started.

    request -> token -> path -> Kind and objects -> document, Table, watch or log
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import secrets
import sys
import urllib.parse
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import h11
import trio

__all__ = ["Cluster", "open_cluster"]

VERSION: Final = "v1.36.3+demo"
_STARTED: Final = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=12, hours=3)
_LINE: Final = b"2026-01-02T03:04:05Z request served status=200 path=/ bytes=1234 duration=1.23ms agent=demo"
_PIECE: Final = 64 * 1024
_READ: Final = ("get", "list", "watch")


def _age(created: str) -> str:
    """As kubectl prints an age."""
    seconds = int((datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(created)).total_seconds())
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 10 * 60:
        return f"{seconds // 60}m{seconds % 60}s" if seconds % 60 else f"{seconds // 60}m"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size * (2 if unit != "m" else 1):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


@dataclass(frozen=True)
class Kind:
    """A resource: where it is, what it is called, and its columns for a Table."""

    group: str
    version: str
    plural: str
    name: str
    short: tuple[str, ...]
    namespaced: bool
    columns: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...]

    @property
    def path(self) -> str:
        """Of its group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def api_version(self) -> str:
        """As objects say it."""
        return f"{self.group}/{self.version}" if self.group else self.version


def _created(one: dict[str, Any]) -> str:
    return _age(one["metadata"]["creationTimestamp"])


def _ready(one: dict[str, Any]) -> str:
    state = next(item["status"] for item in one["status"]["conditions"] if item["type"] == "Ready")
    cordoned = ",SchedulingDisabled" if one["spec"].get("unschedulable") else ""
    return ("Ready" if state == "True" else "NotReady") + cordoned


def _roles(one: dict[str, Any]) -> str:
    prefix = "node-role.kubernetes.io/"
    found = [label.removeprefix(prefix) for label in one["metadata"]["labels"] if label.startswith(prefix)]
    return ",".join(sorted(found)) or "<none>"


def _ports(one: dict[str, Any]) -> str:
    return ",".join(f"{port['port']}/{port['protocol']}" for port in one["spec"]["ports"])


NODE: Final = Kind("", "v1", "nodes", "Node", ("no",), False, (
    ("Name", lambda one: one["metadata"]["name"]), ("Status", _ready), ("Roles", _roles), ("Age", _created),
    ("Version", lambda one: one["status"]["nodeInfo"]["kubeletVersion"]),
))  # fmt: skip
NAMESPACE: Final = Kind("", "v1", "namespaces", "Namespace", ("ns",), False, (
    ("Name", lambda one: one["metadata"]["name"]), ("Status", lambda one: one["status"]["phase"]), ("Age", _created),
))  # fmt: skip
POD: Final = Kind("", "v1", "pods", "Pod", ("po",), True, (
    ("Name", lambda one: one["metadata"]["name"]), ("Ready", lambda one: "1/1"),
    ("Status", lambda one: one["status"]["phase"]), ("Restarts", lambda one: 0), ("Age", _created),
))  # fmt: skip
SERVICE: Final = Kind("", "v1", "services", "Service", ("svc",), True, (
    ("Name", lambda one: one["metadata"]["name"]), ("Type", lambda one: one["spec"]["type"]),
    ("Cluster-IP", lambda one: one["spec"]["clusterIP"]), ("External-IP", lambda one: "<none>"),
    ("Port(s)", _ports), ("Age", _created),
))  # fmt: skip
EVENT: Final = Kind("", "v1", "events", "Event", ("ev",), True, (
    ("Last Seen", _created), ("Type", lambda one: one["type"]), ("Reason", lambda one: one["reason"]),
    ("Object", lambda one: f"{one['involvedObject']['kind'].lower()}/{one['involvedObject']['name']}"),
    ("Message", lambda one: one["message"]),
))  # fmt: skip
DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment", ("deploy",), True, (
    ("Name", lambda one: one["metadata"]["name"]),
    ("Ready", lambda one: f"{one['status']['readyReplicas']}/{one['spec']['replicas']}"),
    ("Up-to-date", lambda one: one["status"]["updatedReplicas"]),
    ("Available", lambda one: one["status"]["availableReplicas"]), ("Age", _created),
))  # fmt: skip
KINDS: Final = (NODE, NAMESPACE, POD, SERVICE, EVENT, DEPLOYMENT)


@dataclass
class Cluster:
    """The API server.

    Attributes:
        token: what a request must bring; without one, everybody is let in.
        port: on 127.0.0.1, plain HTTP.
        open_streams: watches and logs that run.
    """

    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    port: int = 0
    open_streams: int = 0
    _objects: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: itertools.count(1000))

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def add(self, kind: Kind, name: str, namespace: str = "", **document: Any) -> None:
        """Put an object there."""
        metadata: dict[str, Any] = {
            "name": name,
            "uid": secrets.token_hex(16),
            "resourceVersion": str(next(self._numbers)),
            "creationTimestamp": _STARTED.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "labels": document.pop("labels", {}),
            "annotations": {"daalu.io/demo": "nothing of this runs"},
        }
        if kind.namespaced:
            metadata["namespace"] = namespace
        whole = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **document}
        self._objects.setdefault((kind.group, kind.plural), []).append(whole)

    def populate(self, nodes: int = 3) -> None:
        """A cluster that looks like one."""
        for number in range(1, nodes + 1):
            role = {"node-role.kubernetes.io/control-plane": ""} if number == 1 else {}
            self.add(
                NODE,
                f"demo-{number}",
                labels={"kubernetes.io/hostname": f"demo-{number}", **role},
                spec={},
                status={
                    "conditions": [
                        {"type": "MemoryPressure", "status": "False"},
                        {"type": "DiskPressure", "status": "False"},
                        {"type": "Ready", "status": "True", "reason": "Demo", "message": "nothing of this runs"},
                    ],
                    "nodeInfo": {"kubeletVersion": VERSION, "osImage": "none", "architecture": "none"},
                },
            )
        for name in ("default", "kube-system", "shop"):
            self.add(NAMESPACE, name, spec={}, status={"phase": "Active"})
        for app, replicas in (("front", 2), ("basket", 1)):
            labels = {"app": app}
            self.add(
                DEPLOYMENT, app, "shop", labels=labels,
                spec={"replicas": replicas, "selector": {"matchLabels": labels}},
                status={"readyReplicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas},
            )  # fmt: skip
            self.add(
                SERVICE, app, "shop", labels=labels,
                spec={"type": "ClusterIP", "clusterIP": "10.96.0.7", "ports": [{"port": 80, "protocol": "TCP"}]},
            )  # fmt: skip
            for number in range(replicas):
                self.add(
                    POD, f"{app}-{number}", "shop", labels=labels,
                    spec={"nodeName": "demo-1", "containers": [{"name": app, "image": "demo"}]},
                    status={"phase": "Running", "podIP": "10.1.0.9"},
                )  # fmt: skip
        started = _STARTED.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.add(
            EVENT, "front-0.1", "shop", type="Normal", reason="Demo", message="this cluster is the demonstration's",
            involvedObject={"kind": "Pod", "name": "front-0", "namespace": "shop"},
            firstTimestamp=started, lastTimestamp=started, count=1,
        )  # fmt: skip

    # --- one connection ----------------------------------------------------------------------------------------------

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answer requests until the caller hangs up."""
        http = h11.Connection(h11.SERVER)
        try:
            while isinstance(request := await _next(http, stream), h11.Request):
                body = b""
                while isinstance(event := await _next(http, stream), h11.Data):
                    body += event.data
                call = _Call(http, stream, request, body)
                try:
                    await self._answer(call)
                except (ValueError, LookupError, AttributeError):
                    await call.fail(400, "BadRequest", "the demonstration does not understand this request")
                if http.our_state is not h11.DONE:
                    return
                http.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            return
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(self, call: _Call) -> None:
        if self.token and call.header("authorization") != f"Bearer {self.token}":
            await call.fail(401, "Unauthorized", "Unauthorized")
        elif (fixed := self._fixed(call.path)) is not None:
            await call.send(200, fixed)
        elif call.path.endswith("/selfsubjectaccessreviews") and call.method == "POST":
            await self._review(call)
        elif call.path.endswith("/selfsubjectrulesreviews") and call.method == "POST":
            await call.send(201, _RULES)
        elif call.path.endswith("/log"):
            await self._log(call)
        else:
            await self._resource(call)

    def _fixed(self, path: str) -> dict[str, Any] | None:
        if path == "/version":
            return {"major": "1", "minor": "36", "gitVersion": VERSION, "platform": "demo"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        groups = sorted({kind.group for kind in KINDS if kind.group})
        if path == "/apis":
            found = [{"groupVersion": f"{group}/v1", "version": "v1"} for group in groups]
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [
                    {"name": group, "versions": [one], "preferredVersion": one}
                    for group, one in zip(groups, found, strict=True)
                ],
            }
        if path == "/openapi/v3":
            paths = sorted({kind.path for kind in KINDS})
            return {"paths": {one[1:]: {"serverRelativeURL": f"/openapi/v3{one}"} for one in paths}}
        if path.startswith("/openapi/v3/"):
            return _openapi([kind for kind in KINDS if kind.path == path.removeprefix("/openapi/v3")])
        mine = [kind for kind in KINDS if kind.path == path]
        if not mine:
            return None
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": mine[0].api_version,
            "resources": [
                {
                    "name": kind.plural,
                    "singularName": kind.name.lower(),
                    "kind": kind.name,
                    "namespaced": kind.namespaced,
                    "verbs": list(_READ),
                    "shortNames": list(kind.short),
                    "categories": ["all"] if kind in (POD, SERVICE, DEPLOYMENT) else [],
                }
                for kind in mine
            ],
        }

    async def _review(self, call: _Call) -> None:
        document = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}}
        # kubectl asks in protobuf, and understands an answer in JSON.
        document |= {"spec": _spec_of(call.body)} if call.body.startswith(b"k8s\0") else json.loads(call.body)
        asked = document["spec"].get("resourceAttributes", {})
        may = asked.get("verb") in _READ and asked.get("resource") != "secrets"
        status = {"allowed": may} if may else {"allowed": False, "reason": "the demonstration is for reading"}
        await call.send(201, document | {"status": status})

    async def _resource(self, call: _Call) -> None:
        found = _parse(call.path)
        if found is None:
            await call.fail(404, "NotFound", "the server could not find the requested resource")
            return
        kind, namespace, name = found
        if namespace in _HOSTILE:
            await call.send_octets(200, _HOSTILE[namespace])
            return
        if call.method != "GET":
            account = "system:serviceaccount:daalu-edge:daalu-edge"
            verb = {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(call.method, "delete")
            what = f'{kind.plural}{f" {chr(34)}{name}{chr(34)}" if name else ""} is forbidden: User "{account}"'
            group = f'resource "{kind.plural}" in API group "{kind.group}"'
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            text = f"{what} cannot {verb} {group}{where}"
            await call.fail(403, "Forbidden", text)
            return
        everything = self._objects.get((kind.group, kind.plural), [])
        mine = [one for one in everything if not namespace or one["metadata"].get("namespace") == namespace]
        mine = [one for one in mine if _is_selected(one, call.words)]
        if name:
            mine = [one for one in mine if one["metadata"]["name"] == name]
            if not mine:
                await call.fail(404, "NotFound", f'{kind.plural} "{name}" not found')
                return
        if call.words.get("watch") in ("1", "true"):
            await self._watch(call, kind, mine)
        elif "as=Table" in (call.header("accept") or ""):
            await call.send(200, _table(kind, mine))
        elif name:
            await call.send(200, mine[0])
        else:
            metadata = {"resourceVersion": str(next(self._numbers))}
            document = {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": metadata}
            await call.send(200, document | {"items": mine})

    async def _watch(self, call: _Call, kind: Kind, mine: list[dict[str, Any]]) -> None:
        is_table = "as=Table" in (call.header("accept") or "")
        first = [] if call.words.get("resourceVersion") else mine
        await call.begin(200, "application/json")
        self.open_streams += 1
        try:
            for one in first:
                shown = _table(kind, [one]) if is_table else one
                await call.piece(json.dumps({"type": "ADDED", "object": shown}).encode() + b"\n")
            await call.until_gone()
        finally:
            self.open_streams -= 1

    async def _log(self, call: _Call) -> None:
        """Lines for ever if followed, at once as many octets as `octets` says (which only the benchmarks ask for)."""
        left = int(call.words.get("octets") or 0)
        await call.begin(200, "text/plain")
        self.open_streams += 1
        lines = (_LINE + b"\n") * (_PIECE // (len(_LINE) + 1))
        try:
            while left > 0:
                await call.piece(lines[:left])
                left -= len(lines[:left])
            if call.words.get("octets"):
                await call.end()
                return
            tail = min(int(call.words.get("tailLines") or 5), 1000)
            await call.piece((_LINE + b"\n") * tail)
            if call.words.get("follow") not in ("1", "true"):
                await call.end()
                return
            async with trio.open_nursery() as nursery:

                async def until_gone() -> None:
                    await call.until_gone()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(until_gone)
                while True:
                    await trio.sleep(1)
                    await call.piece(_LINE + b"\n")
        finally:
            self.open_streams -= 1


class _Call:
    """One request and its answer."""

    def __init__(self, http: h11.Connection, stream: trio.abc.Stream, request: h11.Request, body: bytes) -> None:
        self._http = http
        self._stream = stream
        self.method = request.method.decode()
        target = request.target.decode("latin-1")
        self.path, _, query = target.partition("?")
        self.path = urllib.parse.unquote(self.path)
        self.words = dict(urllib.parse.parse_qsl(query))
        self._headers = {name.lower(): value.decode("latin-1") for name, value in request.headers}
        self.body = body

    def header(self, name: str) -> str | None:
        """A header."""
        return self._headers.get(name.encode())

    async def begin(self, status: int, content_type: str, length: int | None = None) -> None:
        """The head of the answer."""
        fields = [("content-type", content_type)]
        if length is not None:
            fields.append(("content-length", str(length)))
        await self._stream.send_all(self._http.send(h11.Response(status_code=status, headers=fields)) or b"")

    async def piece(self, octets: bytes) -> None:
        """Some of its body."""
        await self._stream.send_all(self._http.send(h11.Data(data=octets)) or b"")

    async def end(self) -> None:
        """Its end."""
        await self._stream.send_all(self._http.send(h11.EndOfMessage()) or b"")

    async def send(self, status: int, document: dict[str, Any]) -> None:
        """All of it."""
        await self.send_octets(status, json.dumps(document).encode())

    async def send_octets(self, status: int, octets: bytes) -> None:
        """All of it, whatever it is."""
        await self.begin(status, "application/json", len(octets))
        await self.piece(octets)
        await self.end()

    async def fail(self, status: int, reason: str, message: str) -> None:
        """A failure in Kubernetes' words."""
        document = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}}
        await self.send(status, document | {"message": message, "reason": reason, "code": status})

    async def until_gone(self) -> None:
        """Wait for the caller to hang up."""
        with contextlib.suppress(trio.BrokenResourceError):
            await self._stream.receive_some(1)


async def _next(http: h11.Connection, stream: trio.abc.Stream) -> Any:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some(65536)))
    return event


def _parse(path: str) -> tuple[Kind, str, str] | None:
    """Which resource a path means: kind, namespace, name; the last two may be empty."""
    for kind in KINDS:
        if path != kind.path and not path.startswith(kind.path + "/"):
            continue
        rest = path.removeprefix(kind.path).strip("/").split("/")
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        if rest[0] == kind.plural and len(rest) < 3:
            return kind, namespace, rest[1] if len(rest) == 2 else ""
    return None


def _fields(octets: bytes) -> dict[int, bytes]:
    """The length-delimited fields of a protobuf message; of each number the last."""
    found: dict[int, bytes] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (octets[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if octets[at - 1] < 128:
                return value

    while at < len(octets):
        tag = number()
        size = number()
        if tag & 7 == 2:
            found[tag >> 3] = octets[at : at + size]
            at += size
    return found


def _spec_of(body: bytes) -> dict[str, Any]:
    """The spec of a SelfSubjectAccessReview that came as protobuf: envelope, object, spec, attributes."""
    spec = _fields(_fields(_fields(body[4:])[2])[2])
    if 1 not in spec:
        return {}
    names = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name"}
    attributes = _fields(spec[1])
    return {"resourceAttributes": {names[at]: text.decode() for at, text in attributes.items() if at in names}}


def _is_selected(one: dict[str, Any], words: dict[str, str]) -> bool:
    labels = one["metadata"]["labels"]
    for term in filter(None, words.get("labelSelector", "").split(",")):
        key, _, value = term.partition("=")
        if labels.get(key) != value.lstrip("="):
            return False
    for term in filter(None, words.get("fieldSelector", "").split(",")):
        key, _, value = term.partition("=")
        found: Any = one
        for part in key.split("."):
            found = found.get(part, {}) if isinstance(found, dict) else {}
        if found != value.lstrip("="):
            return False
    return True


# Namespaces that answer as a hostile cluster would, for `python -m benchmarks hub --parts panel`: one wide cell beside
# many rows, small values without number, pages without end, text that is large and means nothing.
_HOSTILE: Final = {
    "hostile-cell": b'{"kind":"Table","columnDefinitions":[{"name":"A"},{"name":"B"}],"rows":[{"cells":["'
    + b"x" * 900_000 + b'","y"]}' + b',{"cells":["a","b"]}' * 40_000 + b"]}",
    "hostile-lists": b'{"kind":"Table","rows":[' + b"[]," * 1_300_000 + b"[]]}",
    "hostile-objects": b'{"kind":"Table","rows":[' + b'{"a":{}},' * 110_000 + b"{}]}",
    "hostile-pages": b'{"kind":"Table","metadata":{"continue":"x"},"columnDefinitions":[],"rows":[]}',
    "hostile-text": b"[" * 4_000_000,
}  # fmt: skip
# What the demonstration may do, for `auth can-i --list`.
_RULES: Final = {
    "apiVersion": "authorization.k8s.io/v1",
    "kind": "SelfSubjectRulesReview",
    "metadata": {},
    "spec": {},
    "status": {
        "incomplete": False,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}],
        "resourceRules": [
            {"verbs": list(_READ), "apiGroups": [kind.group], "resources": [kind.plural], "resourceNames": []}
            for kind in KINDS
        ],
    },
}
_TEXTS: Final = {
    "apiVersion": ("string", "The version of this representation of an object."),
    "kind": ("string", "The kind of this object."),
    "metadata": ("object", "Standard metadata of the object: its name, namespace and labels."),
    "spec": ("object", "What is wanted of the object."),
    "status": ("object", "What was seen of the object."),
}


def _openapi(kinds: list[Kind]) -> dict[str, Any] | None:
    """As much of a group's OpenAPI document as `kubectl explain` reads."""
    if not kinds:
        return None
    fields = {name: {"type": kind, "description": text} for name, (kind, text) in _TEXTS.items()}
    schemas = {
        f"io.k8s.api.{kind.group.partition('.')[0] or 'core'}.{kind.version}.{kind.name}": {
            "description": f"{kind.name} is a kind of object that the demonstration knows.",
            "type": "object",
            "properties": fields,
            "x-kubernetes-group-version-kind": [{"group": kind.group, "version": kind.version, "kind": kind.name}],
        }
        for kind in kinds
    }
    paths = {
        f"{kind.path}/{'namespaces/{namespace}/' if kind.namespaced else ''}{kind.plural}": {
            "get": {
                "x-kubernetes-action": "list",
                "x-kubernetes-group-version-kind": {
                    "group": kind.group, "version": kind.version, "kind": kind.name,
                },
            }
        }
        for kind in kinds
    }  # fmt: skip
    info = {"title": "demonstration", "version": VERSION}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _table(kind: Kind, objects: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "1"},
        "columnDefinitions": [
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": 0,
            }
            for name, _ in kind.columns
        ],
        "rows": [
            {
                "cells": [cell(one) for _, cell in kind.columns],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": one["metadata"],
                },
            }
            for one in objects
        ],
    }


@contextlib.asynccontextmanager
async def open_cluster(*, nodes: int = 3, port: int = 0, token: str | None = None) -> AsyncIterator[Cluster]:
    """A running API server on 127.0.0.1."""
    cluster = Cluster() if token is None else Cluster(token)
    cluster.populate(nodes)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        cluster.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, cluster.serve, listeners)
        yield cluster
        nursery.cancel_scope.cancel()


def main() -> None:
    """Run one until Ctrl-C; the first line says where it is, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__.split(":")[0])
    parser.add_argument("--nodes", type=int, default=3, help="how many nodes it has (default 3)")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: a free one)")
    given = parser.parse_args()

    async def run() -> None:
        async with open_cluster(nodes=given.nodes, port=given.port) as cluster:
            print(json.dumps({"url": cluster.url, "token": cluster.token}), flush=True)
            await trio.sleep_forever()

    with contextlib.suppress(KeyboardInterrupt):
        trio.run(run)
    sys.exit(0)


if __name__ == "__main__":
    main()
