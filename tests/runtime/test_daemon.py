"""What the daemon does before it has an interface: environment, key log, logging, limits; notes 3.6, 1.11, S18.

How it lives and ends is in tests/e2e/test_daemon.py.
"""

from __future__ import annotations

import logging
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgpy.errors import ConfigError, DeviceError
from wgpy.runtime import daemon


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The library's logger, put back as it was."""
    one = logging.getLogger("wgpy")
    before = list(one.handlers), one.level, one.propagate
    yield one
    one.handlers[:], one.propagate = before[0], before[2]
    one.setLevel(before[1])


def test_s18_core_files_are_off_before_any_key_is_read(monkeypatch: pytest.MonkeyPatch, logger: logging.Logger) -> None:
    limits = []

    def refuse(*arguments: object, **more: object) -> None:
        raise DeviceError(1, "no TUN here")

    monkeypatch.setattr(resource, "setrlimit", lambda *limit: limits.append(limit))
    monkeypatch.setattr(daemon, "_open_tun", refuse)
    with pytest.raises(DeviceError, match="no TUN here"):
        daemon.run_daemon("wg0", foreground=True, environment={})
    assert limits == [(resource.RLIMIT_CORE, (0, 0))]


@pytest.mark.parametrize(
    ("value", "allowed"), [(None, True), ("1", True), ("", True), ("0", False)], ids=["unset", "1", "empty", "0"]
)
def test_r8_an_offload_is_switched_off_by_a_zero(value: str | None, allowed: bool) -> None:
    environment = {} if value is None else {"WGPY_UDP_GSO": value}
    assert daemon._allows("WGPY_UDP_GSO", environment) is allowed


def test_descriptors_are_numbers() -> None:
    assert daemon._descriptor("WG_TUN_FD", {}) is None
    assert daemon._descriptor("WG_TUN_FD", {"WG_TUN_FD": ""}) is None
    assert daemon._descriptor("WG_TUN_FD", {"WG_TUN_FD": "17"}) == 17
    for wrong in ("-1", "x", "1.5", "\u0661", " 3"):
        with pytest.raises(ConfigError, match="file descriptor") as raised:
            daemon._descriptor("WG_TUN_FD", {"WG_TUN_FD": wrong})
        assert raised.value.field == "WG_TUN_FD"


def test_the_key_log_is_appended_to_for_its_owner_only_and_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.log"
    assert daemon._open_keylog({}) is None
    for line in ("A = 1", "B = 2"):
        write = daemon._open_keylog({"WG_KEYLOG_FILE": str(path)})
        assert write is not None
        write(line)
    assert path.read_text() == "A = 1\nB = 2\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert capsys.readouterr().err.count("WARNING: handshake secrets are written to") == 2


def test_a_key_log_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for path in (link, tmp_path / "missing" / "keys", tmp_path):
        with pytest.raises(DeviceError, match=f"WG_KEYLOG_FILE={path}"):
            daemon._open_keylog({"WG_KEYLOG_FILE": str(path)})


def test_a_full_disk_does_not_end_the_tunnel() -> None:
    write = daemon._open_keylog({"WG_KEYLOG_FILE": "/dev/full"})
    assert write is not None
    write("A = 1")


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("verbose", ["debug", "info", "error"]),
        ("debug", ["debug", "info", "error"]),
        ("error", ["error"]),
        ("silent", []),
    ],
)
def test_the_log_says_as_much_as_it_was_told_to(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], level: str, said: list[str]
) -> None:
    logger.handlers.clear()
    daemon._start_logging("wg7", level)
    for word in ("debug", "info", "error"):
        getattr(logging.getLogger("wgpy.device"), word)("it was %s", word)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == said
    assert all("(wg7)" in line for line in lines)
