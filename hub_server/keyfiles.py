"""Files of the data folder: the hub's alone whatever the umask and the folder's mode, complete or not there at all.

Keys are made once. One that others may read is refused with the command that mends it, since somebody may know it by
now; a database that others may read is closed to them with a warning.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shlex
import stat
from pathlib import Path

import structlog

__all__ = ["AlreadyRunning", "check_private", "ensure_secret", "harden", "lock_folder", "write_private"]

SECRET_SIZE = 32

_log = structlog.get_logger("hub.files")


class AlreadyRunning(Exception):
    """Another hub uses this data folder."""


def lock_folder(folder: Path) -> int:
    """Make the data folder if need be and hold it for this process; the descriptor returned is the hold.

    Raises:
        AlreadyRunning: another process holds it.
        OSError: it cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "data: it must be a folder", str(folder)) from None
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mend = f"chmod go-w {shlex.quote(str(folder))}"
        _log.warning("others may write the data folder, and put files of theirs there", folder=str(folder), mend=mend)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRunning(f"another daalu-hub uses {folder}: stop it, or give this one its own --data") from None
    return descriptor


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only the owner reads; after a crash it is the old one or the new one, never half of one."""
    fresh = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_private(path: Path, status: os.stat_result) -> None:
    """Refuse a key that others than its owner may read or write.

    A key of root may also be readable by its group, as Debian's ssl-cert and Kubernetes' fsGroup have it.

    Raises:
        PermissionError: with the command that mends it.
    """
    loose = stat.S_IMODE(status.st_mode) & 0o077
    if status.st_uid == 0 and os.geteuid() != 0:
        loose &= ~stat.S_IRGRP
    elif status.st_uid not in (os.geteuid(), 0):
        raise PermissionError(f"{path} belongs to user {status.st_uid}, not to the hub's: chown it, or give another")
    if loose:
        mode, mend = stat.S_IMODE(status.st_mode), f"chmod 600 {shlex.quote(str(path))}"
        raise PermissionError(
            f"{path} is a key that others may read (mode {mode:04o}): {mend}; make a new one if somebody may have"
        )


def ensure_secret(path: Path) -> bytes:
    """The 32 octets of a file, in hexadecimal; made at random when there is no file.

    Raises:
        ValueError: the file holds something else, or what is no secret.
        PermissionError: others may read it.
        OSError: it cannot be read or written.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(4096).decode("ascii", "replace")
    except FileNotFoundError:
        made = secrets.token_bytes(SECRET_SIZE)
        write_private(path, made.hex().encode() + b"\n")
        return made
    try:
        value = bytes.fromhex(text.strip())
    except ValueError:
        value = b""
    if len(value) != SECRET_SIZE:
        raise ValueError(f"{path} does not hold {2 * SECRET_SIZE} hexadecimal digits: put the right file back")
    if len(set(value)) == 1:
        raise ValueError(f"{path} holds one octet {SECRET_SIZE} times, which is no secret: put the right file back")
    check_private(path, status)
    return value


def harden(path: Path) -> None:
    """Make a database file that nobody else reads, or close one that is there; SQLite makes its companions alike.

    Raises:
        OSError: it cannot be made, or belongs to somebody else.
    """
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
    for one in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        try:
            mode = stat.S_IMODE(one.stat().st_mode)
            if mode & 0o077:
                one.chmod(0o600)
                _log.warning("others could read the database; they cannot any more", file=str(one), mode=f"{mode:04o}")
        except FileNotFoundError:
            continue
