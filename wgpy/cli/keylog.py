"""`wgpy keylog`: handshake secrets for Wireshark.

Either run something with key logging switched on, or put a key log into a capture of the outer packets, so that
Wireshark and tshark decrypt it without any settings (a Decryption Secrets Block of pcapng).
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wgpy.adapters.program import find_program
from wgpy.cli.parser import add_command
from wgpy.errors import ConfigError, masked

if TYPE_CHECKING:
    import argparse

    from wgpy.adapters.program import find_program
from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to", "with_secrets"]

# As a shell has it.
_CANNOT_RUN: Final = 126
_NOT_THERE: Final = 127
_SECTION_HEADER: Final = b"\x0a\x0d\x0d\x0a"
_SECRETS_BLOCK: Final = 0x0000000A
_WIREGUARD_KEY_LOG: Final = 0x57474B4C


def add_to(commands: Commands[Parser]) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "keylog",
        _keylog,
        "log handshake secrets, or put them into a capture for Wireshark",
        examples="  sudo wgpy keylog keys.log -- wireguard-py wg0    run this with its secrets logged\n"
        "  sudo wgpy keylog keys.log -- wgpy up wg0\n"
        "  wgpy keylog keys.log --into outer.pcapng --output readable.pcapng\n"
        "  tshark -o wg.keylog_file:keys.log -r outer.pcapng\n",
    )
    parser.add_argument("keys", metavar="KEYS", help="file of secrets: whoever has it can read the traffic")
    parser.add_argument("--into", metavar="CAPTURE", help="a pcapng file of the outer packets")
    parser.add_argument("--output", metavar="FILE", help="where the capture with the secrets in it goes")
    parser.add_argument("command", metavar="-- COMMAND", nargs="*", help="what to run with key logging switched on")


def _keylog(options: argparse.Namespace) -> int:
    if bool(options.into) == bool(options.command) or bool(options.into) != bool(options.output):
        raise ConfigError("give either a command after --, or --into and --output; see wgpy keylog --help")
    if options.command:
        environment = {**os.environ, "WG_KEYLOG_FILE": str(Path(options.keys).absolute())}
        return _run(options.command, environment)
    merged = with_secrets(Path(options.into).read_bytes(), Path(options.keys).read_bytes())
    descriptor = os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(merged)
    print(f"wrote {options.output}; whoever has it can read the traffic")
    return 0


def _run(command: list[str], environment: dict[str, str]) -> int:
    """The exit code of a command, as a shell has it."""
    try:
        code = subprocess.run(command, executable=find_program(command[0]), env=environment, check=False).returncode
    except OSError as problem:
        print(f"wgpy keylog: {masked(command[0])}: {problem.strerror}", file=sys.stderr)
        return _NOT_THERE if problem.errno == errno.ENOENT else _CANNOT_RUN
    return code if code >= 0 else 128 - code


def with_secrets(capture: bytes, keys: bytes) -> bytes:
    """A pcapng capture with the key log right behind its section header.

    Raises:
        ConfigError: the capture is no pcapng file.
    """
    if capture[:4] != _SECTION_HEADER or len(capture) < 28:
        raise ConfigError("the capture is no pcapng file; convert it with `editcap -F pcapng OLD NEW`")
    order = "<" if capture[8:12] == b"\x4d\x3c\x2b\x1a" else ">"
    (length,) = struct.unpack_from(f"{order}I", capture, 4)
    body = struct.pack(f"{order}II", _WIREGUARD_KEY_LOG, len(keys)) + keys + bytes(-len(keys) % 4)
    size = struct.pack(f"{order}I", len(body) + 12)
    block = struct.pack(f"{order}I", _SECRETS_BLOCK) + size + body + size
    return capture[:length] + block + capture[length:]
