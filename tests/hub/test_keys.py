"""Keys that are lost or swapped are told at the start; nothing is made in their place."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import keys
from hub_server.store import migrate
from hub_server.store.database import Database, StoreUnavailable, Trouble, sqlite_url
from hub_server.supervise import KeyLost

NAMES = ("hub.example", "localhost")


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Database]:
    with contextlib.closing(Database(sqlite_url(folder / "hub.db"))) as database:
        migrate.upgrade(database)
        yield database


def whole(database: Database, folder: Path) -> tuple[bytes, bytes, str | None]:
    """All keys of a hub."""
    return (
        keys.known_secret(database, folder, keys.MASTER),
        keys.known_secret(database, folder, keys.WIREGUARD),
        keys.known_authority(database, folder, NAMES).ca_pem,
    )


@pytest.mark.parametrize("name", [keys.MASTER, keys.WIREGUARD, keys.CA])
@pytest.mark.parametrize("how", ["gone", "another"])
def test_a_key_that_is_lost_is_told_and_not_made_anew(tmp_path: Path, name: str, how: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with opened(other) as database:
        whole(database, other)
    path = tmp_path / name
    with opened(tmp_path) as database:
        before = whole(database, tmp_path)
        assert whole(database, tmp_path) == before
        right = path.read_bytes()
        path.unlink()
        if how == "another":
            path.write_bytes((other / name).read_bytes())
            path.chmod(0o600)
        with pytest.raises(KeyLost, match=f"{path}.*put the right file back.*accept-keys"):
            whole(database, tmp_path)
        assert path.exists() is (how == "another")
        path.write_bytes(right)
        path.chmod(0o600)
        assert whole(database, tmp_path) == before
        path.unlink()
        keys.accept_keys(database, now=time.time())
        after = whole(database, tmp_path)
        assert sum(one != two for one, two in zip(before, after, strict=True)) == 1
        assert whole(database, tmp_path) == after


def test_a_full_disk_does_not_keep_an_older_hub_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreUnavailable(Trouble("disk_full", "the disk is full"))

    with opened(tmp_path) as database:
        key = keys.ensure_secret(tmp_path / keys.WIREGUARD)
        with monkeypatch.context() as patched:
            patched.setattr(database, "write_here", full)
            assert keys.known_secret(database, tmp_path, keys.WIREGUARD) == key
        assert keys.known_secret(database, tmp_path, keys.WIREGUARD) == key
