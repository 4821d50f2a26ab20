"""`wgpy check`: what is wrong in a configuration file, with line and column."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Final

from wgpy.cli.parser import add_command, colour
from wgpy.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to", "read_octets"]

_LONGEST: Final = 64 << 20


def add_to(commands: Commands[Parser]) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "check",
        _check,
        "say what is wrong or doubtful in a configuration file",
        examples="  wgpy check /etc/wireguard/wg0.conf\n  wgpy check --json - < wg0.conf\n",
    )
    parser.add_argument("file", metavar="CONF", help="file in the format of wg or wg-quick; - for standard input")
    parser.add_argument("--json", action="store_true", help="print a list of findings for programs")


def read_octets(path: str) -> bytes:
    """A configuration file; `-` is standard input.

    Raises:
        OSError: it cannot be read.
        ConfigError: it is far too long to be one.
    """
    with contextlib.nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as file:
        octets = file.read(_LONGEST + 1)
    if len(octets) > _LONGEST:
        raise ConfigError(f"{path} is longer than {_LONGEST >> 20} MiB: that is no configuration file")
    return octets


def _check(options: argparse.Namespace) -> int:
    from wgpy.config import check

    found = check(read_octets(options.file))
    name = "standard input" if options.file == "-" else options.file
    if options.json:
        print(
            json.dumps(
                [
                    {
                        "severity": "error" if one.is_error else "warning",
                        "line": one.line,
                        "column": one.column,
                        "field": one.field,
                        "message": one.message,
                    }
                    for one in found
                ],
                indent=2,
            )
        )
    else:
        for one in found:
            severity = colour("error", "1;31") if one.is_error else colour("warning", "1;33")
            field = f"{one.field}: " if one.field else ""
            print(f"{name}:{one.line}:{one.column}: {severity}: {field}{one.message}")
        if not found:
            print(f"{name}: no problems found")
    return int(any(one.is_error for one in found))
