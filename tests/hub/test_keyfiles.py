"""Secrets of the data folder: made once, private, whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hub_server.keyfiles import AlreadyRunning, ensure_secret, lock_folder, write_private


def test_a_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    secret = ensure_secret(path)
    assert len(secret) == 32
    assert ensure_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "nonsense", "00" * 31], ids=["empty", "no digits", "short"])
def test_a_spoilt_file_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "master.key"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"master\.key"):
        ensure_secret(path)
    assert path.read_text() == content


def test_what_was_readable_for_all_is_not_any_more(tmp_path: Path) -> None:
    path = tmp_path / "tls.key"
    (tmp_path / ".tls.key.new").write_text("left by a crash")
    (tmp_path / ".tls.key.new").chmod(0o644)
    write_private(path, b"secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["tls.key"]


def test_one_hub_to_a_folder(tmp_path: Path) -> None:
    held = lock_folder(tmp_path / "data")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    with pytest.raises(AlreadyRunning, match="--data"):
        lock_folder(tmp_path / "data")
    os.close(held)
    os.close(lock_folder(tmp_path / "data"))
