"""The lines of a `wg` or `wg-quick` configuration file: read with their places, and written back without loss.

Only the form lives here: sections, keys, values, comments. What a value means is decided in `config`.

Source: wg(8), CONFIGURATION FILE FORMAT; wg-quick(8), CONFIGURATION.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wgpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Document", "Entry", "Section"]

# wg-quick hands these to a shell: white space and # inside them belong to the command.
_SHELL_KEYS: Final = frozenset({"preup", "postup", "predown", "postdown"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One `Key = value`.

    Attributes:
        key: in lower case.
        name: as written.
        value: without comment; without any white space too, except in shell lines.
        line: counted from 1.
        column: of the value, counted from 1.
    """

    key: str
    name: str
    value: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Section:
    """One `[Interface]` or `[Peer]`.

    Attributes:
        name: in lower case.
        line: of its heading, counted from 1.
        last_line: its last line that is not blank or the comment above the next heading.
        entries: in order.
    """

    name: str
    line: int
    last_line: int
    entries: tuple[Entry, ...]


class Document:
    """A parsed file that remembers its text."""

    __slots__ = ("_lines", "_newline_at_end", "sections")

    def __init__(self, text: str, report: Callable[[ConfigError], None] | None = None) -> None:
        """Read the form.

        Args:
            text: of the file.
            report: called with each error, after which reading goes on with the next line; without it they are raised.

        Raises:
            ConfigError: a line is neither heading, `Key = value`, comment nor blank, or stands before any heading.
        """
        self._lines = text.splitlines()
        self._newline_at_end = text.endswith("\n") or not text
        sections: list[tuple[str, int, list[Entry]]] = []
        for number, line in enumerate(self._lines, 1):
            try:
                self._read_line(line, number, sections)
            except ConfigError as error:
                if report is None:
                    raise
                report(error)
        starts = [start for _, start, _ in sections]
        self.sections: tuple[Section, ...] = tuple(
            Section(
                name,
                start,
                self._last_line(entries[-1].line if entries else start, end),
                tuple(entries),
            )
            for (name, start, entries), end in zip(sections, [*starts[1:], len(self._lines) + 1], strict=False)
        )

    @staticmethod
    def _read_line(line: str, number: int, sections: list[tuple[str, int, list[Entry]]]) -> None:
        stripped = "".join(line.partition("#")[0].split())
        if not stripped:
            return
        column = len(line) - len(line.lstrip()) + 1
        if stripped.startswith("["):
            if not stripped.endswith("]"):
                raise ConfigError(f"a heading ends in ]: {stripped}", line=number, column=column)
            sections.append((stripped[1:-1].lower(), number, []))
            return
        name, equals, value = line.partition("=")
        name = "".join(name.split())
        if not equals or "#" in name:
            raise ConfigError(f"expected Key = value, got {stripped.partition('=')[0]!r}", line=number, column=column)
        if not sections:
            raise ConfigError("stands before any [Interface] or [Peer]", field=name, line=number, column=column)
        key = name.lower()
        value = value.strip() if key in _SHELL_KEYS else "".join(value.partition("#")[0].split())
        after = line.index("=") + 1
        column = after + len(line[after:]) - len(line[after:].lstrip()) + 1
        sections[-1][2].append(Entry(key, name, value, number, column))

    def _last_line(self, last_entry: int, next_heading: int) -> int:
        """Comments directly above a heading go with what they announce; other comments stay with what precedes them."""
        last = next_heading - 1
        while last > last_entry and self._lines[last - 1].lstrip().startswith("#") and next_heading <= len(self._lines):
            last -= 1
        while last > last_entry and not self._lines[last - 1].strip():
            last -= 1
        return last

    @property
    def text(self) -> str:
        """The file as it was read."""
        return "\n".join(self._lines) + ("\n" if self._newline_at_end and self._lines else "")

    def edited(
        self,
        changes: Sequence[tuple[Section, str, Sequence[str]]],
        removed: Sequence[Section],
        added: Sequence[str],
    ) -> str:
        """The text with some values changed; every other line and comment stays as it is.

        Args:
            changes: section, key as it should be written if it is new, and its values, one line each; none remove it.
            removed: sections that go, with the comments directly above them.
            added: whole sections to append.
        """
        lines: dict[int, list[str]] = {number: [line] for number, line in enumerate(self._lines, 1)}
        # Apart from the lines: the one that a new key follows may itself go.
        new: dict[int, list[str]] = {}
        for section, name, values in changes:
            entries = [entry for entry in section.entries if entry.key == name.lower()]
            for entry in entries[len(values) :]:
                lines[entry.line] = []
            for entry, value in zip(entries, values, strict=False):
                if entry.value != value:
                    line = self._lines[entry.line - 1]
                    tail = "" if entry.key in _SHELL_KEYS or "#" not in line else "  " + line[line.index("#") :]
                    lines[entry.line] = [line[: entry.column - 1] + value + tail]
            at = entries[-1].line if entries else section.entries[-1].line if section.entries else section.line
            new.setdefault(at, []).extend(f"{name} = {value}" for value in values[len(entries) :])
        for section in removed:
            first = section.line
            while first > 1 and self._lines[first - 2].lstrip().startswith("#"):
                first -= 1
            for number in range(first, section.last_line + 1):
                lines[number] = []
                new.pop(number, None)
        body = "\n".join(line for number in sorted(lines) for line in (*lines[number], *new.get(number, ())))
        for section_text in added:
            body = f"{body.rstrip()}\n\n{section_text}" if body.strip() else section_text
        return body.rstrip("\n") + "\n" if self._newline_at_end else body
