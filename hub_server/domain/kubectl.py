"""How kubectl names things and prints them: resources, tables, ages, JSON and YAML. Pure text.

Source: k8s.io/cli-runtime and k8s.io/kubectl, release 1.36: printers/tableprinter.go, tabwriter.go, util/duration.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import yaml

from hub_server.domain.foreign import Document

__all__ = [
    "Resource",
    "age",
    "cell",
    "described",
    "find_resource",
    "list_to_json",
    "list_to_yaml",
    "resources_of_discovery",
    "tabulated",
    "to_json",
    "to_yaml",
]


class Resource(NamedTuple):
    """One kind of object, as discovery names it."""

    group: str
    version: str
    plural: str
    kind: str
    is_namespaced: bool
    singular: str
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Of its group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def named(self) -> str:
        """As `-o name` prefixes it."""
        return f"{self.singular}.{self.group}" if self.group else self.singular


def _known(group: str, version: str, rows: str) -> list[Resource]:
    found = []
    for row in rows.split():
        plural, kind, scope, *short = row.split(":")
        found.append(Resource(group, version, plural, kind, scope == "n", kind.lower(), tuple(short)))
    return found


# What most lines are about is known without asking; everything else is looked up in the cluster.
_KNOWN: Final = [
    *_known(
        "",
        "v1",
        "pods:Pod:n:po services:Service:n:svc nodes:Node:c:no events:Event:n:ev namespaces:Namespace:c:ns "
        "configmaps:ConfigMap:n:cm secrets:Secret:n serviceaccounts:ServiceAccount:n:sa endpoints:Endpoints:n:ep "
        "persistentvolumes:PersistentVolume:c:pv persistentvolumeclaims:PersistentVolumeClaim:n:pvc",
    ),
    *_known(
        "apps",
        "v1",
        "deployments:Deployment:n:deploy statefulsets:StatefulSet:n:sts daemonsets:DaemonSet:n:ds "
        "replicasets:ReplicaSet:n:rs",
    ),
    *_known("batch", "v1", "jobs:Job:n cronjobs:CronJob:n:cj"),
    *_known("networking.k8s.io", "v1", "ingresses:Ingress:n:ing networkpolicies:NetworkPolicy:n:netpol"),
]


def find_resource(word: str, more: Iterable[Resource] = ()) -> Resource | None:
    """What `pods`, `pod`, `po`, `deployments.apps` or `deployments.v1.apps` means; None if nothing."""
    name, _, group = word.lower().partition(".")
    for resource in [*_KNOWN, *more]:
        if name in (resource.plural, resource.singular, *resource.short):
            version = resource.version
            if not group or resource.group in (group, group.removeprefix(f"{version}.")) or group == version:
                return resource
    return None


def resources_of_discovery(group: str, document: Document) -> list[Resource]:
    """Resources of one `APIResourceList`; subresources are left out.

    Raises:
        ForeignError: it is none.
    """
    version = (document.text("groupVersion", most=512) or "v1").rpartition("/")[2]
    found = []
    for entry in document.items("resources"):
        name, kind = entry.text("name", most=512) or "", entry.text("kind", most=512) or ""
        if "/" in name or not name:
            continue
        found.append(
            Resource(
                group,
                version,
                name,
                kind,
                entry.truth("namespaced") is True,
                entry.text("singularName", most=512) or kind.lower(),
                entry.texts("shortNames"),
                entry.texts("verbs"),
                entry.texts("categories"),
            )
        )
    return found


# --- printing --------------------------------------------------------------------------------------------------------

_LEAST_WIDTH: Final = 6
_GAP: Final = 3


def tabulated(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of rows in columns as Go's tabwriter lays them out: at least six wide, three apart, the last open.

    One wide cell makes every row as wide, so lines are made one by one: who prints them stops where it has enough.
    """
    columns = max(map(len, rows), default=0)
    widths = [
        max((len(row[column]) + _GAP for row in rows if column < len(row) - 1), default=0) for column in range(columns)
    ]
    for row in rows:
        cells = [cell.ljust(max(widths[column], _LEAST_WIDTH)) for column, cell in enumerate(row[:-1])]
        yield "".join(cells) + (row[-1] if row else "") + "\n"


def cell(value: Any) -> str:
    """One cell of a table: escaped as kubectl does, so that it stays one line."""
    if value is None:
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    # Only the first line is shown, with three dots for the rest.
    first, *others = re.split(r"[\n\r\f]", text, maxsplit=1)
    # What could move a terminal's cursor is written out, as kubectl does.
    return (first + "..." if others else first).replace("\x1b", "^[")


