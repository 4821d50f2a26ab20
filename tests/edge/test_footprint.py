"""What an edge costs, as a process with exactly what its image carries; takes a minute of real time, so `-m long`."""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess
import sys
import time

import pytest
import trio

from tests.edge.fakehub import open_hub
from tests.edge.fakekube import open_kube
from tests.edge.test_agent import join, settings_for
from tests.edge.test_cli import drain, plain_environment, variables

# The image has no numpy; this interpreter may.
PROGRAM = "import sys; sys.modules['numpy'] = None; from edge_agent.cli import main; main(['run'])"
MOST_MEMORY, MOST_CPU, MOST_START = 60 * 2**20, 0.01, 2.0
IDLE = 30.0


def resident(pid: int) -> int:
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def busy(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.long
async def test_an_idle_edge_is_small_and_starts_soon(tmp_path: pathlib.Path) -> None:
    """Less than 60 MB and 1 % of a core while connected and idle; connected less than 2 s after its start."""
    async with open_kube() as kube, open_hub() as hub, trio.open_nursery() as nursery:
        settings = settings_for(kube, hub, tmp_path)
        code, line = await join(settings)
        assert code == 0, line
        started = time.perf_counter()
        process: trio.Process = await nursery.start(
            functools.partial(
                trio.run_process,
                [sys.executable, "-c", PROGRAM],
                env=plain_environment(variables(settings)),
                stderr=subprocess.PIPE,
                check=False,
            )
        )
        nursery.start_soon(drain, process)
        await hub.until(lambda: hub.beats)
        start = time.perf_counter() - started
        await hub.until(lambda: hub.of_type("nodes"))
        await trio.sleep(5)
        before = busy(process.pid)
        await trio.sleep(IDLE)
        cpu = (busy(process.pid) - before) / IDLE
        memory = resident(process.pid)
        print(f"start {start:.2f} s, memory {memory / 2**20:.1f} MiB, CPU {cpu:.2%}")
        process.terminate()
        await process.wait()
        assert start < MOST_START
        assert memory < MOST_MEMORY
        assert cpu < MOST_CPU
