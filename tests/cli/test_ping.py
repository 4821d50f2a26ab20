"""`wgpy ping`."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Spawn, check_help, check_wrong_usage


def test_help(wgpy: Run) -> None:
    check_help(wgpy, "ping")


@pytest.mark.parametrize("host", ["10.0.0.2", "fd00::2", "office.test"])
def test_answers_are_timed(wgpy: Run, host: str) -> None:
    done = wgpy("ping", "-c", "3", "-i", "0.01", "-s", "1000", "CONF", host)
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.findall(rb"1000 octets from \S+: seq=(\d) time=\d+\.\d+ ms", done.stdout) == [b"1", b"2", b"3"]
    assert b"3 sent, 3 received, 0% lost" in done.stdout


def test_nobody_there(wgpy: Run) -> None:
    done = wgpy("ping", "-c", "1", "-W", "0.2", "CONF", "nowhere.test")
    assert done.returncode == 1
    assert b"seq=1 no answer" in done.stdout
    assert b"1 sent, 0 received, 100% lost" in done.stdout


def test_nowhere_the_tunnel_leads(wgpy: Run) -> None:
    done = wgpy("ping", "-c", "1", "CONF", "192.0.2.1")
    assert done.returncode == 1
    assert b"Network is unreachable" in done.stdout


def test_a_name_that_the_tunnel_does_not_know(wgpy: Run) -> None:
    assert b"localhost" in check_wrong_usage(wgpy, "ping", "CONF", "localhost")


def test_conf_may_come_from_the_environment(wgpy: Run, conf: Path) -> None:
    assert wgpy("ping", "-c", "1", "10.0.0.2", WGPY_CONF=str(conf)).returncode == 0
    assert b"WGPY_CONF" in check_wrong_usage(wgpy, "ping", "10.0.0.2")
    assert b"No such file" in check_wrong_usage(wgpy, "ping", "./not-there.conf", "10.0.0.2")


def test_ctrl_c_shows_the_summary(start: Spawn) -> None:
    process = start("ping", "-c", "0", "CONF", "10.0.0.2")
    assert process.stdout is not None
    while b"seq=1 time=" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert re.search(rb"^\d+ sent, [1-9]\d* received, \d+% lost\nmin/avg/max = ", out, re.MULTILINE)
