"""Command lines: one line and exit code 1 for wrong usage, examples in every help text, colours on a terminal only."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from wgpy import foreign
from wgpy.errors import ConfigError, WgpyError, masked

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Commands",
    "Parser",
    "add_command",
    "checked",
    "colour",
    "count",
    "pause",
    "port_number",
    "printable",
    "said",
    "time_limit",
]

T = TypeVar("T")

Commands = argparse._SubParsersAction  # the only name that it has


class Parser(argparse.ArgumentParser):
    """An argument parser with our manners."""

    def __init__(self, *, examples: str = "", mixes: bool = False, wrong_usage: int = 1, **settings: Any) -> None:
        """Show the examples below the help text.

        Args:
            examples: lines of them.
            mixes: take options between the other arguments too, also where the first of those may be left out.
            wrong_usage: exit code.
            settings: of argparse.
        """
        self._mixes = mixes
        self._wrong_usage = wrong_usage
        super().__init__(
            epilog=f"examples:\n{examples}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **settings,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Where options may stand anywhere, argparse looks for them first; that ends up here again."""
        if not self._mixes:
            return super().parse_known_args(args, namespace)
        self._mixes = False
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixes = True

    def error(self, message: str) -> NoReturn:
        """Wrong usage is one line, and exit code 1 as in wireguard-tools; what was typed may be a key."""
        line = " ".join(masked(message).split())
        self.exit(self._wrong_usage, f"{self.prog}: {printable(line)}; see {self.prog} --help\n")


def add_command(
    commands: Commands[Parser], name: str, run: Callable[[argparse.Namespace], int], about: str, **settings: Any
) -> Parser:
    """Declare a command with the function that runs it, and settings of its `Parser`."""
    parser: Parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:], **settings)
    parser.set_defaults(run=run)
    return parser


def printable(text: str) -> str:
    """A text as one line for a terminal, whatever was typed or sent: control characters and half ones are escaped."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def said(problem: BaseException) -> str:
    """An error as one line that shows no key: what went wrong, and with which file."""
    if isinstance(problem, OSError) and problem.strerror:
        named = problem.filename if not isinstance(problem, WgpyError) else None
        where = f"{os.fsdecode(named)}: " if isinstance(named, str | bytes) and named else ""
        return printable(masked(where + problem.strerror))
    return printable(masked(str(problem)))


def checked(read: Callable[[str], T]) -> Callable[[str], T]:
    """A reader of `wgpy.foreign` as the `type` of an argument."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ConfigError as problem:
            raise argparse.ArgumentTypeError(problem.message) from None

    return convert


port_number = checked(lambda text: foreign.decimal(text, foreign.MAX_PORT, least=1, what="a port"))
# What trio's clock and a select(2) can wait; and never no time at all, where that would be a busy loop.
time_limit = checked(lambda text: foreign.seconds(text, least=0.001))
pause = checked(lambda text: foreign.seconds(text))


def count(most: int, *, least: int = 0) -> Callable[[str], int]:
    """A whole number within bounds, as the `type` of an argument."""
    return checked(lambda text: foreign.decimal(text, most, least=least))


def colour(text: str, code: str) -> str:
    """The text in a colour, if standard output is a terminal that wants it (https://no-color.org)."""
    wants = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{code}m{text}\x1b[0m" if wants else text
