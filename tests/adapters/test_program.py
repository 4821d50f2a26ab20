"""Where programs are."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgpy.adapters.program import find_program


def test_a_program_is_found_behind_folders_that_hold_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed folders are none of a root's concern: a file in their place, and a loop, fail in the same way for all."""
    here, file, loop = tmp_path / "here", tmp_path / "file", tmp_path / "loop"
    here.mkdir()
    file.touch()
    loop.symlink_to(loop)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    monkeypatch.setenv("PATH", f"{closed}:{file}:{loop}:{tmp_path / 'nowhere'}:{here}")
    with pytest.raises(FileNotFoundError) as missing:
        find_program("tool")
    assert missing.value.filename == "tool"
    (here / "tool").touch(mode=0o644)
    with pytest.raises(PermissionError):
        find_program("tool")
    (here / "tool").chmod(0o755)
    assert find_program("tool") == str(here / "tool")
    assert find_program(str(here / "tool")) == str(here / "tool")
    with pytest.raises(FileNotFoundError):
        find_program("./tool")
    with pytest.raises(PermissionError):
        find_program(f"{here}/")
