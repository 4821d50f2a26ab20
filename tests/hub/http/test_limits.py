"""How many connections fit: what the rest of the hub needs is set aside, whatever is wanted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hub_server.http.limits import places


@pytest.mark.parametrize(
    ("descriptors", "wanted", "right"),
    [(1024, 0, 768), (256, 0, 192), (1024, 5000, 768), (1024, 100, 100), (2**30, 0, 10_000), (2**30, 50_000, 50_000)],
)
def test_places(descriptors: int, wanted: int, right: int) -> None:
    assert places(descriptors, wanted) == right


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 900))\n"
        "from hub_server.http import raise_descriptor_limit\n"
        "print(raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "900 (900, 900)\n"
