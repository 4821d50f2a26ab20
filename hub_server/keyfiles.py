"""Files of the data folder that hold secrets: made once, readable by the hub alone, complete or not there at all."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

__all__ = ["AlreadyRunning", "ensure_secret", "lock_folder", "write_private"]

SECRET_SIZE = 32


class AlreadyRunning(Exception):
    """Another hub uses this data folder."""


def lock_folder(folder: Path) -> int:
    """Make the data folder if need be and hold it for this process; the descriptor returned is the hold.

    Raises:
        AlreadyRunning: another process holds it.
        OSError: it cannot be made or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRunning(f"another daalu-hub uses {folder}: stop it, or give this one its own --data") from None
    return descriptor


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only the owner reads; after a crash it is the old one or the new one, never half of one."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def ensure_secret(path: Path) -> bytes:
    """The 32 octets of a file, in hexadecimal; made at random when there is no file.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be read or written.
    """
    try:
        text = path.read_text()
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
    return value
