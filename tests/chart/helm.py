"""Render the chart with real helm; look at what came out."""

from __future__ import annotations

import functools
import pathlib
import subprocess
from typing import Any

import yaml

from tests.machine import REPOSITORY, find_program

CHART = REPOSITORY / "chart" / "daalu-edge"
TOKEN = "dle_aaaaaaaaaa_" + "b" * 52 + "_" + "c" * 59
URL = "https://hub.daalu.io"
HELMS = ("helm3", "helm4")
# Kubernetes versions whose schemas are at hand: the oldest that is supported to the newest.
VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
CI = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
# The command of the handbook, without its chart address.
COMMAND = ("--namespace", "daalu-edge", "--set", f"hub.url={URL}", "--set", f"bootstrap.token={TOKEN}")


# libyaml's where it is there: five times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """Helm said no; the message is its own."""


@functools.cache
def output(helm: str, *arguments: str, release: str = "daalu-edge") -> str:
    """What `helm template` prints."""
    program = find_program(helm)
    assert program is not None
    done = subprocess.run(
        [program, "template", release, str(CHART), *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render(*arguments: str, helm: str = "helm4") -> list[dict[str, Any]]:
    """The objects, in order."""
    return [one for one in yaml.load_all(output(helm, *arguments), Loader=LOADER) if one]


def with_ci(name: str, *more: str) -> tuple[str, ...]:
    """Arguments for one of the chart's own sets of values."""
    return ("--namespace", "daalu-edge", "--values", str(CHART / "ci" / f"{name}-values.yaml"), *more)


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def is_hook(one: dict[str, Any]) -> bool:
    return "helm.sh/hook" in (one["metadata"].get("annotations") or {})


def pods_of(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pod specifications, by component."""
    pods: dict[str, dict[str, Any]] = {}
    for one in objects:
        if one["kind"] in ("Deployment", "Job"):
            pods[one["metadata"]["labels"]["app.kubernetes.io/component"]] = one["spec"]["template"]["spec"]
        if one["kind"] == "Pod":
            pods["test"] = one["spec"]
    return pods


def environment_of(pod: dict[str, Any]) -> dict[str, Any]:
    [container] = pod["containers"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def text_files() -> list[pathlib.Path]:
    """What people read."""
    return [CHART / "README.md", CHART / "templates" / "NOTES.txt"]
