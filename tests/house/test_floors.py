"""The core stands without trio, numpy and Linux; the tests stand beside what they test."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Folders of tests that mirror nothing, and what they are for.
OF_THEIR_OWN = {
    "benchmarks": "of the package beside wgpy",
    "behaviours": "B1 to B40 on virtual time",
    "browser": "the hub's pages in a real browser",
    "chart": "the Helm chart, with real helm and kubectl",
    "contract": "golden documents that hub and edge both read",
    "e2e": "Linux, real peers",
    "edge": "of the package beside wgpy",
    "examples": "the programs of the README",
    "fuzz": "B72 and B73",
    "house": "this",
    "hub": "of hub_server",
    "kube": "a real Kubernetes node, brought up and taken down",
    "property": "strategies that others share",
    "tools": "what the e2e tests run beside",
    "vectors": "numbers that others computed",
}
# Tests of the stack by what is done to it, beside those by module.
OF_SUITES = ("test_clients", "test_closing_twice", "test_gate", "test_httpproxy", "test_paramiko", "test_programs")
CORE = [
    "wgpy.errors", "wgpy.foreign", "wgpy.constants", "wgpy.crypto.aead", "wgpy.crypto.xchacha", "wgpy.wire.messages",
    "wgpy.wire.ip", "wgpy.keys", "wgpy.config", "wgpy.uapi", "wgpy.noise.handshake", "wgpy.dataplane.merge",
    "wgpy.dataplane.split", "wgpy.dataplane.transport", "wgpy.protocol.engine",
]  # fmt: skip


def run(code: str) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def forbidding(*names: str) -> str:
    """Make the import of these fail."""
    return "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in names)


@pytest.mark.parametrize("without", [("trio",), ("trio", "numpy"), ("trio", "numpy", "fcntl")])
def test_the_core_is_importable_without(without: tuple[str, ...]) -> None:
    code = forbidding(*without) + "".join(f"import {name}\n" for name in CORE)
    code += "import wgpy\nwgpy.Engine, wgpy.InterfaceConfig, wgpy.PublicKey, wgpy.Slab\n"
    run(code + "print(sorted(name for name in sys.modules if name.startswith('wgpy.'))[:3])")


def test_without_numpy_the_plain_rows_are_chosen() -> None:
    code = forbidding("numpy") + "from wgpy.dataplane.selected import rows\nprint(rows.__name__)"
    assert run(code) == "wgpy.dataplane.rows"


def test_importing_the_facade_loads_neither_runtime_nor_engine() -> None:
    code = "import sys, wgpy\nprint('trio' in sys.modules, 'wgpy.protocol.engine' in sys.modules)"
    assert run(code) == "False False"


def test_a_key_is_made_without_an_event_loop() -> None:
    code = "import sys\nfrom wgpy.cli import main\nmain(['genkey'])\nprint('trio' in sys.modules)"
    assert run(code).endswith("\nFalse")


def folders(path: pathlib.Path) -> set[str]:
    return {one.name for one in path.iterdir() if one.is_dir() and not one.name.startswith(("_", "."))}


def test_every_folder_of_tests_mirrors_a_package_or_says_what_it_is() -> None:
    packages = {one.parent.name for one in (ROOT / "wgpy").glob("*/__init__.py")}
    mirrors = folders(ROOT / "tests") - set(OF_THEIR_OWN)
    assert mirrors <= packages
    assert mirrors >= packages - {"testing"}, "wgpy.testing is what most other tests stand on"


def test_every_test_file_of_a_mirror_belongs_to_a_module() -> None:
    """Or to what a package is as a whole."""
    whole = {"test_batches", "test_icmp_messages", "test_interrupt", "test_ip_headers", *OF_SUITES}
    for package in folders(ROOT / "tests") - set(OF_THEIR_OWN):
        modules = {path.stem for path in (ROOT / "wgpy" / package).rglob("*")}
        tests = {path.stem for path in (ROOT / "tests" / package).glob("test_*.py")}
        assert {name.removeprefix("test_") for name in tests - whole} <= modules, package


def test_no_except_star() -> None:
    """What is raised in it comes out in a group of its own before Python 3.11.4."""
    for package in ("wgpy", "edge_agent", "hub_server"):
        for path in sorted((ROOT / package).rglob("*.py")):
            found = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.TryStar)]
            assert found == [], path
