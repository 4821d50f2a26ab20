"""What the documentation shows is run: the examples of every public name, and the blocks of the README."""

from __future__ import annotations

import doctest
import inspect
import pathlib
import re
import secrets
import shlex
import subprocess
import sys
import time

import pytest
import trio

import wgpy

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
GLOBALS = {"wgpy": wgpy, "trio": trio, "secrets": secrets, "time": time, "pathlib": pathlib}


@pytest.mark.parametrize("name", wgpy.__all__)
def test_every_public_name_is_documented_with_an_example_that_runs(name: str) -> None:
    text = inspect.getdoc(getattr(wgpy, name))
    assert text
    example = doctest.DocTestParser().get_doctest(text, dict(GLOBALS), name, None, None)
    assert example.examples, f"{name} has no example"
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(example)
    assert result.failed == 0


ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = {path.name: path.read_text().rstrip("\n") for path in sorted((ROOT / "tests/examples").glob("*.py"))}


def blocks(language: str) -> list[str]:
    return [text.rstrip("\n") for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)]


def test_the_python_blocks_of_the_readme_are_the_examples() -> None:
    assert sorted(blocks("python")) == sorted(EXAMPLES.values())


@pytest.mark.parametrize("name", ["embedded.py", "engine.py", "userspace.py"])
def test_the_examples_without_an_interface_run(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tests/examples" / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Each `wgpy` line is parsed by the real parser, each `make` target is in the Makefile."""
    from wgpy.cli import build_parser

    lines = [line for block in blocks("console") for line in block.replace("\\\n", " ").splitlines()]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    seen = 0
    for line in lines:
        words = shlex.split(re.split(r"[<>|]", line)[0])
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] == "wgpy":
            assert build_parser().parse_args(words[1:]).run
            seen += 1
    assert seen >= 8


def test_the_variables_of_the_readme_are_those_of_the_help_text(capsys: pytest.CaptureFixture[str]) -> None:
    from wgpy.cli import daemon_main

    with pytest.raises(SystemExit):
        daemon_main(["--help"])
    helped = set(re.findall(r"(?:WG|WGPY|LOG)_[A-Z_]+", capsys.readouterr().out))
    written = set(re.findall(r"`((?:WG|WGPY|LOG)_[A-Z_]+)", README))
    assert written - {"WG_QUICK_USERSPACE_IMPLEMENTATION"} == helped - {"WG_QUICK_USERSPACE_IMPLEMENTATION"}
