"""Cursors: opaque words that say where a list goes on."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final, TypeVar

from hub_server.domain.errors import Invalid
from hub_server.domain.foreign import ForeignError, digits
from hub_server.services.views import Page

T = TypeVar("T")

MOST: Final = 500


def limit_of(limit: int) -> int:
    """What a page may hold."""
    return max(1, min(limit, MOST))


def after(cursor: str | None) -> int:
    """The number in a cursor; 0 without one.

    Raises:
        Invalid: it is none of ours.
    """
    if not cursor:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"==").decode("ascii")
        return digits("cursor", text, 0, 10**18)
    except (ValueError, binascii.Error, ForeignError):
        raise Invalid("cursor", "that cursor is none of this hub's") from None


def cursor_of(number: int) -> str:
    """A cursor that holds a number."""
    return base64.urlsafe_b64encode(str(number).encode()).decode().rstrip("=")


def page_of(found: Sequence[T], offset: int, limit: int, total: int | None = None) -> Page[T]:
    """A page of what was read with one more than `limit`, counted from an offset."""
    more = cursor_of(offset + limit) if len(found) > limit else None
    return Page(tuple(found[:limit]), more, total, offset, before(offset, limit))


def before(offset: int, limit: int) -> str | None:
    """The cursor of the page before the one at an offset."""
    if not offset:
        return None
    return cursor_of(offset - limit) if offset > limit else ""
