"""`api-resources` and `version`: what the cluster offers, and which release it is."""

from __future__ import annotations

from hub_server.domain import kubectl
from hub_server.domain.kubectl import cell
from hub_server.panel.line import Line

__all__ = ["run"]


def run(line: Line) -> int:
    """Run it."""
    return _version(line) if line.command.verb == "version" else _resources(line)


def _resources(line: Line) -> int:
    flags = line.command.flags
    rows: list[list[str]] = []
    names: list[str] = []
    for resources in line.discovered():
        for one in sorted(resources):
            if "namespaced" in flags and one.is_namespaced != line.command.is_set("namespaced"):
                continue
            if "api-group" in flags and one.group != flags["api-group"]:
                continue
            version = f"{one.group}/{one.version}" if one.group else one.version
            row = [one.plural, ",".join(one.short), version, "true" if one.is_namespaced else "false", one.kind]
            if flags.get("output") == "wide":
                row += [",".join(one.verbs), ",".join(one.categories)]
            rows.append([cell(text) for text in row])
            names.append(f"{one.plural}.{one.group}" if one.group else one.plural)
    if flags.get("output") == "name":
        for name in names:
            line.print(f"{cell(name)}\n")
        return 0
    head = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
    head += ["VERBS", "CATEGORIES"] if flags.get("output") == "wide" else []
    line.print_rows(rows if line.command.is_set("no-headers") else [head, *rows])
    return 0


def _version(line: Line) -> int:
    version = line.ask("/version")
    if line.command.flags.get("output") == "json":
        line.print_all(kubectl.to_json({"serverVersion": version.raw()}))
    else:
        line.print(f"Server Version: {cell(version.text('gitVersion') or 'unknown')}\n")
    return 0
