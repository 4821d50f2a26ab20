"""Which releases of the chart exist: a small JSON file that the administrator keeps, read again when it changes.

[{"version": "1.4.0", "notes": "https://example.com/notes/1.4.0", "yanked": false}, ...]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from hub_server.domain import versions
from hub_server.domain.foreign import ForeignError, decode_json

log = structlog.get_logger("hub.releases")


class Releases:
    """The known releases; none without a file."""

    def __init__(self, path: Path | None) -> None:
        """Take the file; it may come later."""
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._notes: Mapping[str, str | None] = {}
        self._told = ""
        self._read()

    def newer_than(self, running: str | None) -> tuple[str, str | None] | None:
        """The release to offer to an edge, and its notes; None when it is up to date or nothing is known."""
        self._read()
        version = versions.update_for(running, self._notes)
        return None if version is None else (version, self._notes[version])

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._notes = _parse(decode_json(self._path.read_bytes(), 2**20))
        except (OSError, ValueError, ForeignError) as problem:
            # Once for each thing that is wrong: this is looked at with every page.
            if str(problem) != self._told:
                log.warning("releases cannot be read", path=str(self._path), problem=str(problem))
            self._told = str(problem)
        else:
            self._told = ""


def _parse(document: Any) -> dict[str, str | None]:
    if not isinstance(document, list):
        raise ValueError("not a list of releases")
    result: dict[str, str | None] = {}
    for release in document:
        if not isinstance(release, dict) or not isinstance(release.get("version"), str):
            raise ValueError("a release is an object with a `version`")
        notes = release.get("notes")
        if not release.get("yanked"):
            is_link = isinstance(notes, str) and notes.startswith(("https://", "http://"))
            result[release["version"]] = notes if is_link else None
    return result
