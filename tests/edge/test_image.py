"""The two Dockerfiles: what they promise, read from their text; with `-m long`, what the edge's one step makes."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DOCKERFILES = {"edge": "edge_agent", "hub": "hub_server"}
MOST_OCTETS = 60 * 2**20  # beside some 60 MB of a base with Python: well below 150 MB


def instructions(extra: str) -> list[tuple[str, str]]:
    """Name and words of each, with continued lines joined."""
    text = (REPOSITORY / DOCKERFILES[extra] / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


@pytest.mark.parametrize("extra", DOCKERFILES)
def test_the_bases_are_arguments_and_the_last_stage_only_copies(extra: str) -> None:
    """A85: no shell, no package manager, nothing that runs in the final stage; a fixed user that is not root."""
    found = instructions(extra)
    froms = [words for name, words in found if name == "FROM"]
    assert froms == ["${BUILD} AS build", "${BASE}"]
    arguments = [words.partition("=")[0] for name, words in found[:2] if name == "ARG"]
    assert arguments == ["BUILD", "BASE"]
    default = dict(words.split("=", 1) for name, words in found[:2])["BASE"]
    assert "distroless" in default, "neither shell nor package manager"
    last = found[[name for name, _ in found].index("FROM", 3) :]
    assert {name for name, _ in last} <= {
        "FROM",
        "COPY",
        "ENV",
        "USER",
        "WORKDIR",
        "VOLUME",
        "EXPOSE",
        "ENTRYPOINT",
        "CMD",
    }
    assert all(words.startswith("--from=build ") for name, words in last if name == "COPY")
    [user] = [words for name, words in last if name == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, so that runAsNonRoot can be checked"
    for name, words in found:
        if name in ("RUN", "ENTRYPOINT", "CMD"):
            assert json.loads(words), "no shell"


@pytest.mark.parametrize("extra", DOCKERFILES)
def test_what_is_copied_exists_and_the_program_is_the_right_one(extra: str) -> None:
    found = instructions(extra)
    for name, words in found:
        if name == "COPY" and not words.startswith("--from"):
            assert all((REPOSITORY / one).exists() for one in words.split()[:-1])
    assert json.loads(dict(found)["ENTRYPOINT"]) == ["python3", "-m", DOCKERFILES[extra]]


def test_the_chart_runs_the_image_as_it_is() -> None:
    """The user of the image is that of the chart, and the chart's words are commands of the program."""
    values = (REPOSITORY / "chart/daalu-edge/values.yaml").read_text()
    assert dict(instructions("edge"))["USER"] == "65532:65532"
    assert "runAsUser: 65532" in values


@pytest.mark.long
def test_the_edge_carries_what_it_needs_and_no_more(tmp_path: pathlib.Path) -> None:
    """A85: without web framework and database, small, and able to start from that folder alone."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "images/install.py", "edge", str(folder)], cwd=REPOSITORY, check=True, timeout=300)
    octets = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{octets / 1e6:.0f} MB")
    assert octets < MOST_OCTETS
    names = {path.name for path in folder.iterdir()}
    assert {"wgpy", "edge_agent", "trio", "h11", "cryptography"} <= names
    assert not names & {"hub_server", "starlette", "sqlalchemy", "fastapi", "jinja2", "numpy", "pip", "setuptools"}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "edge_agent", "--version"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[0]) == (0, "daalu-edge"), done.stderr
    started = subprocess.run(
        [sys.executable, "-S", "-m", "edge_agent", "doctor", "--hub-url", "http://127.0.0.1:9"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (started.returncode, "FAIL 443: network: " in started.stdout) == (1, True), started.stdout + started.stderr
