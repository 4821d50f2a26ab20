"""Values from outside: the one place where a foreign number, text, time or document becomes a value of ours.

What the hub, the API server, a file or the environment says goes through here before anything looks at it. A number is
finite and within its bounds, a time lies in the years 1970 to 9999, a text is made of whole characters, a document is
JSON of bounded size, depth and number of values. Whatever is not so is a `ForeignError` that names the field; nothing
else is ever raised. No other module turns text into numbers or reads JSON: tests/house looks for it.

    Document.parse     a document, and its checked reader: it has no index
    digits, moment     numbers and times out of texts: settings, header fields, RFC 3339, HTTP dates
    cleaned            a text that is shown and not judged
"""

from __future__ import annotations

import base64
import binascii
import datetime
import email.utils
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["LATEST", "Document", "ForeignError", "cleaned", "digits", "http_date", "iso", "moment", "octets_of_base64"]

LATEST: Final = 253_402_300_799.0  # the last second of the year 9999, beyond which no calendar of Python goes
DEPTH: Final = 64  # of documents: Kubernetes' deepest stay below
VALUES: Final = 1_000_000  # of one document: Python holds each in some 100 octets
_LONGEST_NUMBER: Final = 40  # characters; a double needs 24
_MOMENT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
# C0 and C1 controls, what ends lines, what turns the direction of writing, and what is no character.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")
_HALF: Final = re.compile("[\ud800-\udfff]")
# One that is never closed reaches to the end: else each quote in it would be tried as the beginning of another.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS: Final = bytes.maketrans(b"[{]}", b"(())")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class ForeignError(ValueError):
    """A value from outside is not what it must be; the text begins with the path of the field."""

    def __init__(self, field: str, problem: str) -> None:
        """Say which field, and what was expected of it."""
        super().__init__(f"{field}: {problem}" if field else problem)


# --- texts -----------------------------------------------------------------------------------------------------------


def digits(field: str, value: str, least: int, most: int) -> int:
    """A text of decimal digits, without sign or leading zeros, as a number from `least` (not negative) to `most`.

    Raises:
        ForeignError: it is none; how long it is does not matter, no digit of a longer one is read.
    """
    if len(value) <= len(str(most)) and value.isascii() and value.isdigit():
        found = int(value)
        if least <= found <= most and str(found) == value:
            return found
    raise ForeignError(field, f"expected a whole number from {least} to {most}")


def moment(field: str, value: str) -> float:
    """A text of RFC 3339, such as `2026-11-28T17:00:00Z`, as Unix seconds; the fraction is left out.

    Raises:
        ForeignError: it is none, or outside the years 1970 to 9999.
    """
    found = _MOMENT.fullmatch(value) if len(value) <= _LONGEST_NUMBER else None
    if found is not None:
        year, month, day, hour, minute, second = (int(part) for part in found.group(1, 2, 3, 4, 5, 6))
        ahead = (int(found[8] or 0) * 60 + int(found[9] or 0)) * (-60 if found[7] == "-" else 60)
        try:
            # A leap second is told as the first of the next minute.
            at = datetime.datetime(year, month, day, hour, minute, 0, tzinfo=datetime.UTC).timestamp()
        except (ValueError, OverflowError):
            at = -1.0
        at += second - ahead
        if second <= 60 and abs(ahead) < 86400 and 0 <= at <= LATEST:
            return at
    raise ForeignError(field, "expected a time such as 2026-11-28T17:00:00Z in the years 1970 to 9999")


def http_date(text: str | None) -> float | None:
    """The field Date of HTTP as Unix seconds, None for what is none."""
    if text is None or len(text) > 100:
        return None
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at if 0 <= at <= LATEST else None


