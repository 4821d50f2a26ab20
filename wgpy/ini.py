"""The lines of a `wg` or `wg-quick` configuration file: read with their places, and written back without loss.

Only the form lives here: sections, keys, values, comments. What a value means is decided in `config`.

A file goes through two programs. `wg-quick` takes its own keys out, under a heading that says exactly `[Interface]`,
and leaves everything else to `wg`, which removes white space wherever it stands. Both know ASCII white space only, end
lines with LF only, and take no heed of what a comment holds: it may be in any encoding.

Source: wg-quick(8) and `parse_options` of the program; wg(8) and `config_read_line` of its config.c.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from wgpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["QUICK_KEYS", "Change", "Document", "Entry", "Section", "meant_name", "shown_name"]

QUICK_KEYS: Final = (
    "Address", "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig",
)  # fmt: skip
_HOOKS: Final = frozenset({"preup", "postup", "predown", "postdown"})
_OF_QUICK: Final = frozenset(name.lower() for name in QUICK_KEYS)
_KNOWN: Final = (
    *QUICK_KEYS, "PrivateKey", "ListenPort", "FwMark",
    "PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive",
)  # fmt: skip
_LOWER: Final = frozenset(name.lower() for name in _KNOWN)
_SPACE: Final = " \t\n\v\f\r"
_SPACES: Final = re.compile(f"[{_SPACE}]+")
# A name of which no part can be part of a key worth hiding.
_SHORT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,11}", re.ASCII)
_BOM: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Entry:
    """One `Key = value`.

    Attributes:
        key: in lower case.
        name: as written.
        value: without comment; for `wg` without any white space, for `wg-quick` with what stands inside. May be secret.
        line: counted from 1.
        column: of the value, counted from 1.
    """

    key: str
    name: str
    value: str = field(repr=False)
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Section:
    """One `[Interface]` or `[Peer]`.

    Attributes:
        name: in lower case.
        line: of its heading, counted from 1.
        is_quick: whether wg-quick looks for its keys in it.
        entries: in order.
    """

    name: str
    line: int
    is_quick: bool
    entries: tuple[Entry, ...]

    @property
    def last_line(self) -> int:
        """That of its last entry, or of its heading."""
        return self.entries[-1].line if self.entries else self.line


@dataclass(frozen=True, slots=True)
class Change:
    """What one key shall say.

    Attributes:
        name: of the key, as it is written if it is new.
        entries: that say it now, in order.
        values: one for each of the entries, None where the line shall go; more of them are new lines.
        section: where new lines go if there are no entries.
    """

    name: str
    entries: Sequence[Entry]
    values: Sequence[str | None] = field(repr=False)
    section: Section


def _squeezed(text: str) -> str:
    return _SPACES.sub("", text)


class _Reader:
    """Lines in, sections and errors out."""

    def __init__(self, report: Callable[[ConfigError], None]) -> None:
        self.sections: list[tuple[str, int, bool, list[Entry]]] = []
        self._report = report
        self._is_quick = False
        self._is_lost = False

    def read(self, lines: Sequence[str]) -> None:
        for number, line in enumerate(lines, 1):
            try:
                self._read_line(line, number)
            except ConfigError as error:
                self._report(error)

    def _read_line(self, line: str, number: int) -> None:
        content = line.partition("#")[0]
        squeezed = _squeezed(content)
        if not squeezed:
            return
        column = len(line) - len(line.lstrip(_SPACE)) + 1
        if squeezed.startswith("["):
            self._read_heading(content, number, column)
            return
        name, equals, value = content.partition("=")
        if not equals:
            raise ConfigError(f"expected Key = value{_meant(name)}", line=number, column=column)
        start = len(name) + 1
        key = name.strip(_SPACE).lower()
        is_quick = self._is_quick and key in _OF_QUICK
        if not (is_quick and key in _HOOKS):
            _refuse_strange_blanks(content, number)
        if not is_quick:
            key = _squeezed(name).lower()
            if key in _OF_QUICK and self.sections and self.sections[-1][0] == "interface":
                raise ConfigError(
                    "wg-quick takes no blanks inside a key, and its keys only below a heading that says [Interface]",
                    field=shown_name(name), line=number, column=column,
                )  # fmt: skip
        if not self.sections:
            # Once is enough: whatever follows, up to the first heading, has the same fault.
            if self._is_lost:
                return
            self._is_lost = True
            raise ConfigError(
                "stands before any [Interface] or [Peer]", field=shown_name(name), line=number, column=column
            )
        column = start + len(value) - len(value.lstrip(_SPACE)) + 1
        value = value.strip(_SPACE) if is_quick else _squeezed(value)
        self.sections[-1][3].append(Entry(key, _squeezed(name), value, number, column))

    def _read_heading(self, content: str, number: int, column: int) -> None:
        _refuse_strange_blanks(content, number)
        heading = _squeezed(content).lower()
        if heading not in ("[interface]", "[peer]"):
            if "\r" in content.strip(_SPACE):
                message = "lines end in LF; in this file CR stands alone: convert it, as with `tr '\\r' '\\n'`"
            elif not heading.endswith("]"):
                message = "a heading ends in ], with nothing behind it"
            else:
                message = f"{_heading(content)} is neither [Interface] nor [Peer]"
            # What follows belongs to nobody, but its form can still be looked at.
            self.sections.append(("", number, False, []))
            self._is_quick = False
            raise ConfigError(message, line=number, column=column)
        self._is_quick = content.strip(_SPACE).lower() == "[interface]"
        self.sections.append((heading[1:-1], number, self._is_quick, []))


def _heading(content: str) -> str:
    name = _squeezed(content)[1:-1]
    return f"[{name}]" if _SHORT_NAME.fullmatch(name) else "this heading"


def shown_name(name: str) -> str:
    """The name of a key for a message, or nothing: what stands left of a = may be a key that lost its name."""
    name = _squeezed(name)
    if name.lower() in _LOWER or _SHORT_NAME.fullmatch(name):
        return name
    return ""


def _meant(name: str) -> str:
    """What a line without = probably was to be; never what stands in it."""
    squeezed = _squeezed(name).lower()
    known = next((one for one in _KNOWN if squeezed.startswith(one.lower())), "")
    return f": is this {known} = ...?" if known else ""


def meant_name(name: str) -> str:
    """What an unknown key was probably to be, for a message."""
    by_lower = {one.lower(): one for one in _KNOWN}
    close = difflib.get_close_matches(name.lower()[:40], by_lower, 1, 0.75)
    close = close or [one for one in by_lower if name.lower().startswith(one)]
    return f"; is it {by_lower[close[0]]}?" if close else ""


def _refuse_strange_blanks(content: str, number: int) -> None:
    """Characters that look like white space, or like nothing, and are neither to wg nor to wg-quick."""
    if content.isascii() and "\0" not in content:
        return
    for position, character in enumerate(content, 1):
        if character == "\0" or (ord(character) > 127 and unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cf")):
            name = unicodedata.name(character, "NUL")
            raise ConfigError(
                f"U+{ord(character):04X} ({name}) is no white space to wg: delete it, or put a plain blank there",
                line=number, column=position,
            )  # fmt: skip


def _without_mark(text: str, report: Callable[[ConfigError], None]) -> str:
    """Wrong encodings, told once and not once a line."""
    if text.startswith(_BOM):
        report(
            ConfigError(
                "the file begins with a byte order mark, which wg refuses: save it as UTF-8 without BOM",
                line=1, column=1,
            )
        )  # fmt: skip
        return text[1:]
    if text.startswith(("\udcff\udcfe", "\udcfe\udcff")) or text[:64].count("\0") > 8:
        report(ConfigError("the file is UTF-16: save it as UTF-8 without BOM", line=1, column=1))
        return ""
    return text


def _raise(error: ConfigError) -> None:
    raise error


class Document:
    """A parsed file that remembers its text, whatever its line ends and its encoding."""

    __slots__ = ("_lines", "sections")

    def __init__(self, text: str | bytes, report: Callable[[ConfigError], None] = _raise) -> None:
        """Read the form.

        Args:
            text: of the file. Octets that are no UTF-8 may stand in comments; they become surrogates, as `os.fsdecode`
                has it.
            report: called with each error, after which reading goes on with the next line; without it they are raised.

        Raises:
            ConfigError: a line is neither heading, `Key = value`, comment nor blank, or stands before any heading.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        # Not splitlines(): that also takes U+2028, form feeds and a CR alone for the end of a line.
        self._lines = _without_mark(text, report).split("\n")
        reader = _Reader(report)
        reader.read(self._lines)
        self.sections: tuple[Section, ...] = tuple(
            Section(name, line, is_quick, tuple(entries)) for name, line, is_quick, entries in reader.sections if name
        )

    def __repr__(self) -> str:
        """Nothing of what stands in it."""
        return f"<Document of {len(self.sections)} sections>"

    @property
    def text(self) -> str:
        """The file as it was read."""
        return "\n".join(self._lines)

    def edited(self, changes: Iterable[Change], removed: Iterable[Section] = (), added: Sequence[str] = ()) -> str:
        """The text with some values changed; every other line and comment stays as it is, octet by octet.

        Args:
            changes: what some keys shall say.
            removed: sections that go, each with the comment that announces it.
            added: whole sections to append.
        """
        end = "\r" if sum(line.endswith("\r") for line in self._lines) * 2 > len(self._lines) else ""
        lines: dict[int, list[str]] = {number: [line] for number, line in enumerate(self._lines, 1)}
        # Apart from the lines: the one that a new key follows may itself go.
        new: dict[int, list[str]] = {}
        for change in changes:
            for entry, value in zip(change.entries, change.values, strict=False):
                if value != entry.value:
                    lines[entry.line] = self._rewritten(entry, value)
            at = change.entries[-1].line if change.entries else change.section.last_line
            for value in change.values[len(change.entries) :]:
                new.setdefault(at, []).append(f"{change.name} = {value}{end}")
        for section in removed:
            for number in self._extent(section):
                lines[number] = []
                new.pop(number, None)
        if new.get(len(self._lines)):
            # Behind a last line that had no end.
            lines[len(self._lines)] = [line.removesuffix("\r") + end for line in lines[len(self._lines)]]
            new[len(self._lines)][-1] = new[len(self._lines)][-1].removesuffix("\r")
        body = "\n".join(line for number in sorted(lines) for line in (*lines[number], *new.get(number, ())))
        for section_text in added:
            section_text = section_text.replace("\n", f"{end}\n")
            if body.strip(_SPACE):
                body += "" if body.endswith("\n") else f"{end}\n"
                section_text = section_text if body.endswith(("\n\n", "\n\r\n")) else f"{end}\n{section_text}"
            body += section_text
        return body

    def _rewritten(self, entry: Entry, value: str | None) -> list[str]:
        """The line of an entry with another value; of one that goes, its comment stays."""
        line = self._lines[entry.line - 1]
        content, sign, comment = line.partition("#")
        if value is None:
            return [sign + comment] if sign else []
        end = content[len(content.rstrip(_SPACE)) :]
        return [content[: entry.column - 1] + value + (end or " " if sign else end) + sign + comment]

    def _extent(self, section: Section) -> range:
        """The lines that go with a section: the comment that announces it, its entries, and what stands between them.

        A comment below its last entry stays, since it may announce the next section, unless it is an entry of this one
        that was switched off by a #.
        """
        before = max((one.last_line for one in self.sections if one.line < section.line), default=0)
        bottom = self._above(section.line - 1, before, self._is_blank)
        top = self._above(bottom, before, self._is_comment)
        # An empty line may stand below an announcement; but then it must not belong to what is above it: to the entries
        # of another section, or to the whole file.
        is_announced = bottom == section.line - 1 or 0 < before < top
        first = top + 1 if top < bottom and is_announced else section.line
        last = section.last_line
        while last < len(self._lines) and self._is_switched_off(last + 1):
            last += 1
        below = last + 1
        while below < len(self._lines) and self._is_blank(below):
            below += 1
        if below <= len(self._lines) and not self._is_blank(below):
            return range(first, below)
        # Nothing follows: the empty lines above it would be the last ones.
        return range(self._above(first - 1, before, self._is_blank) + 1, last + 1)

    def _above(self, number: int, limit: int, holds: Callable[[int], bool]) -> int:
        """The nearest line from `number` upwards that is not so."""
        while number > limit and holds(number):
            number -= 1
        return number

    def _is_blank(self, number: int) -> bool:
        return not self._lines[number - 1].strip(_SPACE)

    def _is_comment(self, number: int) -> bool:
        return self._lines[number - 1].lstrip(_SPACE).startswith("#")

    def _is_switched_off(self, number: int) -> bool:
        name, equals, _ = self._lines[number - 1].lstrip(_SPACE + "#").partition("=")
        return self._is_comment(number) and bool(equals) and _squeezed(name).lower() in _LOWER
