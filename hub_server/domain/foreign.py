"""Values from outside: the one place where a foreign number, text, time or document becomes a value of ours.

What a browser, a program, an edge or an API server sends goes through here before anything looks at it. A number is
finite and within its bounds, a time lies in the years 1970 to 9999, a text is made of whole characters, a document is
JSON of bounded size, depth and number of values. Whatever is not so is a `ForeignError` that names the field; nothing
else is ever raised. No other module turns text into numbers or reads JSON: tests/house looks for it.

    decode_json, Document            a document, and its checked reader
    integer, number, time, truth     of JSON values
    digits, decimal, moment          the same out of texts: parameters, headers, forms, RFC 3339
    calendar                         a time to show, which never fails
    text, cleaned                    texts that people wrote: refused, or made fit to show
    form                             the fields of a form
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl

from hub_server.domain.errors import Invalid

__all__ = [
    "LATEST",
    "Document",
    "ForeignError",
    "calendar",
    "cleaned",
    "decimal",
    "decode_json",
    "digits",
    "form",
    "integer",
    "moment",
    "number",
    "text",
    "time",
    "truth",
]

LATEST: Final = 253_402_300_799.0  # the last second of the year 9999, beyond which no calendar of Python goes
DEPTH: Final = 64  # of documents: Kubernetes' deepest, a CustomResourceDefinition's schema, stays below
VALUES: Final = 250_000  # of one document: Python holds each in some 100 octets
_LONGEST_NUMBER: Final = 40  # characters; a double needs 24
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,18})?", re.ASCII)
_MOMENT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
# C0 and C1 controls, what ends lines, what turns the direction of writing, and what is no character.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")
_HALF: Final = re.compile("[\ud800-\udfff]")
# One that is never closed reaches to the end: else each quote in it would be tried as the beginning of another.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS: Final = bytes.maketrans(b"[{]}", b"(())")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class ForeignError(Invalid):
    """A value from outside is not what it must be; `field` is its path, `detail` says what was expected."""

    def __str__(self) -> str:
        """Field and what is wrong with it."""
        return f"{self.field}: {self.detail}" if self.field else self.detail


# --- numbers and times -----------------------------------------------------------------------------------------------


def integer(field: str, value: object, least: int, most: int) -> int:
    """A JSON value as a whole number from `least` to `most`.

    Raises:
        ForeignError: it is none; true and false are none either.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ForeignError(field, f"expected a whole number from {least} to {most}")
    return value


def number(field: str, value: object, least: float, most: float) -> float:
    """A JSON value as a finite number from `least` to `most`.

    Raises:
        ForeignError: it is none.
    """
    # NaN compares with nothing, and an int of any size compares without becoming a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ForeignError(field, f"expected a number from {least:.15g} to {most:.15g}")
    return float(value)


