"""Values from outside enter a program by one module: nothing else turns texts into numbers or times, or reads JSON."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a program may call in its module of foreign values only; `int` and `float` of an arithmetic expression, which has
# numbers of ours already, and of a literal are free.
READERS = {"json.loads", "json.load", "loads", "fromisoformat", "fromtimestamp", "utcfromtimestamp", "strptime"}
MAKERS = {"int", "float"}
DOORS = {"edge_agent": "edge_agent/foreign.py", "hub_server": "hub_server/domain/foreign.py", "wgpy": "wgpy/foreign.py"}
# Values of ours that only look foreign, each with the reason.
KNOWN = {
    "edge_agent/log.py": "the time of a record of ours",
    "hub_server/domain/leases.py": "addresses of ipaddress as numbers",
    "hub_server/services/addresses.py": "addresses of ipaddress as numbers",
    "hub_server/domain/targets.py": "addresses of ipaddress as numbers",
    "hub_server/panel/worker.py": "the pipe to a process of ours",
    "hub_server/panel/run.py": "the pipe to a process of ours",
    "wgpy/adapters/namespace.py": "the pipe to a process of ours",
    "wgpy/adapters/proxies/gate.py": "numbers of ours",
    "wgpy/adapters/proxies/observe.py": "numbers of ours",
    "wgpy/adapters/sync.py": "numbers of ours",
    "wgpy/cli/check.py": "numbers of ours",
    "wgpy/cli/show.py": "numbers of ours",
    "wgpy/config/values.py": "addresses of ipaddress as numbers",
    "wgpy/dataplane/rows_numpy.py": "numbers of numpy",
    "wgpy/netstack/icmp.py": "numbers of ours",
    "wgpy/netstack/tcp/cubic.py": "numbers of ours",
    "wgpy/netstack/tcp/host.py": "numbers of ours",
    "wgpy/protocol/engine.py": "numbers of ours",
    "wgpy/runtime/pcap.py": "numbers of ours",
    "wgpy/runtime/profile.py": "numbers of ours",
    "wgpy/runtime/resolving.py": "ports of getaddrinfo",
    "wgpy/runtime/udp.py": "what the kernel says: ports, indices, its version",
    "wgpy/uapi.py": "numbers of ours",
}


def readers_in(source: str) -> Iterator[str]:
    """Calls by which a foreign value could enter, as `name, line`."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        is_ours = bool(node.args) and isinstance(node.args[0], ast.BinOp | ast.Constant)
        if name in READERS or name.rpartition(".")[2] in READERS - {"loads"} or (name in MAKERS and not is_ours):
            yield f"{name}, line {node.lineno}"


def test_the_look_finds_what_it_looks_for() -> None:
    source = (
        "json.loads(x); int(x); float(x); datetime.fromisoformat(x); int(a // 60); datetime.datetime.strptime(x, y)"
    )
    assert len(list(readers_in(source))) == 5


@pytest.mark.parametrize("package", DOORS)
def test_foreign_values_enter_by_one_module(package: str) -> None:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name != DOORS[package] and name not in KNOWN and (calls := list(readers_in(path.read_text()))):
            found[name] = calls
    assert found == {}, f"use {DOORS[package]}"
