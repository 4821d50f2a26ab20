"""Command lines: one line and exit code 1 for wrong usage, examples in every help text, colours on a terminal only."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Commands", "Parser", "add_command", "colour", "port_number"]

Commands = argparse._SubParsersAction  # the only name that it has


class Parser(argparse.ArgumentParser):
    """An argument parser with our manners."""

    def __init__(self, *, examples: str = "", **settings: Any) -> None:
        """Show the examples below the help text."""
        super().__init__(
            epilog=f"examples:\n{examples}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **settings,
        )

    def error(self, message: str) -> NoReturn:
        """Wrong usage is one line and exit code 1, as in wireguard-tools."""
        self.exit(1, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_command(
    commands: Commands[Parser], name: str, run: Callable[[argparse.Namespace], int], about: str, *, examples: str
) -> Parser:
    """Declare a command with the function that runs it."""
    parser: Parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:], examples=examples)
    parser.set_defaults(run=run)
    return parser


def port_number(text: str) -> int:
    """A TCP port, as the `type` of an argument."""
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, got {text!r}")
    return int(text)


def colour(text: str, code: str) -> str:
    """The text in a colour, if standard output is a terminal that wants it (https://no-color.org)."""
    wants = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{code}m{text}\x1b[0m" if wants else text
