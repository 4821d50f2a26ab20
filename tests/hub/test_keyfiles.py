"""Secrets of the data folder: made once, private, whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from hub_server import tls
from hub_server.keyfiles import AlreadyRunning, check_private, ensure_secret, harden, lock_folder, write_private
from hub_server.store import migrate
from hub_server.store.database import Database, sqlite_url


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


@pytest.mark.parametrize("octet", ["00", "ff", "41"])
def test_what_is_no_secret_is_refused(tmp_path: Path, octet: str) -> None:
    path = tmp_path / "master.key"
    write_private(path, octet.encode() * 32)
    with pytest.raises(ValueError, match="is no secret"):
        ensure_secret(path)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660, 0o666, 0o602, 0o611])
def test_a_key_that_others_may_read_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master key"
    secret = ensure_secret(path)
    path.chmod(mode)
    with pytest.raises(PermissionError, match=rf"mode {mode:04o}.*chmod 600 '.*master key'") as refused:
        ensure_secret(path)
    assert secret.hex() not in str(refused.value)
    path.chmod(0o600)
    assert ensure_secret(path) == secret


def test_whose_key_it_is_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(mode: int, owner: int) -> os.stat_result:
        return os.stat_result((mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check_private(Path("k"), status(0o400, 1000))
    check_private(Path("k"), status(0o640, 0))
    for mode, owner in ((0o644, 0), (0o660, 0), (0o440, 1000)):
        with pytest.raises(PermissionError, match="chmod 600 k"):
            check_private(Path("k"), status(mode, owner))
    with pytest.raises(PermissionError, match="belongs to user 1001"):
        check_private(Path("k"), status(0o600, 1001))


@pytest.mark.parametrize("folder_mode", [0o700, 0o755, 0o777])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_every_file_is_private_whatever_umask_and_folder(tmp_path: Path, folder_mode: int, umask: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(folder_mode)
    before = os.umask(umask)
    try:
        held = lock_folder(folder)
        ensure_secret(folder / "master.key")
        database = Database(sqlite_url(folder / "hub.db"))
        migrate.upgrade(database)
        tls.ensure_own(folder / "tls", ("localhost",))
        found = {path: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
        database.close()
        os.close(held)
    finally:
        os.umask(before)
    assert {path.name for path in found} >= {
        "lock",
        "master.key",
        "hub.db",
        "hub.db-wal",
        "hub.db-shm",
        "tls.key",
        "ca.key",
    }
    assert set(found.values()) == {0o600}


def test_a_database_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "hub.db"))
    migrate.upgrade(database)
    files = [tmp_path / name for name in ("hub.db", "hub.db-wal", "hub.db-shm")]
    for file in files:
        file.chmod(0o644)
    with structlog.testing.capture_logs() as lines:
        harden(tmp_path / "hub.db")
    database.close()
    assert [file.stat().st_mode & 0o777 for file in files if file.exists()] == [0o600] * sum(map(Path.exists, files))
    assert [line["file"] for line in lines] == [str(file) for file in files]


def test_a_link_that_somebody_planted_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / ".master.key.new").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match="symbolic link"):
        ensure_secret(tmp_path / "master.key")
    assert (tmp_path / "theirs").read_text() == "theirs"


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


def test_a_data_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(NotADirectoryError, match="data: it must be a folder"):
        lock_folder(tmp_path / "data")
