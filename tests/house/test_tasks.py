"""One failure, one victim: the hub starts its tasks in one module, where failures are confined."""

from __future__ import annotations

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Ways to start a task, or to call back from a thread, that no one guards.
STARTS = {"start_soon", "start", "spawn_system_task"}


def starts_of(path: pathlib.Path) -> list[str]:
    """Where a module starts a task, `start` being that of a nursery."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, owner = node.func.attr, ast.unparse(node.func.value)
        if name in STARTS and (name != "start" or "nursery" in owner):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {owner}.{name}")
    return found


def test_the_hub_starts_tasks_in_one_module_only() -> None:
    modules = sorted((ROOT / "hub_server").rglob("*.py"))
    found = {path.name: starts_of(path) for path in modules}
    assert found.pop("supervise.py"), "the module that does start them"
    assert [place for places in found.values() for place in places] == []


def test_the_hub_takes_groups_of_exceptions_apart_by_hand() -> None:
    """What is raised in an `except*` is wrapped anew before Python 3.11.4, Debian 12's own."""
    for path in sorted((ROOT / "hub_server").rglob("*.py")):
        found = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.TryStar)]
        assert found == [], path
