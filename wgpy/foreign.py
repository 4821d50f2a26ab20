"""Numbers from outside: the one place where a foreign text or value becomes a number of ours.

What stands in a file, on a command line, in the environment, on the control socket, in JSON or in the argument of a
public function goes through here. A number is whole or finite and lies within its bounds; whatever does not is a
`ConfigError` that says which numbers would do. No other module calls `int` or `float` on such a value: tests/house
looks for it.

Python's own readers take more than is meant: `int` signs, spaces, underscores and the digits of other scripts, `float`
also "nan" and "inf", and a text of a million digits takes seconds.
"""

from __future__ import annotations

import json
import re
from typing import Final

from wgpy.errors import ConfigError, masked

__all__ = ["decimal", "hexadecimal", "json_document", "number", "port", "quoted", "seconds", "whole"]

MAX_PORT: Final = 65535
# Longer than anybody waits, and within what clocks, timers and system calls can hold.
LONGEST: Final = 1e9

_DECIMAL: Final = re.compile(r"[0-9]+", re.ASCII)
_HEXADECIMAL: Final = re.compile(r"[0-9a-fA-F]{1,16}", re.ASCII)
_FRACTION: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18}", re.ASCII)
_SHOWN: Final = 60


def quoted(value: object) -> str:
    """A foreign value in a message: quoted, cut when it is long, and hidden where it looks like a key."""
    text = masked(value) if isinstance(value, str) else masked(repr(value))
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return repr(text) if isinstance(value, str) else text


def whole(value: object, most: int, *, least: int = 0, what: str = "a value", field: str = "") -> int:
    """A whole number that a program handed over.

    Raises:
        ConfigError: it is none, or out of bounds; truth values are none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{what} must be a number from {least} to {most}, got {quoted(value)}", field=field)
    return int(value)


def number(value: object, most: float, *, least: float = 0.0, what: str = "a value", field: str = "") -> float:
    """A finite number that a program handed over.

    Raises:
        ConfigError: it is none, or out of bounds; truth values and "not a number" are none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigError(f"{what} must be a number from {least:g} to {most:g}, got {quoted(value)}", field=field)
    return float(value)


def port(value: object, *, least: int = 1, field: str = "") -> int:
    """A port that a program handed over; with `least` 0 also that of "any".

    Raises:
        ConfigError: it is none.
    """
    return whole(value, MAX_PORT, least=least, what="a port", field=field)


def decimal(text: str, most: int, *, least: int = 0, what: str = "a value", field: str = "") -> int:
    """A text of decimal digits as a whole number; zeros in front count for nothing, as for strtoul(3).

    Raises:
        ConfigError: anything else stands in it, or it is out of bounds.
    """
    digits = text.lstrip("0") or "0"
    if not _DECIMAL.fullmatch(text) or len(digits) > len(str(most)) or not least <= int(digits) <= most:
        raise ConfigError(f"{what} must be a number from {least} to {most}, got {quoted(text)}", field=field)
    return int(digits)


def hexadecimal(text: str, most: int, *, what: str = "a value", field: str = "") -> int:
    """A text of hexadecimal digits, without 0x, as a whole number.

    Raises:
        ConfigError: anything else stands in it, or it is out of bounds.
    """
    digits = text.lstrip("0") or "0"
    if not text or not _HEXADECIMAL.fullmatch(digits) or int(digits, 16) > most:
        raise ConfigError(f"{what} must be at most {most:#x}, got {quoted(text)}", field=field)
    return int(digits, 16)


def seconds(text: str, *, least: float = 0.0, most: float = LONGEST, what: str = "a time", field: str = "") -> float:
    """A text such as `5` or `0.25` as seconds.

    Raises:
        ConfigError: anything else, and what is out of bounds.
    """
    if not _FRACTION.fullmatch(text) or not least <= float(text) <= most:
        raise ConfigError(
            f"{what} must be a number of seconds from {least:g} to {most:g}, got {quoted(text)}", field=field
        )
    return float(text)


def json_document(text: str) -> object:
    """A text as JSON.

    Raises:
        ConfigError: it is none, or deeper than any document of ours.
    """
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from None
    return document
