"""The demonstration as somebody runs it who has just cloned the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_it_ends_after_the_first_success_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo_hub"],
        cwd=ROOT,
        env={**os.environ, "DEMO_ONCE": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "joined as cl_" in done.stdout
    assert "demo-1" in done.stdout.rpartition("get nodes")[2], "the nodes of the small API server, through the tunnel"
    assert list(tmp_path.iterdir()) == []


def test_a_context_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("apiVersion: v1\nkind: Config\n")
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo_hub"],
        cwd=ROOT,
        env={
            **os.environ,
            "DEMO_ONCE": "1",
            "DEMO_CONTEXT": "nowhere",
            "KUBECONFIG": str(kubeconfig),
            "TMPDIR": str(tmp_path / "tmp"),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert "DEMO_CONTEXT" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []
