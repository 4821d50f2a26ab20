"""`wgpy nc`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ENVIRONMENT, Run, check_help, check_wrong_usage


def test_help(wgpy: Run) -> None:
    check_help(wgpy, "nc")


def test_standard_streams_are_joined_with_half_close(wgpy: Run) -> None:
    octets = bytes(range(256)) * 20_000
    done = wgpy("nc", "CONF", "office.test", "7", text_in=octets)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == octets


def test_standard_input_may_be_a_file(conf: Path, tmp_path: Path) -> None:
    path = tmp_path / "octets"
    path.write_bytes(bytes(300_000))
    with path.open("rb") as file:
        argv = [sys.executable, "-m", "wgpy", "nc", str(conf), "10.0.0.2", "7"]
        done = subprocess.run(argv, stdin=file, capture_output=True, timeout=60, check=False, env=ENVIRONMENT)
    assert (done.returncode, done.stdout, done.stderr) == (0, bytes(300_000), b"")


def test_only_connecting(wgpy: Run) -> None:
    assert wgpy("nc", "-z", "CONF", "10.0.0.2", "7").returncode == 0
    assert wgpy("nc", "-z", "CONF", "10.0.0.2", "1").returncode == 1


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("10.0.0.2", "1", b"refused"),
        ("192.0.2.1", "80", b"unreachable"),
        ("localhost", "80", b"no such name"),
        ("10.0.0.2", "9", b"reset"),
    ],
)
def test_errors_are_one_line(wgpy: Run, host: str, port: str, words: bytes) -> None:
    done = wgpy("nc", "CONF", host, port)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert words in done.stderr or (words == b"no such name" and b"localhost" in done.stderr)


def test_giving_up_after_a_while(wgpy: Run) -> None:
    done = wgpy("nc", "-w", "0.3", "CONF", "nowhere.test", "80")
    assert done.returncode == 1
    assert b"timed out" in done.stderr


@pytest.mark.parametrize("argv", [[], ["h"], ["CONF", "h", "x"], ["CONF", "h", "0"], ["h", "1"]])
def test_wrong_usage(wgpy: Run, argv: list[str]) -> None:
    check_wrong_usage(wgpy, "nc", *argv)
