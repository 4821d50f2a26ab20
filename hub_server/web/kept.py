"""What was typed into a form whose session had ended: kept in the browser across the sign-in, and offered again.

    a form is sent -> its session has ended -> sign-in, which holds the fields -> "send it now?" -> the form is sent

Only what a page of this hub sent is kept, never a password. Nothing is carried out without another click.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hub_server.domain.foreign import ForeignError, decode_json

__all__ = ["Kept"]

_LIMIT: Final = 256 * 1024
_MOST: Final = 64 * 1024  # characters, each of which may be three when a form is sent
_LEFT_OUT: Final = frozenset({"csrf", "password", "old", "new", "again", "username"})
_SILENT: Final = frozenset({"once"})  # sent again, and not shown


@dataclass(frozen=True, slots=True)
class Kept:
    """A form that was not carried out."""

    action: str
    fields: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, action: str, fields: Iterable[tuple[str, object]]) -> Kept | None:
        """What can be kept of a form; None when that is nothing."""
        kept = tuple((name, value) for name, value in fields if isinstance(value, str) and name not in _LEFT_OUT)
        it = cls(action, kept)
        return it if it.shown and len(it.text()) <= _MOST else None

    @classmethod
    def read(cls, text: str) -> Kept | None:
        """What a sign-in form brought back; None for what none of our pages wrote."""
        try:
            document = decode_json(text.encode("utf-8", "surrogatepass"), _LIMIT)
        except ForeignError:
            return None
        match document:
            case {"action": str(action), "fields": list(pairs)} if action.startswith("/") and all(
                isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)
                for pair in pairs
            ):
                return cls(action, tuple((name, value) for name, value in pairs))
        return None

    def text(self) -> str:
        """For a hidden field of the sign-in form."""
        return json.dumps({"action": self.action, "fields": self.fields})

    @property
    def shown(self) -> tuple[tuple[str, str], ...]:
        """What a person typed, by the names of the fields in words."""
        words = ((name.replace("_", " ").capitalize(), value) for name, value in self.fields if name not in _SILENT)
        return tuple((name, value) for name, value in words if value)
