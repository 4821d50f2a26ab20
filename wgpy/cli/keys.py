"""`wgpy genkey`, `genpsk`, `pubkey`: as in wireguard-tools."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from wgpy.cli.parser import add_command
from wgpy.keys import PresharedKey, PrivateKey

if TYPE_CHECKING:
    import argparse

    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to"]

_LONGEST = 1024


def add_to(commands: Commands[Parser]) -> None:
    """Declare the commands."""
    add_command(
        commands,
        "genkey",
        _genkey,
        "print a new private key",
        examples="  (umask 077; wgpy genkey > private.key)\n",
    )
    add_command(
        commands,
        "genpsk",
        _genpsk,
        "print a new preshared key",
        examples="  (umask 077; wgpy genpsk > preshared.key)\n",
    )
    add_command(
        commands,
        "pubkey",
        _pubkey,
        "read a private key from standard input and print its public key",
        examples="  wgpy pubkey < private.key > public.key\n",
    )


def _print_secret(text: str) -> int:
    status = os.fstat(sys.stdout.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        print("wgpy: warning: others can read this file; use umask 077", file=sys.stderr)
    print(text)
    return 0


def _genkey(_: argparse.Namespace) -> int:
    return _print_secret(PrivateKey.generate().to_base64())


def _genpsk(_: argparse.Namespace) -> int:
    return _print_secret(PresharedKey.generate().to_base64())


def _pubkey(_: argparse.Namespace) -> int:
    if sys.stdin.isatty():
        print("paste a private key and press Enter:", file=sys.stderr)
    # Whatever it is that comes: a key is 44 characters of ASCII.
    line = sys.stdin.buffer.readline(_LONGEST).decode("ascii", "replace")
    print(PrivateKey(line.strip()).public_key)
    return 0
