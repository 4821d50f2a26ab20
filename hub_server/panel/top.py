"""`top`: what nodes and pods use, where the cluster measures it."""

from __future__ import annotations

import re
from typing import Final

from hub_server.domain.foreign import Document, decimal
from hub_server.domain.kubectl import cell
from hub_server.domain.panel import LineRefused
from hub_server.panel.line import Failed, Line, quoted

__all__ = ["run"]

_METRICS: Final = "/apis/metrics.k8s.io/v1beta1"
_QUANTITY: Final = re.compile(r"0*([0-9]{1,15}(?:\.[0-9]{1,9})?)(n|u|m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?", re.ASCII)
_UNITS: Final = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip


def run(line: Line) -> int:
    """Run it."""
    words = line.command.words
    if not words or words[0] not in ("node", "nodes", "no", "pod", "pods", "po") or len(words) > 2:
        raise LineRefused("top nodes [NAME], or top pods [NAME]")
    is_nodes = words[0].startswith("no")
    found = sorted(_measured(line, is_nodes), key=lambda one: one.text("metadata", "name") or "")
    rows = _of_nodes(line, found) if is_nodes else _of_pods(line, found)
    if not rows:
        line.print(f"No resources found in {line.namespace} namespace.\n" if line.namespace else "No resources found\n")
        return 0
    head = ["CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"] if is_nodes else ["CPU(cores)", "MEMORY(bytes)"]
    head = [*(["NAMESPACE"] if not is_nodes and not line.namespace else []), "NAME", *head]
    line.print_rows(rows if line.command.is_set("no-headers") else [head, *rows])
    return 0


def _measured(line: Line, is_nodes: bool) -> list[Document]:
    words = line.command.words
    path = _METRICS
    if not is_nodes and line.namespace:
        path += f"/namespaces/{quoted(line.namespace)}"
    path += "/nodes" if is_nodes else "/pods"
    if len(words) == 2:
        return [line.ask(f"{path}/{quoted(words[1])}")]
    try:
        return list(line.ask(path, line.selectors).items("items"))
    except Failed as failure:
        if failure.status in (404, 503):
            raise Failed("error: Metrics API not available") from None
        raise


def _of_nodes(line: Line, found: list[Document]) -> list[list[str]]:
    wanted = {one.text("metadata", "name") or "" for one in found}
    whole: dict[str, tuple[float, float]] = {}
    for page in line.pages("/api/v1/nodes"):
        for node in page.items("items"):
            if (name := node.text("metadata", "name") or "") in wanted:
                whole[name] = _used(node.get("status", "allocatable"))
    rows = []
    for one in found:
        name = one.text("metadata", "name") or ""
        cpu, memory = _used(one.get("usage"))
        all_cpu, all_memory = whole.get(name, (0.0, 0.0))
        shown = [_cores(cpu), _share(cpu, all_cpu), f"{int(memory / 2**20)}Mi", _share(memory, all_memory)]
        rows.append([cell(name), *shown])
    return rows


def _of_pods(line: Line, found: list[Document]) -> list[list[str]]:
    rows = []
    for one in found:
        uses = [_used(container.get("usage")) for container in one.items("containers")]
        row = [] if line.namespace else [cell(one.text("metadata", "namespace") or "")]
        row += [cell(one.text("metadata", "name") or ""), _cores(sum(cpu for cpu, _ in uses))]
        rows.append([*row, f"{int(sum(memory for _, memory in uses) / 2**20)}Mi"])
    return rows


def _used(usage: Document) -> tuple[float, float]:
    """Cores and octets."""
    return _quantity(usage.raw("cpu")), _quantity(usage.raw("memory"))


def _quantity(value: object) -> float:
    """A quantity of Kubernetes; 0 for what is none."""
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value * 1.0 if isinstance(value, int) and 0 <= value < 2**63 else 0.0
    whole, _, rest = found[1].partition(".")
    number = f"{whole.lstrip('0') or '0'}{'.' + rest if rest else ''}"
    return decimal("quantity", number, 0, 1e15) * _UNITS[found[2] or ""]


def _cores(cpu: float) -> str:
    return f"{-(-cpu * 1000 // 1):.0f}m"


def _share(used: float, whole: float) -> str:
    return f"{int(used / whole * 100)}%" if whole else "<unknown>"