def age(seconds: float) -> str:
    """A span of time in at most two units, as `duration.HumanDuration` shortens it."""
    whole = math.trunc(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = whole // 3600
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = hours // 24 // 365
    if years < 8:
        rest = days % 365
        return f"{years}y{rest}d" if rest else f"{years}y"
    return f"{years}y"


def to_json(value: Any) -> Iterator[str]:
    """As `-o json` prints it, in pieces."""
    yield from _encoded(value)
    yield "\n"


def _encoded(value: Any) -> Iterator[str]:
    encoder = json.JSONEncoder(indent=4, sort_keys=True, ensure_ascii=False)
    for piece in encoder.iterencode(value):
        # As Go writes them, lest a browser takes them for HTML.
        yield piece.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def to_yaml(value: Any) -> Iterator[str]:
    """As `-o yaml` prints it."""
    yield yaml.dump(value, Dumper=_Dumper, allow_unicode=True)


def list_to_json(items: Iterable[Any]) -> Iterator[str]:
    """As `-o json` prints a List of objects."""
    yield '{\n    "apiVersion": "v1",\n    "items": ['
    is_first = True
    for item in items:
        yield "\n        " if is_first else ",\n        "
        is_first = False
        for piece in _encoded(item):
            # A line break within a string is written as an escape, so each of these ends a line.
            yield piece.replace("\n", "\n        ")
    yield "" if is_first else "\n    "
    yield '],\n    "kind": "List",\n    "metadata": {\n        "resourceVersion": ""\n    }\n}\n'


def list_to_yaml(items: Iterable[Any]) -> Iterator[str]:
    """As `-o yaml` prints a List of objects."""
    is_first = True
    for item in items:
        if is_first:
            yield "apiVersion: v1\nitems:\n"
        is_first = False
        for piece in to_yaml([item]):
            # The mark that ends a document, after a text that ends in empty lines.
            yield piece.removesuffix("...\n")
    if is_first:
        yield "apiVersion: v1\nitems: []\n"
    yield 'kind: List\nmetadata:\n  resourceVersion: ""\n'


# What readers of YAML 1.1 or 1.2 take for something else: numbers in every notation, dates, words for true and nothing.
_NUMBER: Final = re.compile(
    r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?0[xX][0-9a-fA-F_]+|[-+]?0[bB][01_]+|[-+]?0[oO][0-7_]+"
    r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    r"|\d{4}-\d{1,2}-\d{1,2}([Tt ]+\d{1,2}:\d{1,2}:\d{1,2}(\.\d*)?.*)?"
)
_WORDS: Final = {"true", "false", "yes", "no", "on", "off", "null", "y", "n", "~", "", "<<", "="}


class _Dumper(yaml.CSafeDumper):
    """PyYAML with the quotes of kubectl."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _of_string(dumper: _Dumper, text: str) -> Any:
    style = None
    if "\n" in text:
        style = "|"
    elif text.lower() in _WORDS or _NUMBER.fullmatch(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _of_string)


def _title(key: str) -> str:
    """`creationTimestamp` as `Creation Timestamp`; names with dots or slashes stay as they are."""
    if not re.fullmatch(r"[A-Za-z]+", key):
        return key
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", key).split()
    return " ".join(word[0].upper() + word[1:] for word in words)


def described(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines of an object field by field, as kubectl describes kinds that it has no special words for.

    Raises:
        ForeignError: its metadata are none.
    """
    reader = Document(document)
    metadata = reader.get("metadata")
    rows = [("Name:", metadata.text("name") or "")]
    if namespace := metadata.text("namespace"):
        rows.append(("Namespace:", namespace))
    for title, field in (("Labels:", "labels"), ("Annotations:", "annotations")):
        sign = "=" if field == "labels" else ": "
        pairs = [f"{key}{sign}{value}" for key, value in sorted(metadata.mapping(field).items())]
        for number, pair in enumerate(pairs or ["<none>"]):
            rows.append(("" if number else title, pair))
    rows += [("API Version:", reader.text("apiVersion") or ""), ("Kind:", reader.text("kind") or "")]
    for title, value in rows:
        yield f"{title:<14}{cell(value)}".rstrip() + "\n"
    rest = {key: value for key, value in document.items() if key not in ("apiVersion", "kind", "metadata")}
    hidden = ("name", "namespace", "labels", "annotations", "managedFields")
    shown = {name: metadata.raw(name) for name in metadata if name not in hidden}
    yield from _described({"metadata": shown, **rest}, 0)


def _described(value: Mapping[str, Any], level: int) -> Iterator[str]:
    pad = "  " * level
    keys = sorted(value)
    width = max((len(_title(key)) + 3 for key in keys if not isinstance(value[key], Mapping | list)), default=0)
    for key in keys:
        inner, title = value[key], cell(_title(key))
        if isinstance(inner, Mapping):
            yield f"{pad}{title}:\n"
            yield from _described(inner, level + 1)
        elif isinstance(inner, list):
            yield f"{pad}{title}:\n"
            for one in inner:
                if isinstance(one, Mapping):
                    yield from _described(one, level + 1)
                else:
                    yield f"{pad}  {cell(one)}\n"
        else:
            yield f"{pad}{title + ':':<{width}}{cell(inner)}".rstrip() + "\n"
