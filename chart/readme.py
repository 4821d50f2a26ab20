"""Write the table of values into the chart's README: names and meanings from the schema, defaults from values.yaml.

python chart/readme.py          write it
python chart/readme.py --check  only say whether it is current
"""

from __future__ import annotations

import json
import pathlib
import sys
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


def main() -> int:
    """Write or check."""
    path = CHART / "README.md"
    old = path.read_text()
    new = renewed(old)
    if "--check" in sys.argv[1:]:
        return int(old != new)
    path.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
