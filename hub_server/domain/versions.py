"""Versions: whether a release is newer than what an edge runs. Semantic versioning, pre-releases apart."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hub_server.domain.foreign import digits

_SEMVER = re.compile(
    r"v?(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)


def parse(text: str | None) -> tuple[int, int, int, bool] | None:
    """Read major, minor, patch and whether it is final (False for a pre-release); None for what is not a version."""
    match = _SEMVER.fullmatch(text or "")
    if match is None:
        return None
    major, minor, patch, pre = match.groups()
    numbers = [digits("version", text, 0, 999_999_999) for text in (major, minor, patch)]
    return numbers[0], numbers[1], numbers[2], pre is None


def newest(versions: Iterable[str]) -> str | None:
    """The highest final release among them."""
    final = [(parsed, text) for text in versions if (parsed := parse(text)) is not None and parsed[3]]
    return max(final)[1] if final else None


def update_for(running: str | None, releases: Iterable[str]) -> str | None:
    """The release to offer: the newest final one, if higher than what runs. A pre-release is below its final."""
    current, latest = parse(running), newest(releases)
    if current is None or latest is None:
        return None
    parsed = parse(latest)
    return latest if parsed is not None and parsed > current else None
