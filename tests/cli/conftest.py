"""A real tunnel over the loopback interface, and `wgpy` as a person would run it; no root needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adapters.conftest import conf, config, far
from tests.machine import REPOSITORY

__all__ = ["conf", "config", "far"]

Run = Callable[..., subprocess.CompletedProcess[bytes]]
Spawn = Callable[..., subprocess.Popen[bytes]]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120"}


@pytest.fixture
def wgpy(conf: Path) -> Run:
    """Run `wgpy` to its end; `CONF` stands for the configuration of the near end."""

    def run(*argv: str, text_in: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "wgpy", *(str(conf) if word == "CONF" else word for word in argv)],
            input=text_in,
            capture_output=True,
            timeout=60,
            check=False,
            env={**ENVIRONMENT, **environment},
        )

    return run


@pytest.fixture
def start(conf: Path) -> Iterator[Spawn]:
    """Start `wgpy` in the background; ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def spawn(*argv: str, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "wgpy", *(str(conf) if word == "CONF" else word for word in argv)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**ENVIRONMENT, **environment},
        )
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.kill()
        process.communicate()


def check_help(run: Run, command: str) -> None:
    """Help has examples, and each of them begins with the command."""
    shown = run(command, "--help")
    assert shown.returncode == 0
    assert re.search(rf"examples:\n  .*wgpy {command}".encode(), shown.stdout)


def check_wrong_usage(run: Run, *argv: str, code: int = 1) -> bytes:
    """One line on standard error and an exit code; the line."""
    done = run(*argv)
    assert (done.returncode, done.stdout) == (code, b"")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr
