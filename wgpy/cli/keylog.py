"""`wgpy keylog`: handshake secrets for Wireshark.

Either run something with key logging switched on, or put a key log into a capture of the outer packets, so that
Wireshark and tshark decrypt it without any settings (a Decryption Secrets Block of pcapng).
"""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wgpy.cli.parser import add_command
from wgpy.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to", "with_secrets"]

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
        try:
            return subprocess.run(options.command, env=environment, check=False).returncode
        except FileNotFoundError:
            raise ConfigError(f"there is no command {options.command[0]}") from None
    merged = with_secrets(Path(options.into).read_bytes(), Path(options.keys).read_bytes())
    descriptor = os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(merged)
    print(f"wrote {options.output}; whoever has it can read the traffic")
    return 0


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
