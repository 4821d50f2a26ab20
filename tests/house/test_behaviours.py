"""`docs/behaviours.md` and the tests say the same: every behaviour has a test that names it, and no other is named."""

from __future__ import annotations

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ROW = re.compile(r"^\| ([BN]\d+) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
BEHAVIOURS, CONVERSATIONS, ACCEPTANCE = 73, 37, 85


def listed() -> dict[str, list[str]]:
    """The test files of every number."""
    rows = ROW.findall((ROOT / "docs/behaviours.md").read_text())
    assert len(rows) == len({row[0] for row in rows}), "a number stands twice"
    return {number: re.findall(r"`([^`]+)`", files) for number, _, _, files in rows}


def cited(path: pathlib.Path) -> set[str]:
    """The numbers that the tests of a file name, in docstrings (`B12`) and in their own names (`test_b12_...`)."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            found |= set(re.findall(r"\b[ABN]\d+\b", ast.get_docstring(node) or ""))
            found |= {f"B{number}" for number in re.findall(r"_b(\d+)(?=_)", getattr(node, "name", ""))}
    return found


def test_every_behaviour_is_listed_once_with_its_tests() -> None:
    wanted = [f"B{number}" for number in range(1, BEHAVIOURS + 1)]
    wanted += [f"N{number}" for number in range(1, CONVERSATIONS + 1)]
    assert list(listed()) == wanted
    assert all(listed().values())


def test_every_listed_file_names_its_behaviours() -> None:
    missing = [
        f"{number} in tests/{file}"
        for number, files in listed().items()
        for file in files
        if number not in cited(ROOT / "tests" / file)
    ]
    assert missing == []


def test_no_test_names_a_behaviour_that_is_not_listed() -> None:
    known = listed()
    unknown = {
        f"{number} in {path.relative_to(ROOT)}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for number in cited(path)
        if number[0] in "BN" and number not in known
    }
    assert unknown == set()


def test_a_numbers_are_of_the_acceptance_tests_and_those_try_no_stack_alone() -> None:
    """One list, one prefix: A1 to A85 judge hub, edge and charts."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        numbers = {number for number in cited(path) if number.startswith("A")}
        assert all(1 <= int(number[1:]) <= ACCEPTANCE for number in numbers), path
        assert not numbers or "netstack" not in path.parts, path
