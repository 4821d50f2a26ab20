"""`logs`: of one pod, or of the first pod of a workload."""

from __future__ import annotations

import json
import re
from typing import Any

from hub_server.domain import kubectl
from hub_server.domain.foreign import Document, ForeignError, digits
from hub_server.domain.panel import LineRefused
from hub_server.panel.frames import LONGEST_OUTPUT
from hub_server.panel.line import Failed, Line

__all__ = ["run"]

_SPAN = re.compile(r"(\d{1,9})([hms])", re.ASCII)
_SECONDS = {"h": 3600, "m": 60, "s": 1}


def run(line: Line) -> int:
    """Run it."""
    if not 1 <= len(line.command.words) <= 2:
        raise LineRefused("name one pod: logs POD [CONTAINER]")
    if line.command.is_set("all-namespaces"):
        raise LineRefused("logs are of one pod in one namespace")
    query = _query(line)
    pod = _pod(line)
    name = pod.text("metadata", "name", most=512)
    if not name:
        raise ForeignError("metadata.name", "missing")
    container = _container(line, pod)
    if container:
        query["container"] = container
    pods = kubectl.find_resource("pods")
    assert pods is not None, "everybody knows pods"
    line.text(f"{line.path(pods, name)}/log", query)
    return 0


def _pod(line: Line) -> Document:
    kind, _, name = line.command.words[0].rpartition("/")
    pods = kubectl.find_resource("pods")
    assert pods is not None, "everybody knows pods"
    if not kind or (resource := line.resource(kind)).plural == "pods":
        try:
            return line.ask(line.path(pods, name))
        except Failed as failure:
            if failure.status != 404:
                raise
            text = f"error: e{str(failure)[1:]}"  # in kubectl's own words, which are not those of `get`
            raise Failed(f"{text} in namespace {json.dumps(line.namespace)}", status=404) from None
    labels = line.ask(line.path(resource, name)).mapping("spec", "selector", "matchLabels", most=512)
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    found = (
        list(line.ask(line.path(pods), {"labelSelector": selector, "limit": 500}).items("items")) if selector else []
    )
    if not found:
        raise Failed(f"error: no pods of {line.command.words[0]} were found")
    if len(found) > 1:
        line.print(f"Found {len(found)} pods, using pod/{found[0].text('metadata', 'name') or ''}\n")
    return found[0]


def _container(line: Line, pod: Document) -> str:
    words = line.command.words
    chosen = line.command.flags.get("container") or (words[1] if len(words) > 1 else "")
    containers = [one.text("name", most=512) or "" for one in pod.items("spec", "containers")]
    if chosen or len(containers) < 2:
        return chosen
    annotations = pod.get("metadata", "annotations")
    default = annotations.text("kubectl.kubernetes.io/default-container", most=512)
    if not default:
        line.print(f'Defaulted container "{containers[0]}" out of: {", ".join(containers)}\n')
    return default or containers[0]


def _query(line: Line) -> dict[str, Any]:
    flags = line.command.flags
    query: dict[str, Any] = {"limitBytes": LONGEST_OUTPUT + 1}
    if "tail" in flags and flags["tail"] != "-1":
        query["tailLines"] = _whole(flags["tail"], "--tail")
    if "since" in flags:
        query["sinceSeconds"] = _span(flags["since"])
    if "limit-bytes" in flags:
        query["limitBytes"] = min(_whole(flags["limit-bytes"], "--limit-bytes"), LONGEST_OUTPUT + 1)
    for flag in ("follow", "previous", "timestamps"):
        if line.command.is_set(flag):
            query[flag] = "true"
    return query


def _whole(text: str, flag: str) -> int:
    try:
        return digits(flag, text, 0, 10**12)
    except ForeignError:
        raise LineRefused(f"{flag} needs a number") from None


def _span(text: str) -> int:
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text or len(parts) > 3:
        raise LineRefused("--since needs a span such as 5s, 2m or 3h")
    seconds = sum(digits("--since", number.lstrip("0") or "0", 0, 10**9) * _SECONDS[unit] for number, unit in parts)
    return max(1, seconds)