def time(field: str, value: object) -> float:
    """A JSON value as Unix seconds.

    Raises:
        ForeignError: it is no number, or outside the years 1970 to 9999.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST:
        raise ForeignError(field, "expected Unix seconds in the years 1970 to 9999")
    return float(value)


def truth(field: str, value: object) -> bool:
    """A JSON value as true or false.

    Raises:
        ForeignError: it is neither.
    """
    if not isinstance(value, bool):
        raise ForeignError(field, "expected true or false")
    return value


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


def decimal(field: str, value: str, least: float, most: float) -> float:
    """A text such as `12`, `-3` or `0.5` as a number from `least` to `most`.

    Raises:
        ForeignError: it is none.
    """
    found = float(value) if len(value) <= _LONGEST_NUMBER and _DECIMAL.fullmatch(value) else None
    if found is None or not least <= found <= most:
        raise ForeignError(field, f"expected a number from {least:.15g} to {most:.15g}")
    return found


def moment(field: str, value: str) -> float:
    """A text of RFC 3339, such as `2026-11-28T17:00:00Z`, as Unix seconds.

    Raises:
        ForeignError: it is none, or outside the years 1970 to 9999.
    """
    found = _MOMENT.fullmatch(value) if len(value) <= _LONGEST_NUMBER else None
    if found is not None:
        year, month, day, hour, minute, second = (int(part) for part in found.group(1, 2, 3, 4, 5, 6))
        ahead = (int(found[9] or 0) * 60 + int(found[10] or 0)) * (-60 if found[8] == "-" else 60)
        try:
            # A leap second is told as the first of the next minute.
            at = datetime.datetime(year, month, day, hour, minute, 0, tzinfo=datetime.UTC).timestamp()
        except (ValueError, OverflowError):
            at = -1.0
        at += second - ahead + float(f"0.{found[7] or 0}")
        if second <= 60 and abs(ahead) < 86400 and 0 <= at <= LATEST:
            return at
    raise ForeignError(field, "expected a time such as 2026-11-28T17:00:00Z in the years 1970 to 9999")


def calendar(at: float) -> datetime.datetime:
    """Unix seconds as a date in UTC, whatever they are: outside the years 1970 to 9999 the nearer end of them."""
    return datetime.datetime.fromtimestamp(min(LATEST, at) if at > 0 else 0.0, datetime.UTC)  # NaN is not above 0


# --- texts -----------------------------------------------------------------------------------------------------------


def text(field: str, value: object, most: int, *, least: int = 0, lines: bool = False) -> str:
    """A text of whole characters without control characters; `lines` allows those that end lines, and tabulators.

    Raises:
        ForeignError: it is none, too short or too long.
    """
    if not isinstance(value, str):
        raise ForeignError(field, "missing" if value is None else "expected text")
    if not least <= len(value) <= most:
        raise ForeignError(field, f"expected {f'{least} to' if least else 'at most'} {most} characters")
    if _HALF.search(value):
        raise ForeignError(field, "holds half of a character (a lone surrogate)")
    found = _CONTROL.search(re.sub("[\r\n\t]", "", value) if lines else value)
    if found:
        raise ForeignError(field, f"holds a control character (U+{ord(found[0]):04X})")
    return value


def cleaned(value: str, most: int) -> str:
    """A text that is shown and not judged: cut, and what could move a cursor, end a line or not be stored replaced."""
    return _HALF.sub("\N{REPLACEMENT CHARACTER}", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value[:most]))


def form(octets: bytes | bytearray, most: int, *, fields: int = 200) -> list[tuple[str, str]]:
    """The fields of a form as browsers send it (`application/x-www-form-urlencoded`), in UTF-8.

    Raises:
        ForeignError: it is too long, has too many fields, or is no UTF-8.
    """
    if len(octets) > most:
        raise ForeignError("", f"the form has more than {most} octets")
    try:
        return parse_qsl(octets.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=fields)
    except ValueError:
        raise ForeignError("", f"no form of at most {fields} fields in UTF-8") from None


# --- documents -------------------------------------------------------------------------------------------------------


def decode_json(
    octets: bytes | bytearray, most: int, *, field: str = "", depth: int = DEPTH, values: int = VALUES
) -> Any:
    """Read JSON (RFC 8259) in UTF-8: nothing twice in an object, numbers that are finite, characters that are whole.

    Args:
        octets: the document.
        most: how many octets it may have.
        field: what errors call it.
        depth: how deep it may nest.
        values: how many it may hold, which bounds the memory that it takes.

    Raises:
        ForeignError: it is none, or beyond a bound.
    """
    if len(octets) > most:
        raise ForeignError(field, f"more than {most} octets")
    bare = _STRING.sub(b"", octets)
    # Each container and each comma brings one value at most.
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") >= values:
        raise ForeignError(field, f"more than {values} values")
    nested = bare.translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(depth):
        nested = nested.replace(b"()", b"")  # the innermost level
    if nested:
        raise ForeignError(field, f"no JSON, or nested deeper than {depth}")
    try:
        document = json.loads(
            octets.decode("utf-8-sig"),
            object_pairs_hook=_unique,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except ForeignError as error:
        raise ForeignError(field or error.field, error.detail) from None
    except (ValueError, RecursionError):
        raise ForeignError(field, "no JSON") from None
    if b"\\u" in octets and (found := next(_halves(document, field), None)) is not None:
        raise ForeignError(found, "holds half of a character (a lone surrogate)")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ForeignError(cleaned(twice, 100), "stands twice in one object")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ForeignError("", "a number is too long")
    return int(digits)


def _finite(digits: str) -> float:
    found = float(digits)
    if not -1.8e308 < found < 1.8e308:
        raise ForeignError("", "a number is too large")
    return found


def _no_constant(name: str) -> float:
    raise ForeignError("", f"{name} is no JSON")


def _halves(value: object, path: str) -> Iterator[str]:
    """The paths of texts with lone surrogates, which JSON can write and nothing can store."""
    if isinstance(value, str):
        if _HALF.search(value):
            yield path
    elif isinstance(value, dict):
        for name, one in value.items():
            below = f"{path}.{name}" if path else name
            if _HALF.search(name):
                yield cleaned(below, 200)
            yield from _halves(one, below)
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from _halves(one, f"{path}[{at}]")


class Document:
    """A foreign JSON object, read by paths: `document.text("metadata", "name")`.

    What is missing or null is None, or an empty list or document; what is of another kind than asked for is a
    `ForeignError` with its path. Values are checked when they are read, so a document may hold more than we know.
    """

    __slots__ = ("_path", "_value")

    def __init__(self, value: object, path: str = "") -> None:
        """Take an object of `decode_json`, and what errors call it.

        Raises:
            ForeignError: it is no object.
        """
        if not isinstance(value, dict):
            raise ForeignError(path, "expected an object")
        self._value: dict[str, Any] = value
        self._path = path

    @classmethod
    def parse(
        cls, octets: bytes | bytearray, most: int, *, path: str = "", depth: int = DEPTH, values: int = VALUES
    ) -> Document:
        """Read JSON and expect an object; bounds as those of `decode_json`."""
        return cls(decode_json(octets, most, field=path, depth=depth, values=values), path)

    def __contains__(self, name: object) -> bool:
        """Whether a field is there, be it null."""
        return name in self._value

    def __iter__(self) -> Iterator[str]:
        """The names of the fields."""
        return iter(self._value)

    def __len__(self) -> int:
        """How many fields there are."""
        return len(self._value)

    def where(self, *path: str) -> str:
        """What errors call the value at a path."""
        return ".".join([self._path, *path] if self._path else path)

    def raw(self, *path: str) -> Any:
        """The value at a path as it came, None where something on the way is missing or null."""
        found: Any = self._value
        for at, name in enumerate(path):
            if found is None:
                return None
            if not isinstance(found, dict):
                raise ForeignError(self.where(*path[:at]), "expected an object")
            found = found.get(name)
        return found

    def get(self, *path: str) -> Document:
        """The object at a path, an empty one without it."""
        found = self.raw(*path)
        return Document({} if found is None else found, self.where(*path))

    def text(self, *path: str, most: int = 2**20) -> str | None:
        """The text at a path; control characters may be in it."""
        found = self.raw(*path)
        if found is not None and (not isinstance(found, str) or len(found) > most):
            raise ForeignError(self.where(*path), f"expected a text of at most {most} characters")
        return found

    def integer(self, *path: str, least: int = -(2**63), most: int = 2**63 - 1) -> int | None:
        """The whole number at a path."""
        found = self.raw(*path)
        return None if found is None else integer(self.where(*path), found, least, most)

    def number(self, *path: str, least: float = -1e300, most: float = 1e300) -> float | None:
        """The number at a path."""
        found = self.raw(*path)
        return None if found is None else number(self.where(*path), found, least, most)

    def truth(self, *path: str) -> bool | None:
        """True or false at a path."""
        found = self.raw(*path)
        return None if found is None else truth(self.where(*path), found)

    def time(self, *path: str) -> float | None:
        """The Unix seconds of the RFC 3339 text at a path; None too for the time zero of Go, which means none."""
        found = self.text(*path, most=_LONGEST_NUMBER)
        return None if found is None or found.startswith("0001-01-01T") else moment(self.where(*path), found)

    def list(self, *path: str) -> list[Any]:
        """The list at a path, its values as they came."""
        found = self.raw(*path)
        if found is not None and not isinstance(found, list):
            raise ForeignError(self.where(*path), "expected a list")
        return found or []

    def items(self, *path: str) -> Iterator[Document]:
        """The objects of the list at a path, one after the other."""
        where = self.where(*path)
        return (Document(one, f"{where}[{at}]") for at, one in enumerate(self.list(*path)))

    def texts(self, *path: str, most: int = 2**20) -> tuple[str, ...]:
        """The texts of the list at a path."""
        found = self.list(*path)
        if not all(isinstance(one, str) and len(one) <= most for one in found):
            raise ForeignError(self.where(*path), f"expected a list of texts of at most {most} characters")
        return tuple(found)

    def mapping(self, *path: str, most: int = 2**20) -> dict[str, str]:
        """The object at a path, such as labels, of texts only."""
        found = self.get(*path)
        return {name: found.text(name, most=most) or "" for name in found}
