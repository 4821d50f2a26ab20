"""Names that people give, and ids that the hub gives."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

NAME_LIMIT = 63
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", re.ASCII | re.IGNORECASE)
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,189}")
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)


def check_name(name: str) -> str:
    """Return what is wrong with a friendly name, or the empty string."""
    if not name:
        return "give the cluster a name"
    if len(name) > NAME_LIMIT:
        return f"a name has at most {NAME_LIMIT} characters; this one has {len(name)}"
    if not _NAME.fullmatch(name):
        return "a name has letters, digits, '-' and '.', and begins and ends with a letter or digit"
    return ""


def name_key(name: str) -> str:
    """What must be unique in a tenant: names that differ in case alone are the same."""
    return name.casefold()


def is_email(text: str) -> bool:
    """Whether it looks like an address; nothing is ever sent to it from here."""
    return bool(_EMAIL.fullmatch(text))


def is_slug(text: str) -> bool:
    """Whether it can stand in a URL and in a group name."""
    return bool(_SLUG.fullmatch(text))


def new_id(prefix: str, random: Callable[[int], bytes]) -> str:
    """Make an id such as `cl_mfrggzdfmztwq2lk`: 80 random bits, so that none is ever guessed or given twice."""
    return f"{prefix}_{base64.b32encode(random(10)).decode().lower()}"
