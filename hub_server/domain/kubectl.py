"""How kubectl names things and prints them: resources, tables, ages, JSON and YAML. Pure text.

Source: k8s.io/cli-runtime and k8s.io/kubectl, release 1.36: printers/tableprinter.go, tabwriter.go, util/duration.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

__all__ = [
    "Resource",
    "age",
    "described",
    "find_resource",
    "resources_of_discovery",
    "seconds_of",
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


def resources_of_discovery(group: str, document: Mapping[str, Any]) -> list[Resource]:
    """Resources of one `APIResourceList`; subresources are left out."""
    version = str(document.get("groupVersion", "v1")).rpartition("/")[2]
    found = []
    for entry in document.get("resources") or ():
        name = str(entry.get("name", ""))
        if "/" in name or not name:
            continue
        found.append(
            Resource(
                group,
                version,
                name,
                str(entry.get("kind", "")),
                bool(entry.get("namespaced")),
                str(entry.get("singularName") or str(entry.get("kind", "")).lower()),
                tuple(str(one) for one in entry.get("shortNames") or ()),
                tuple(str(one) for one in entry.get("verbs") or ()),
                tuple(str(one) for one in entry.get("categories") or ()),
            )
        )
    return found


# --- printing --------------------------------------------------------------------------------------------------------

_LEAST_WIDTH: Final = 6
_GAP: Final = 3


def tabulated(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns as Go's tabwriter lays them out for kubectl: at least six wide, three apart, the last open."""
    if not rows:
        return ""
    columns = max(len(row) for row in rows)
    widths = [
        max((len(row[column]) + _GAP for row in rows if column < len(row) - 1), default=0) for column in range(columns)
    ]
    lines = []
    for row in rows:
        cells = [cell.ljust(max(widths[column], _LEAST_WIDTH)) for column, cell in enumerate(row[:-1])]
        lines.append("".join(cells) + (row[-1] if row else ""))
    return "".join(f"{line}\n" for line in lines)


def cell(value: Any) -> str:
    """One cell of a table: escaped as kubectl does, so that it stays one line."""
    if value is None:
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    # Only the first line is shown, with three dots for the rest.
    first, *others = re.split(r"[\n\r\f]", text, maxsplit=1)
    return first + "..." if others else first


def seconds_of(timestamp: str | None) -> float | None:
    """An RFC 3339 time as Unix seconds; None for none."""
    if not timestamp:
        return None
    try:
        return datetime.datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def age(seconds: float) -> str:
    """A span of time in at most two units, as `duration.HumanDuration` shortens it."""
    whole = int(seconds)
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


def to_json(value: Any) -> str:
    """As `-o json` prints it."""
    text = json.dumps(value, indent=4, sort_keys=True, ensure_ascii=False) + "\n"
    # As Go writes them, lest a browser takes them for HTML.
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# Strings that YAML would take for something else: numbers in every notation, dates, words for true and for nothing.
_NUMBER: Final = re.compile(
    r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?0[xX][0-9a-fA-F_]+|[-+]?0[bB][01_]+|[-+]?0[oO][0-7_]+"
    r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    r"|\d{4}-\d{1,2}-\d{1,2}([Tt ]+\d{1,2}:\d{1,2}:\d{1,2}(\.\d*)?.*)?"
)
_WORDS: Final = {"true", "false", "yes", "no", "on", "off", "null", "y", "n", "~", "", "<<"}
_LONGEST_LINE: Final = 80


def to_yaml(value: Any, indent: int = 0) -> str:
    """As `-o yaml` prints it: keys in order, strings quoted where they could be taken for something else."""
    pad = " " * indent
    if isinstance(value, Mapping) and value:
        lines = []
        for key in sorted(value):
            inner = value[key]
            if isinstance(inner, Mapping) and inner:
                lines.append(f"{pad}{_scalar(key)}:\n{to_yaml(inner, indent + 2)}")
            elif isinstance(inner, list) and inner:
                lines.append(f"{pad}{_scalar(key)}:\n{to_yaml(inner, indent)}")
            else:
                name = f"{pad}{_scalar(key)}: "
                lines.append(f"{name}{_scalar(inner, indent + 2, len(name))}\n")
        return "".join(lines)
    if isinstance(value, list) and value:
        lines = []
        for inner in value:
            if isinstance(inner, Mapping | list) and inner:
                body = to_yaml(inner, indent + 2)
                lines.append(f"{pad}- {body[indent + 2 :]}")
            else:
                lines.append(f"{pad}- {_scalar(inner, indent + 2, indent + 2)}\n")
        return "".join(lines)
    return f"{pad}{_scalar(value, indent)}\n"


