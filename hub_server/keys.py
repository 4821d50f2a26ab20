"""The keys by which others know the hub, and whether they are still the ones that the database was written with.

The database keeps a fingerprint of each. A key that is gone, or another one, is told at the start, before anything is
made in its place: a hub with a new identity would look well and be known to nobody.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Connection, delete

from hub_server import audit, tls
from hub_server.keyfiles import ensure_secret
from hub_server.services.core import meta_get, meta_put
from hub_server.store import schema
from hub_server.store.database import Database, StoreUnavailable
from hub_server.supervise import KeyLost

__all__ = ["CA", "MASTER", "WIREGUARD", "accept_keys", "known_authority", "known_secret"]

_log = structlog.get_logger("hub.keys")

MASTER: Final = "master.key"
WIREGUARD: Final = "wireguard.key"
CA: Final = "tls/ca.crt"
# What does not work without each.
_GOOD_FOR: Final = {
    MASTER: "the preshared keys of its edges and the secrets of its channels are sealed under it",
    WIREGUARD: "its edges know the hub by it",
    CA: "its edges and the kubeconfigs trust it",
}


def known_secret(database: Database, folder: Path, name: str) -> bytes:
    """The key in a file of the data folder; made when this hub never had one.

    Raises:
        KeyLost: the hub had one, and it is gone or another one.
        ValueError, OSError: as `ensure_secret`.
    """
    path, known = folder / name, _fingerprint_known(database, name)
    if known is not None and not path.exists():
        raise _lost(folder, name, "is gone")
    key = ensure_secret(path)
    _compare(database, folder, name, key, known)
    return key


def known_authority(database: Database, folder: Path, names: Sequence[str]) -> tls.Certificate:
    """The hub's own certificate, of the CA that this hub always had; made when it never had one.

    Raises:
        KeyLost: the hub had one, and it is gone or another one.
        ValueError, OSError: as `tls.ensure_own`.
    """
    known = _fingerprint_known(database, CA)
    try:
        certificate = tls.ensure_own(folder / "tls", names, may_make_ca=known is None)
    except FileNotFoundError as problem:
        raise _lost(folder, CA, f"cannot be used: {problem.filename} is gone") from None
    _compare(database, folder, CA, (certificate.ca_pem or "").encode(), known)
    return certificate


def accept_keys(database: Database, *, now: float) -> None:
    """Forget the fingerprints: the next start takes the keys that it finds, and makes those that lack."""

    def work(connection: Connection) -> None:
        rows = [_row(name) for name in _GOOD_FOR]
        connection.execute(delete(schema.meta).where(schema.meta.c.key.in_(rows)))
        audit.append(connection, audit.Entry(audit.HUB_CHAIN, now, "command line", "keys.accept"))

    database.write_here(work)


def _row(name: str) -> str:
    return f"fingerprint of {name}"


def _fingerprint_known(database: Database, name: str) -> str | None:
    return database.read_here(meta_get, _row(name))


def _compare(database: Database, folder: Path, name: str, key: bytes, known: str | None) -> None:
    found = hmac.new(key, _row(name).encode(), hashlib.sha256).hexdigest()
    if known is None:
        try:
            database.write_here(meta_put, _row(name), found)
        except StoreUnavailable as problem:  # the next start does it
            _log.warning("a key is not remembered yet", key=name, reason=problem.trouble.text)
    elif not hmac.compare_digest(found, known):
        raise _lost(folder, name, "is another key than the hub had")


def _lost(folder: Path, name: str, what: str) -> KeyLost:
    return KeyLost(
        f"{folder / name} {what}, and {_GOOD_FOR[name]}: put the right file back. If it is lost for good, "
        "`daalu-hub accept-keys` lets the hub start with what is there; clusters may have to join again"
    )
