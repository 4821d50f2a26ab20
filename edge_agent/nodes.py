"""The cluster's nodes, trimmed to what the operator's table shows, followed by a watch.

    list in pages -> watch -> table -> `nodes` messages in parts that fit a control line

Names and labels are passed on as they are: the hub treats them as hostile text.
"""

from __future__ import annotations

import datetime
import json
import logging
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from edge_agent.kube import Kube, KubeError, Unreachable

__all__ = ["MOST_NODES", "NodeTable", "follow_nodes", "parts_of", "summary_of"]

_log = logging.getLogger("edge.nodes")

MOST_NODES: Final = 5000
_PAGE: Final = 250
_PART_OCTETS: Final = 48 * 1024
_RETRY: Final = (1.0, 30.0)
# Between one watch and the next, for a server that ends each at once.
_PAUSE: Final = 0.2
_ROLE: Final = "node-role.kubernetes.io/"
_PRESSURES: Final = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")


class NodeTable:
    """The newest summary of every node.

    Attributes:
        generation: grows with every change.
        rows: by name; None before the first list.
        problem: the API server's words when it refuses the list.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self.generation = 0
        self.rows: dict[str, dict[str, Any]] | None = None
        self.problem = ""
        self._news = trio.Event()

    async def changed(self) -> None:
        """Return at the next change."""
        await self._news.wait()

    def replace(self, rows: dict[str, dict[str, Any]]) -> None:
        """Take a whole list."""
        if rows != self.rows:
            self.rows = rows
            self._changed()

    def put(self, row: dict[str, Any]) -> None:
        """Take one node; a status update that changes nothing we show is no change."""
        rows = self.rows
        if rows is not None and rows.get(row["name"]) != row and (row["name"] in rows or len(rows) < MOST_NODES):
            rows[row["name"]] = row
            self._changed()

    def drop(self, name: str) -> None:
        """A node is gone."""
        if self.rows is not None and self.rows.pop(name, None) is not None:
            self._changed()

    def _changed(self) -> None:
        self.generation += 1
        news, self._news = self._news, trio.Event()
        news.set()


def summary_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of a node."""
    metadata = node.get("metadata") or {}
    spec = node.get("spec") or {}
    status = node.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {str(one.get("type")): str(one.get("status")) for one in status.get("conditions") or []}
    roles = {name.removeprefix(_ROLE) for name in labels if name.startswith(_ROLE)}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    return {
        "name": str(metadata.get("name", "")),
        "ready": conditions.get("Ready") == "True",
        "schedulable": not spec.get("unschedulable", False),
        "roles": sorted(role for role in roles if role),
        "version": str((status.get("nodeInfo") or {}).get("kubeletVersion", "")),
        "created": _unix(metadata.get("creationTimestamp")),
        "conditions": [name for name in _PRESSURES if conditions.get(name) == "True"],
    }


def parts_of(table: NodeTable) -> list[dict[str, Any]]:
    """The messages that carry the table, in order."""
    groups: list[list[dict[str, Any]]] = [[]]
    size = 0
    for _, row in sorted((table.rows or {}).items()):
        octets = len(json.dumps(row))
        if groups[-1] and size + octets > _PART_OCTETS:
            groups.append([])
            size = 0
        groups[-1].append(row)
        size += octets + 2
    return [
        {
            "type": "nodes",
            "generation": table.generation,
            "part": number,
            "last": number == len(groups) - 1,
            "nodes": rows,
        }
        for number, rows in enumerate(groups)
    ]


async def follow_nodes(kube: Kube, table: NodeTable, *, on_trouble: Callable[[], None] = lambda: None) -> None:
    """Keep the table true, for ever.

    Args:
        kube: of the cluster.
        table: to keep.
        on_trouble: called when the API server stops answering, to look at it at once.
    """
    delay, most = _RETRY
    while True:
        try:
            version = await _list(kube, table)
            table.problem = ""
            delay = _RETRY[0]
            while True:
                version = await _watch(kube, table, version)
                await trio.sleep(_PAUSE)
        except KubeError as problem:
            table.problem = problem.message if problem.status == 403 else ""
            _log.info("nodes: %s", problem)
        except Unreachable as problem:
            _log.info("nodes: %s", problem)
            on_trouble()
        await trio.sleep(delay)
        delay = min(delay * 2, most)


async def _list(kube: Kube, table: NodeTable) -> str:
    rows: dict[str, dict[str, Any]] = {}
    path = f"/api/v1/nodes?limit={_PAGE}"
    while True:
        page = await kube.get(path)
        for node in page.get("items") or []:
            row = summary_of(node)
            rows[row["name"]] = row
        metadata = page.get("metadata") or {}
        if not metadata.get("continue") or len(rows) >= MOST_NODES:
            table.replace(dict(list(rows.items())[:MOST_NODES]))
            return str(metadata.get("resourceVersion", ""))
        path = f"/api/v1/nodes?limit={_PAGE}&continue={urllib.parse.quote(str(metadata['continue']), safe='')}"


async def _watch(kube: Kube, table: NodeTable, version: str) -> str:
    newest = version

    def handle(event: dict[str, Any]) -> None:
        nonlocal newest
        node = event.get("object") or {}
        newest = str((node.get("metadata") or {}).get("resourceVersion") or newest)
        match event.get("type"):
            case "ADDED" | "MODIFIED":
                table.put(summary_of(node))
            case "DELETED":
                table.drop(str((node.get("metadata") or {}).get("name", "")))
            case _:
                pass  # bookmarks

    await kube.watch("/api/v1/nodes", {"resourceVersion": version, "allowWatchBookmarks": "true"}, handle)
    return newest


def _unix(text: object) -> int:
    try:
        return int(datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp())
    except ValueError:
        return 0
