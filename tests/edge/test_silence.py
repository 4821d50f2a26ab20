"""Deaths without a word, on a real network stack: what was open ends, as broken off, at both ends."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def run(*words: str) -> None:
    subprocess.run(words, check=True)


@pytest.mark.needs("root", "netns", "tools")
def test_streams_end_when_api_server_hub_or_edge_are_gone_without_a_word() -> None:
    hub, edge = f"daalu-hub-{os.getpid()}", f"daalu-edge-{os.getpid()}"
    for name in (hub, edge):
        run("ip", "netns", "add", name)
    try:
        run("ip", "-n", hub, "link", "add", "hub0", "type", "veth", "peer", "name", "edge0", "netns", edge)
        run("ip", "-n", edge, "address", "add", "10.97.0.9/24", "dev", "edge0")
        for link in ("lo", "edge0"):
            run("ip", "-n", edge, "link", "set", link, "up")
        done = subprocess.run(
            ["ip", "netns", "exec", hub, sys.executable, "-m", "tests.edge.silence_story", edge],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    finally:
        for name in (hub, edge):
            run("ip", "netns", "del", name)
    assert done.returncode == 0, done.stderr[-6000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert {name: how for name, (how, _) in found.items()} == dict.fromkeys(("api_server", "hub", "edge"), "broken off")
