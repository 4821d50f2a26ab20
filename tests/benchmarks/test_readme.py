"""The README's results are those of the files."""

from __future__ import annotations

from pathlib import Path

from benchmarks.readme import HEADING, README, RESULTS, renew, section
from benchmarks.samples import Result, Row


def test_what_stands_before_the_results_stays_and_old_results_go(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# How to read it\n{HEADING}old figures\n")
    row = Row("a", "speed", "Gbit/s", samples={"wgpy": [2.5]})
    machine = {"date": "2026-11-25", "machine": "some box", "kernel": "Linux 6"}
    Result("crypto", machine, {"rounds": 1}, ["wgpy"], [row], ["mind this"]).save(tmp_path / "crypto.json")
    renew(readme, tmp_path)
    renew(readme, tmp_path)
    text = readme.read_text()
    assert text.startswith("# How to read it\n")
    assert "old figures" not in text
    assert text.count("speed") == 1
    for part in ("crypto: 2026-11-25", "some box", "Linux 6", "2.5", "- mind this", "results/crypto.svg"):
        assert part in text


def test_the_readme_shows_the_committed_results() -> None:
    stored = [path.stem for path in RESULTS.glob("*.json")]
    assert stored
    for name in stored:
        assert section([Result.load(RESULTS / f"{name}.json")]).partition("### ")[2] in README.read_text()
