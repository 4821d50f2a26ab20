"""Write the schema's words beside the values: as the table of the chart's README, and as comments of values.yaml.

python chart/readme.py          write it
python chart/readme.py --check  only say whether it is current
"""

from __future__ import annotations

import json
import pathlib
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

CHART = pathlib.Path(__file__).resolve().parent / "daalu-edge"
BEGIN, END = "<!-- values: made by chart/readme.py -->", "<!-- end of values -->"


def rows(schema: dict[str, Any], values: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of every value, in the order of the schema."""
    for name, one in schema["properties"].items():
        full = f"{path}.{name}" if path else name
        default = values[name]
        if one.get("properties"):
            yield from rows(one, default, full)
        else:
            yield full, json.dumps(default, separators=(", ", ": ")), one["description"]


def table() -> str:
    """The table in Markdown."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    lines = ["| value | default | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | `{default}` | {text} |" for name, default, text in rows(schema, values)]
    return "\n".join(lines)


def renewed(readme: str) -> str:
    """The README with the table of now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def commented(values: str) -> str:
    """The values with the description of each key above it; a comment at the very top stays."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    lines: list[str] = []
    path: list[tuple[int, dict[str, Any]]] = [(-1, schema)]
    for number, line in enumerate(values.splitlines()):
        text = line.lstrip()
        if text.startswith("#") and number:
            continue
        name, colon, _ = text.partition(":")
        if colon and not text.startswith(("#", "-")):
            depth = len(line) - len(text)
            while path[-1][0] >= depth:
                path.pop()
            one = path[-1][1].get("properties", {}).get(name)
            if one is not None:
                path.append((depth, one))
                wrapped = textwrap.wrap(one["description"], 116 - depth)
                lines += [f"{' ' * depth}# {words}" for words in wrapped]
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check."""
    is_old = False
    for name, renew in (("README.md", renewed), ("values.yaml", commented)):
        path = CHART / name
        old = path.read_text()
        is_old |= old != renew(old)
        if "--check" not in sys.argv[1:]:
            path.write_text(renew(old))
    return int(is_old and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