def iso(at: float) -> str:
    """Unix seconds that were checked, as RFC 3339 in UTC."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds")


def cleaned(value: str, most: int) -> str:
    """A text that is shown and not judged: cut, and what could move a cursor, end a line or not be stored replaced."""
    return _HALF.sub("\N{REPLACEMENT CHARACTER}", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value[:most]))


def octets_of_base64(field: str, text: object, length: int | None = None) -> bytes:
    """The octets of standard base64 text with padding; of a secret, maybe: no message quotes it.

    Raises:
        ForeignError: it is none, or not of so many octets.
    """
    try:
        octets = base64.b64decode(text.encode("ascii"), validate=True) if isinstance(text, str) else None
    except (ValueError, binascii.Error):
        octets = None
    if octets is None:
        raise ForeignError(field, "not base64")
    if length is not None and len(octets) != length:
        raise ForeignError(field, f"expected {length} octets, got {len(octets)}")
    return octets


# --- documents -------------------------------------------------------------------------------------------------------


def _decoded(octets: bytes, most: int, depth: int, values: int) -> Any:
    """JSON (RFC 8259) in UTF-8: nothing twice in an object, numbers that are finite, characters that are whole."""
    if len(octets) > most:
        raise ForeignError("", f"more than {most} octets")
    bare = _STRING.sub(b"", octets)
    # Each container and each comma brings one value at most.
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") >= values:
        raise ForeignError("", f"more than {values} values")
    nested = bare.translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(depth):
        nested = nested.replace(b"()", b"")  # the innermost level
    if nested:
        raise ForeignError("", f"no JSON, or nested deeper than {depth}")
    try:
        document = json.loads(
            octets.decode("utf-8-sig"),
            object_pairs_hook=_unique,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except ForeignError:
        raise
    except (ValueError, RecursionError):
        raise ForeignError("", "no JSON") from None
    if b"\\u" in octets and _has_halves(document):
        raise ForeignError("", "holds half of a character (a lone surrogate)")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ForeignError("", "a name stands twice in one object")
    return found


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ForeignError("", "a number is too long")
    return int(text)


def _finite(text: str) -> float:
    found = float(text)
    if not -1.8e308 < found < 1.8e308:
        raise ForeignError("", "a number is too large")
    return found


def _no_constant(name: str) -> float:
    raise ForeignError("", f"{name} is no JSON")


def _has_halves(value: object) -> bool:
    """Whether there are lone surrogates, which JSON can write and nothing can store."""
    if isinstance(value, str):
        return _HALF.search(value) is not None
    if isinstance(value, dict):
        return any(_HALF.search(name) or _has_halves(one) for name, one in value.items())
    return isinstance(value, list) and any(_has_halves(one) for one in value)


class Document:
    """A foreign JSON object, read by paths: `document.text("metadata", "name")`.

    What is missing or null is None, or an empty text, list or document; what is of another kind than asked for is a
    `ForeignError` with its path. Values are checked when they are read, so a document may hold more than we know.
    """

    __slots__ = ("_path", "_value")

    def __init__(self, value: object, path: str = "") -> None:
        """Take what JSON gave, and what errors call it.

        Raises:
            ForeignError: it is no object.
        """
        if not isinstance(value, Mapping):
            raise ForeignError(path, "expected an object")
        self._value: Mapping[str, Any] = value
        self._path = path

    @classmethod
    def parse(cls, octets: bytes | str, most: int, *, depth: int = DEPTH, values: int = VALUES) -> Document:
        """Read JSON and expect an object.

        Args:
            octets: the document.
            most: how many octets it may have.
            depth: how deep it may nest.
            values: how many it may hold, which bounds the memory that it takes.

        Raises:
            ForeignError: it is none, or beyond a bound.
        """
        try:
            octets = octets.encode() if isinstance(octets, str) else octets
        except UnicodeEncodeError:
            raise ForeignError("", "no JSON") from None
        return cls(_decoded(octets, most, depth, values))

    def __contains__(self, name: object) -> bool:
        """Whether a field is there, be it null."""
        return name in self._value

    def __iter__(self) -> Iterator[str]:
        """The names of the fields."""
        return iter(self._value)

    def _where(self, path: tuple[str, ...]) -> str:
        return ".".join((self._path, *path) if self._path else path)

    def _raw(self, path: tuple[str, ...]) -> Any:
        """The value at a path as it came, None where something on the way is missing or null."""
        found: Any = self._value
        for at, name in enumerate(path):
            if found is None:
                return None
            if not isinstance(found, Mapping):
                raise ForeignError(self._where(path[:at]), "expected an object")
            found = found.get(name)
        return found

    def has(self, *path: str) -> bool:
        """Whether something other than null is there."""
        return self._raw(path) is not None

    def get(self, *path: str) -> Document:
        """The object at a path, an empty one without it."""
        found = self._raw(path)
        return Document({} if found is None else found, self._where(path))

    def text(self, *path: str, most: int = 4096) -> str:
        """The text at a path, empty without it; control characters may be in it."""
        found = self._raw(path)
        if found is not None and (not isinstance(found, str) or len(found) > most):
            raise ForeignError(self._where(path), f"expected a text of at most {most} characters")
        return found or ""

    def line(self, *path: str, most: int = 2048) -> str:
        """The text at a path, which must be there and hold printable characters only."""
        found = self._raw(path)
        if not isinstance(found, str) or not 0 < len(found) <= most or not found.isprintable():
            raise ForeignError(self._where(path), "expected text")
        return found

    def integer(self, *path: str, least: int, most: int) -> int | None:
        """The whole number at a path; 25.0 is one, too."""
        found = self._raw(path)
        if found is None:
            return None
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            raise ForeignError(self._where(path), f"expected a number from {least} to {most}")
        return found

    def time(self, *path: str) -> float | None:
        """The Unix seconds at a path."""
        found = self._raw(path)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= LATEST:
            raise ForeignError(self._where(path), "expected Unix seconds in the years 1970 to 9999")
        return float(found)

    def truth(self, *path: str) -> bool:
        """True or false at a path; false without it."""
        found = self._raw(path)
        if found is not None and not isinstance(found, bool):
            raise ForeignError(self._where(path), "expected true or false")
        return bool(found)

    def octets(self, *path: str, length: int | None = None) -> bytes:
        """The octets of the base64 text at a path."""
        return octets_of_base64(self._where(path), self._raw(path), length)

    def items(self, *path: str) -> list[Document]:
        """The objects of the list at a path."""
        where = self._where(path)
        return [Document(one, f"{where}[{at}]") for at, one in enumerate(self._list(path))]

    def texts(self, *path: str, most: int = 4096) -> tuple[str, ...]:
        """The texts of the list at a path."""
        found = self._list(path)
        if not all(isinstance(one, str) and len(one) <= most for one in found):
            raise ForeignError(self._where(path), f"expected a list of texts of at most {most} characters")
        return tuple(found)

    def mapping(self, *path: str, most: int = 2**20) -> dict[str, str]:
        """The object at a path, such as labels, of texts only."""
        found = self.get(*path)
        return {name: found.text(name, most=most) for name in found}

    def _list(self, path: tuple[str, ...]) -> list[Any]:
        found = self._raw(path)
        if found is not None and not isinstance(found, list | tuple):
            raise ForeignError(self._where(path), "expected a list")
        return list(found or ())
