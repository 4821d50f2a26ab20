"""The last results in benchmarks/README.md, renewed from benchmarks/results: `python -m benchmarks.readme`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.host import REPOSITORY
from benchmarks.report import table
from benchmarks.samples import Result

RESULTS: Final = REPOSITORY / "benchmarks/results"
README: Final = REPOSITORY / "benchmarks/README.md"
HEADING: Final = "## Last results\n"
_IN_HEADING: Final = ("date", "machine")
_NAMES: Final = ("tunnel", "netstack", "kernel", "handshake", "scale", "crypto", "steps", "long")


def section(results: list[Result]) -> str:
    """The results as Markdown: what each ran on, its chart, its table and its notes."""
    parts = [f"{HEADING}\nWritten by `python -m benchmarks.readme` from `results/*.json`.\n"]
    for result in results:
        options = ", ".join(f"{name} {value}" for name, value in result.options.items())
        facts = "; ".join(
            f"{name} {value}" for name, value in result.machine.items() if name not in ("date", "machine")
        )
        parts.append(
            f"### {result.benchmark}: {result.machine['date']}\n\n{result.machine['machine']}. {options}. {facts}.\n\n"
            f"![{result.benchmark}](results/{result.benchmark}.svg)\n\n```text\n{table(result)}\n```\n"
        )
        if result.notes:
            parts.append("".join(f"- {note}\n" for note in result.notes))
    return "\n".join(parts)


def renew(readme: Path = README, results: Path = RESULTS) -> None:
    """Write everything from the heading on anew."""
    found = [Result.load(path) for name in _NAMES if (path := results / f"{name}.json").exists()]
    before, _, _ = readme.read_text().partition(HEADING)
    readme.write_text(before + section(found))


if __name__ == "__main__":
    renew()
