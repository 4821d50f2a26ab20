"""Values from outside become values of ours in one module of each program, and nowhere else.

A number in a text may have a million digits, a JSON document may hold NaN, 10**400, half a character or ten thousand
brackets. So outside that one module nobody calls `int` or `float`, reads JSON, or parses a time; and what its reader
returns has no index. Numbers of our own are rounded with `round` or `math.floor`.
"""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Each package, the module that may, and functions of the package that are checked otherwise.
PROGRAMS = {
    "edge_agent": "edge_agent/foreign.py",
}
# By the name as it is called.
READERS = frozenset(
    {
        "int", "float", "complex", "json.loads", "json.load", "json.JSONDecoder", "datetime.datetime.fromisoformat",
        "datetime.datetime.strptime", "email.utils.parsedate_to_datetime",
        "email.utils.parsedate", "base64.b64decode", "ast.literal_eval", "eval", "pickle.loads", "yaml.safe_load",
        "fromisoformat", "parsedate_to_datetime", "loads", "b64decode",
    }
)  # fmt: skip


def called(node: ast.Call) -> str:
    """The dotted name of what is called, as far as it is one."""
    names: list[str] = []
    what: ast.expr = node.func
    while isinstance(what, ast.Attribute):
        names.append(what.attr)
        what = what.value
    if isinstance(what, ast.Name):
        names.append(what.id)
    return ".".join(reversed(names))


def readers_in(text: str) -> Iterator[tuple[int, str]]:
    """Lines that read what is foreign, by calling a reader or handing one to somebody who calls it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            if (name := called(node)) in READERS:
                yield node.lineno, name
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                if isinstance(argument, ast.Name) and argument.id in ("int", "float") and called(node) != "isinstance":
                    yield node.lineno, argument.id


@pytest.mark.parametrize("package", PROGRAMS)
def test_one_module_reads_what_is_foreign(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if str(path.relative_to(ROOT)) != PROGRAMS[package]
        for line, name in readers_in(path.read_text())
    ]
    assert not found, "read it by the module for foreign values: " + ", ".join(found)


@pytest.mark.parametrize(
    "text", ["int(x)", "float(message['rtt'])", "json.loads(body)", "a = list(map(int, parts))", "f(key=float)"]
)
def test_the_search_finds_what_it_is_for(text: str) -> None:
    assert list(readers_in(text))


def test_what_the_reader_gives_has_no_index() -> None:
    from edge_agent.foreign import Document

    assert not hasattr(Document, "__getitem__")
