"""`wgpy genkey`, `genpsk`, `pubkey`: as in wireguard-tools."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wgpy.cli import main
from wgpy.keys import PresharedKey, PrivateKey


def run(*words: str, given: str = "", umask: int = 0o077, into: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own: it looks at its standard output."""
    out = subprocess.PIPE if into is None else os.open(into, os.O_CREAT | os.O_WRONLY, 0o666 & ~umask)
    try:
        return subprocess.run(
            [sys.executable, "-m", "wgpy", *words],
            input=given, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        if into is not None:
            os.close(out)


def test_keys_are_made_and_belong_together() -> None:
    private = run("genkey")
    assert (private.returncode, private.stderr) == (0, "")
    public = run("pubkey", given=private.stdout)
    assert public.stdout == f"{PrivateKey(private.stdout.strip()).public_key}\n"
    assert PresharedKey(run("genpsk").stdout.strip())


def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    for umask, warns in ((0o077, False), (0o022, True)):
        path = tmp_path / f"key{umask}"
        done = run("genkey", into=path, umask=umask)
        assert ("others can read this file" in done.stderr) == warns
        assert PrivateKey(path.read_text().strip())


@pytest.mark.parametrize("given", ["", "nonsense\n", "A" * 43])
def test_what_is_no_private_key_is_one_line_and_exit_code_1(given: str) -> None:
    done = run("pubkey", given=given)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("wgpy: PrivateKey: ")
    assert not given or given.strip() not in done.stderr, "it may have been nearly right"


def test_wrong_usage_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["nonsense"], ["genkey", "more"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 1
        assert capsys.readouterr().err.count("\n") == 1
