"""How long to try: a few seeds in every run of the tests, any number of minutes when asked.

    WGPY_FUZZ_SECONDS=600 pytest tests/fuzz        ten minutes for each test (B73), every seed another one

A failure names its seed, and `WGPY_FUZZ_SEED=that pytest ...` runs this one alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator


def seeds(count: int) -> Iterator[int]:
    """The seeds to try: 0 to `count`, or as many as fit into WGPY_FUZZ_SECONDS."""
    if alone := os.environ.get("WGPY_FUZZ_SEED"):
        yield int(alone)
        return
    end = time.monotonic() + float(os.environ.get("WGPY_FUZZ_SECONDS", "0"))
    seed = 0
    while seed < count or time.monotonic() < end:
        yield seed
        seed += 1
