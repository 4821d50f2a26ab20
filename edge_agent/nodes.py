"""The cluster's nodes, trimmed to what the operator's table shows, followed by a watch.

    list in pages -> watch -> table -> `nodes` messages in parts that fit a control line

Names and labels are passed on as they are: the hub treats them as hostile text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Final

import trio

from edge_agent.foreign import Document, ForeignError, cleaned, moment
from edge_agent.kube import Kube, KubeError, Unreachable

__all__ = ["MOST_NODES", "NodeTable", "follow_nodes", "parts_of", "summary_of"]

_log = logging.getLogger("edge.nodes")

MOST_NODES: Final = 5000
_PART_OCTETS: Final = 48 * 1024
_ROLE: Final = "node-role.kubernetes.io/"
_LONGEST_NAME: Final = 253
_MOST_ROLES: Final = 64
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


def summary_of(node: Document) -> dict[str, Any]:
    """What is shown of a node.

    Raises:
        ForeignError: it is none.
    """
    labels = node.mapping("metadata", "labels")
    conditions = {one.text("type"): one.text("status") for one in node.items("status", "conditions")}
    roles = {name.removeprefix(_ROLE) for name in labels if name.startswith(_ROLE)}
    roles.add(labels.get("kubernetes.io/role", ""))
    created = node.text("metadata", "creationTimestamp")
    return {
        "name": node.line("metadata", "name", most=_LONGEST_NAME),
        "ready": conditions.get("Ready") == "True",
        "schedulable": not node.truth("spec", "unschedulable"),
        "roles": sorted(cleaned(role, _LONGEST_NAME) for role in roles if role)[:_MOST_ROLES],
        "version": cleaned(node.text("status", "nodeInfo", "kubeletVersion"), 60),
        "created": round(moment("metadata.creationTimestamp", created)) if created else 0,
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

    def listed(nodes: list[Document]) -> None:
        table.problem = ""
        rows = [row for row in map(_row_of, nodes) if row is not None]
        table.replace({row["name"]: row for row in rows})

    def changed(kind: str, node: Document) -> None:
        row = _row_of(node)
        if row is not None and kind == "DELETED":
            table.drop(row["name"])
        elif row is not None:
            table.put(row)

    def failed(problem: KubeError | Unreachable) -> None:
        _log.info("nodes: %s", problem)
        if isinstance(problem, Unreachable):
            on_trouble()
        else:
            table.problem = problem.message if problem.status == 403 else ""

    await kube.follow("/api/v1/nodes", listed=listed, changed=changed, failed=failed, most=MOST_NODES)


def _row_of(node: Document) -> dict[str, Any] | None:
    """A row; one node that makes no sense is left out, and the others are shown."""
    try:
        return summary_of(node)
    except ForeignError as problem:
        _log.warning("a node is left out: %s", problem)
        return None
