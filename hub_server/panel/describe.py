"""`describe`: objects field by field, and their events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hub_server.domain import kubectl
from hub_server.domain.foreign import Document
from hub_server.panel import events
from hub_server.panel.get import named_targets
from hub_server.panel.line import Line

__all__ = ["run"]


def run(line: Line) -> int:
    """Run it."""
    is_first = True
    for document in _documents(line):
        line.print("" if is_first else "\n\n")
        is_first = False
        line.print_all(kubectl.described(document))
        if line.command.flags.get("show-events") != "false":
            line.print_all(events.of_object(line, Document(document).get("metadata")))
    if is_first:
        line.print("No resources found\n")
    return 0


def _documents(line: Line) -> Iterator[dict[str, Any]]:
    for word, names in named_targets(line):
        resource = line.resource(word)
        if not names:
            yield from line.objects(line.path(resource), line.selectors)
        for name in names:
            yield line.ask(line.path(resource, name)).raw()