def _scalar(value: Any, indent: int = 0, column: int = 0) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list):
        return "[]"
    text = str(value)
    if "\n" in text and text.isascii() and not text.startswith((" ", "\n")) and "\r" not in text:
        pad = " " * indent
        mark = "|" if text.endswith("\n") and not text.endswith("\n\n") else "|-" if not text.endswith("\n") else "|+"
        return f"{mark}\n" + "\n".join(f"{pad}{line}" if line else "" for line in text.rstrip("\n").split("\n"))
    if text.lower() in _WORDS or _NUMBER.fullmatch(text):
        return json.dumps(text, ensure_ascii=False)
    if not text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    if _may_be_plain(text):
        return _folded(text, indent, column)
    return _folded("'" + text.replace("'", "''") + "'", indent, column)


def _may_be_plain(text: str) -> bool:
    """Whether a string needs no quotes in YAML's block style."""
    if text[0] in "#,[]{}&*!|>'\"%@`" or text[0] == " " or text[-1] in " :":
        return False
    if text[0] in "-?:" and text[1:2] in ("", " "):
        return False
    return not (text.startswith(("---", "...")) or ": " in text or " #" in text)


def _folded(text: str, indent: int, column: int) -> str:
    """Break a line at single blanks past eighty columns."""
    shown: list[str] = []
    for at, one in enumerate(text):
        is_between = 0 < at < len(text) - 1 and text[at - 1] != " " and text[at + 1] != " "
        if one == " " and column > _LONGEST_LINE and is_between:
            shown.append("\n" + " " * indent)
            column = indent
        else:
            shown.append(one)
            column += 1
    return "".join(shown)


def _title(key: str) -> str:
    """`creationTimestamp` as `Creation Timestamp`; names with dots or slashes stay as they are."""
    if not re.fullmatch(r"[A-Za-z]+", key):
        return key
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", key).split()
    return " ".join(word[0].upper() + word[1:] for word in words)


def described(document: Mapping[str, Any]) -> str:
    """An object field by field, as kubectl describes kinds that it has no special words for."""
    metadata = document.get("metadata") or {}
    rows = [("Name:", str(metadata.get("name", "")))]
    if metadata.get("namespace"):
        rows.append(("Namespace:", str(metadata["namespace"])))
    for title, field in (("Labels:", "labels"), ("Annotations:", "annotations")):
        sign = "=" if field == "labels" else ": "
        pairs = [f"{key}{sign}{value}" for key, value in sorted((metadata.get(field) or {}).items())]
        for number, pair in enumerate(pairs or ["<none>"]):
            rows.append(("" if number else title, cell(pair)))
    rows += [("API Version:", str(document.get("apiVersion", ""))), ("Kind:", str(document.get("kind", "")))]
    lines = [f"{title:<14}{value}".rstrip() for title, value in rows]
    rest = {key: value for key, value in document.items() if key not in ("apiVersion", "kind", "metadata")}
    hidden = ("name", "namespace", "labels", "annotations", "managedFields")
    shown = {key: value for key, value in metadata.items() if key not in hidden}
    _describe({"metadata": shown, **rest}, 0, lines)
    return "".join(f"{line}\n" for line in lines)


def _describe(value: Mapping[str, Any], level: int, lines: list[str]) -> None:
    pad = "  " * level
    keys = sorted(value)
    width = max((len(_title(key)) + 3 for key in keys if not isinstance(value[key], Mapping | list)), default=0)
    for key in keys:
        inner, title = value[key], _title(key)
        if isinstance(inner, Mapping):
            lines.append(f"{pad}{title}:")
            _describe(inner, level + 1, lines)
        elif isinstance(inner, list):
            lines.append(f"{pad}{title}:")
            for one in inner:
                if isinstance(one, Mapping):
                    _describe(one, level + 1, lines)
                else:
                    lines.append(f"{pad}  {cell(one)}")
        else:
            lines.append(f"{pad}{title + ':':<{width}}{cell(inner)}".rstrip())
