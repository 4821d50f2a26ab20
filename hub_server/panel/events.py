"""`events`: what happened, as kubectl lays it out; also the events that `describe` ends with."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hub_server.domain.foreign import Document
from hub_server.domain.kubectl import age, cell, tabulated
from hub_server.domain.panel import LineRefused
from hub_server.panel.frames import LONGEST_OUTPUT
from hub_server.panel.line import Failed, Line, quoted

__all__ = ["of_object", "run"]


def run(line: Line) -> int:
    """Run it."""
    flags = line.command.flags
    if line.command.words:
        raise LineRefused("`events` takes flags only, such as --for pod/NAME")
    query: dict[str, str] = {}
    wanted = flags.get("for")
    if wanted is not None:
        kind, _, name = wanted.partition("/")
        if not name:
            raise LineRefused("--for needs TYPE/NAME")
        query["fieldSelector"] = f"involvedObject.kind={line.resource(kind).kind},involvedObject.name={name}"
    kinds = {one.lower() for one in flags.get("types", "").split(",") if one}
    found: list[tuple[float, list[str]]] = []
    octets = 0
    for page in line.pages(_path(line.namespace), query):
        for event in page.items("items"):
            kind = event.text("type") or ""
            if kinds and kind.lower() not in kinds:
                continue
            row = [_seen(line, event), kind, event.text("reason") or ""]
            about = event.get("involvedObject")
            row += [f"{about.text('kind') or ''}/{about.text('name') or ''}", _message(event)]
            if not line.namespace:
                row.insert(0, event.text("metadata", "namespace") or "")
            row = [cell(one) for one in row]
            octets += sum(map(len, row))
            found.append((_last_seen(event), row))
        if octets > LONGEST_OUTPUT:
            break
    if not found:
        line.print(f"No events found in {line.namespace} namespace.\n" if line.namespace else "No events found.\n")
        return 0
    head = [*([] if line.namespace else ["NAMESPACE"]), "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    rows = [row for _, row in sorted(found, key=lambda one: one[0])]
    line.print_rows(rows if line.command.is_set("no-headers") else [head, *rows])
    return 0


def of_object(line: Line, metadata: Document) -> Iterable[str]:
    """The last part of a description; empty where events may not be read."""
    name, uid = metadata.text("name") or "", metadata.text("uid") or ""
    selector = f"involvedObject.name={name},involvedObject.uid={uid}"
    try:
        page = line.ask(_path(metadata.text("namespace") or ""), {"fieldSelector": selector, "limit": 100})
    except Failed:
        return []
    rows = [
        [*(event.text(name) or "" for name in ("type", "reason")), _seen(line, event), _source(event), _message(event)]
        for event in page.items("items")
    ]
    if not rows:
        return ["Events:        <none>\n"]
    heads = [["Type", "Reason", "Age", "From", "Message"], ["----", "------", "----", "----", "-------"]]
    lines = [["  " + cell(row[0]), *(cell(one) for one in row[1:])] for row in heads + rows]
    return itertools.chain(["Events:\n"], tabulated(lines))


def _path(namespace: str) -> str:
    return f"/api/v1/namespaces/{quoted(namespace)}/events" if namespace else "/api/v1/events"


def _source(event: Document) -> str:
    return event.text("source", "component") or event.text("reportingComponent") or ""


def _message(event: Document) -> str:
    return (event.text("message") or "").strip()


def _last_seen(event: Document) -> float:
    paths = (("series", "lastObservedTime"), ("lastTimestamp",), ("eventTime",), ("firstTimestamp",))
    return next((at for path in paths if (at := event.time(*path)) is not None), 0.0)


def _seen(line: Line, event: Document) -> str:
    seen = _last_seen(event)
    last = age(line.now - seen) if seen else "<unknown>"
    count = event.integer("series", "count") or event.integer("count") or 1
    first = event.time("firstTimestamp") or event.time("eventTime")
    if count > 1 and first is not None:
        return f"{last} (x{count} over {age(line.now - first)})"
    return last
