"""`get`: the tables that the API server makes, in kubectl's columns; and documents as JSON or YAML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from hub_server.domain import kubectl
from hub_server.domain.foreign import Document, ForeignError
from hub_server.domain.kubectl import Resource, cell
from hub_server.domain.panel import LineRefused
from hub_server.panel.frames import LONGEST_OUTPUT
from hub_server.panel.line import Failed, Line

__all__ = ["named_targets", "run"]

_TABLE: Final = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)


def named_targets(line: Line) -> list[tuple[str, list[str]]]:
    """`pods a b`, `pods,svc`, `all` and `pod/a svc/b` to resource words and names."""
    words = line.command.words
    if not words:
        raise LineRefused("name a resource, such as: get pods")
    if any("/" in word for word in words):
        pairs = [word.split("/") for word in words]
        if any(len(pair) != 2 or not all(pair) for pair in pairs):
            raise LineRefused("either TYPE NAME, or TYPE/NAME throughout")
        return [(kind, [name]) for kind, name in pairs]
    kinds: list[str] = []
    for word in filter(None, words[0].split(",")):
        if word != "all":
            kinds.append(word)
            continue
        every = [one for group in line.discovered() for one in group if "all" in one.categories]
        kinds += [f"{one.plural}.{one.group}" if one.group else one.plural for one in every] or [word]
    if not kinds:
        raise LineRefused("name a resource, such as: get pods")
    return [(kind, list(words[1:])) for kind in kinds]


def run(line: Line) -> int:
    """Run it."""
    targets = named_targets(line)
    output = line.command.flags.get("output", "")
    if output in ("json", "yaml"):
        return _print_documents(line, targets, output)
    has_several = len(targets) > 1
    found_any = False
    left: list[Failed] = []
    scopes = []
    for word, names in targets:
        resource = line.resource(word)
        scopes.append(resource.is_namespaced)
        prefix = f"{resource.named}/" if has_several or line.command.is_set("show-kind") else ""
        failures: list[Failed] = []
        try:
            table = _table(line, resource, names, prefix, failures)
        except Failed as failure:
            if not has_several:
                raise
            table, failures = _Table(), [failure]
        if line.command.is_set("ignore-not-found"):
            failures = [one for one in failures if one.status != 404]
        left += failures
        if not table.rows:
            continue
        if found_any and output != "name":
            line.print("\n")
        found_any = True
        if output == "name":
            for row in table.rows:
                line.print(f"{resource.named}/{row[0]}\n")
        else:
            line.print_rows(table.rows if line.command.is_set("no-headers") else [table.head, *table.rows])
    if left and not found_any and len(left) == 1:
        raise left[0]
    for one in left:
        line.print(f"{one}\n")
    if not found_any and not left and not line.command.is_set("ignore-not-found"):
        where = f" in {line.namespace} namespace" if line.namespace and any(scopes) else ""
        line.print(f"No resources found{where}.\n" if where else "No resources found\n")
    return 1 if left else 0


# --- tables ----------------------------------------------------------------------------------------------------------


@dataclass
class _Table:
    """What is to be printed: the head of the first page that has one, and rows of text."""

    head: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    octets: int = 0


def _table(line: Line, resource: Resource, names: list[str], prefix: str, failures: list[Failed]) -> _Table:
    """Rows of a collection, page by page, or of the objects that are named; those that fail hide no other."""
    table = _Table()
    if not names:
        for page in line.pages(line.path(resource), line.selectors, accept=_TABLE):
            _take(line, table, page, resource, prefix)
            # More would not be printed.
            if table.octets > LONGEST_OUTPUT:
                break
        return table
    if line.command.is_set("all-namespaces") and resource.is_namespaced:
        raise Failed("error: a resource cannot be retrieved by name across all namespaces")
    for name in names:
        try:
            _take(line, table, line.ask(line.path(resource, name), accept=_TABLE), resource, prefix)
        except Failed as failure:
            failures.append(failure)
    return table


def _take(line: Line, table: _Table, page: Document, resource: Resource, prefix: str) -> None:
    if page.text("kind") != "Table":
        raise Failed("error: the cluster did not answer with a table")
    flags = line.command.flags
    is_name = flags.get("output") == "name"
    is_wide = flags.get("output") == "wide"
    definitions = list(page.items("columnDefinitions"))
    shown = [at for at, one in enumerate(definitions) if is_wide or not one.integer("priority")]
    is_named = [one.text("format") == "name" for one in definitions]
    labels = [one for one in flags.get("label-columns", "").split(",") if one]
    with_namespace = line.command.is_set("all-namespaces") and resource.is_namespaced
    if not table.head:
        table.head = ["NAMESPACE"] if with_namespace else []
        table.head += [cell(definitions[at].text("name") or "").upper() for at in shown]
        table.head += [label.rpartition("/")[2].upper() for label in labels]
        table.head += ["LABELS"] if line.command.is_set("show-labels") else []
    for row in page.items("rows"):
        metadata = row.get("object", "metadata")
        if is_name:
            cells = [metadata.text("name") or ""]
        else:
            cells = [cell(metadata.text("namespace") or "")] if with_namespace else []
            values = row.list("cells")
            for at in shown:
                text = cell(values[at]) if at < len(values) else ""
                cells.append(prefix + text if prefix and is_named[at] else text)
            own = metadata.mapping("labels") if labels or line.command.is_set("show-labels") else {}
            cells += [cell(own.get(label, "<none>")) for label in labels]
            if line.command.is_set("show-labels"):
                cells.append(cell(",".join(f"{key}={value}" for key, value in sorted(own.items())) or "<none>"))
        table.rows.append(cells)
        table.octets += sum(map(len, cells)) + len(cells)


# --- documents -------------------------------------------------------------------------------------------------------


def _print_documents(line: Line, targets: list[tuple[str, list[str]]], output: str) -> int:
    """One object as it is; several, or a collection, as a List, printed as it comes."""
    is_json = output == "json"
    if len(targets) == 1 and len(targets[0][1]) == 1:
        ((word, names),) = targets
        resource = line.resource(word)
        try:
            document = _bare(line.ask(line.path(resource, names[0])).raw())
            line.print_all(kubectl.to_json(document) if is_json else kubectl.to_yaml(document))
        except Failed as failure:
            if failure.status != 404 or not line.command.is_set("ignore-not-found"):
                raise
        return 0
    failures: list[Failed] = []
    documents = _documents(line, targets, failures)
    line.print_all(kubectl.list_to_json(documents) if is_json else kubectl.list_to_yaml(documents))
    for one in failures:
        line.print(f"{one}\n")
    return 1 if failures else 0


def _documents(line: Line, targets: list[tuple[str, list[str]]], failures: list[Failed]) -> Iterator[dict[str, Any]]:
    for word, names in targets:
        resource = line.resource(word)
        if not names:
            for one in line.objects(line.path(resource), line.selectors):
                yield _bare(one)
        for name in names:
            try:
                yield _bare(line.ask(line.path(resource, name)).raw())
            except Failed as failure:
                if failure.status != 404 or not line.command.is_set("ignore-not-found"):
                    failures.append(failure)


def _bare(document: dict[str, Any]) -> dict[str, Any]:
    """Without the field that kubectl hides too."""
    metadata = document.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise ForeignError("metadata", "expected an object")
    if metadata:
        metadata.pop("managedFields", None)
    return document
