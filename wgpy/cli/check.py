"""`wgpy check`: what is wrong in a configuration file, with line and column."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wgpy.cli.parser import add_command, colour

if TYPE_CHECKING:
    import argparse

    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to", "read_text"]


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


def read_text(path: str) -> str:
    """A configuration file; `-` is standard input.

    Raises:
        OSError: it cannot be read.
        ConfigError: it is no text.
    """
    from wgpy.errors import ConfigError

    octets = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no UTF-8 text") from None


def _check(options: argparse.Namespace) -> int:
    from wgpy.config import check

    found = check(read_text(options.file))
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
