"""Values, schema, README and NOTES agree (A45); the YAML is tidy."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from chart import readme
from edge_agent.hubapi import CAUSES
from tests.chart.helm import CHART, COMMAND, HELMS, Refused, output, render, text_files
from tests.machine import REPOSITORY, find_program

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def objects_of(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from objects_of(one, f"{path}.{name}" if path else name)


def names_of(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in values.items():
        full = f"{path}.{name}" if path else name
        inside = schema["properties"][name]
        found |= names_of(value, inside, full) if inside.get("properties") else {full}
    return found


def test_values_and_schema_name_the_same() -> None:
    """A45: every value has a default and a description, and the reverse."""
    described = {path for path, one in objects_of(SCHEMA) if path and not one.get("properties")}
    assert names_of(VALUES, SCHEMA) == described
    assert all(one.get("description") for path, one in objects_of(SCHEMA) if path)


def test_unknown_values_are_refused_at_every_level() -> None:
    for path, one in objects_of(SCHEMA):
        if one.get("properties"):
            assert one["additionalProperties"] is False, path


@pytest.mark.needs("helm")
@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    "value", ["nonsense=1", "wg.nonsense=1", "probes.startup.nonsense=1", "hub.existingCASecret.x=1"]
)
def test_helm_refuses_unknown_values(helm: str, value: str) -> None:
    with pytest.raises(Refused, match=r"[Aa]dditional propert"):
        output(helm, *COMMAND, "--set", value)


@pytest.mark.needs("helm")
def test_global_values_of_other_charts_are_taken() -> None:
    for helm in HELMS:
        assert output(helm, *COMMAND, "--set", "global.anything.at.all=1")


def test_the_readme_is_made_from_the_values() -> None:
    """A45: names, defaults and meanings of the table are those of now. To mend it: python chart/readme.py."""
    text = (CHART / "README.md").read_text()
    assert readme.renewed(text) == text
    done = subprocess.run([sys.executable, "chart/readme.py", "--check"], cwd=REPOSITORY, check=False, timeout=60)
    assert done.returncode == 0


def test_every_value_that_people_read_of_exists() -> None:
    """A45: in README and NOTES."""
    known = {path for path, _ in objects_of(SCHEMA)} | {"global.imageRegistry", "global.imagePullSecrets"}
    heads = {path.partition(".")[0] for path in known if path}
    for path in text_files():
        for word in re.findall(r"\b([a-z][A-Za-z]+(?:\.[A-Za-z]+)+)\b", path.read_text()):
            head, _, rest = word.partition(".")
            if head in heads and rest not in ("md", "yaml", "json", "daalu.io"):
                assert word in known, f"{word} in {path.name}"


def test_the_exit_codes_are_documented() -> None:
    """A15: one row of the README for each."""
    text = (CHART / "README.md").read_text()
    rows = re.findall(r"^\| ([0-9, ]+) \|", text, re.M)
    documented = {int(code) for row in rows for code in row.split(",")}
    assert documented == {cause.exit_code for cause in CAUSES.values()}


@pytest.mark.needs("helm")
@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_helm_lint_has_no_complaint(helm: str) -> None:
    program = find_program(helm)
    assert program is not None
    for path in sorted((CHART / "ci").glob("*-values.yaml")):
        done = subprocess.run(
            [program, "lint", "--strict", str(CHART), "--values", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_yaml_is_tidy() -> None:
    files = [str(CHART / "values.yaml"), str(CHART / "Chart.yaml"), *map(str, sorted((CHART / "ci").glob("*.yaml")))]
    rules = (
        "{extends: default, rules: {document-start: disable, line-length: {max: 120}, braces: disable, "
        "indentation: {spaces: 2, indent-sequences: consistent}}}"
    )
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", "-d", rules, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.needs("helm")
@pytest.mark.parametrize("helm", HELMS)
def test_the_notes_name_the_three_commands_and_the_way_out(helm: str, tmp_path: pathlib.Path) -> None:
    """NOTES prints what the handbook's troubleshooting says, with the Job's real name.

    `helm template` shows no notes, and `helm install` asks for a cluster: so they are rendered as a template.
    """
    program = find_program(helm)
    assert program is not None
    chart = tmp_path / "daalu-edge"
    shutil.copytree(CHART, chart)
    notes = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "NOTES.txt").unlink()
    (chart / "templates" / "_notes.tpl").write_text('{{ define "notes" }}' + notes + "{{ end }}")
    (chart / "templates" / "shown.yaml").write_text('notes: |\n  {{ include "notes" . | nindent 2 }}\n')
    done = subprocess.run(
        [program, "template", "daalu-edge", str(chart), "--show-only", "templates/shown.yaml", *COMMAND],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)["notes"]
    for line in (
        "kubectl -n daalu-edge get pods",
        "kubectl -n daalu-edge exec deploy/daalu-edge -- daalu-edge doctor",
        "kubectl -n daalu-edge get jobs",
        "kubectl -n daalu-edge logs job/daalu-edge-bootstrap-",
        "helm test -n daalu-edge daalu-edge",
        "helm uninstall -n daalu-edge daalu-edge",
        "release history",
    ):
        assert line in shown


@pytest.mark.needs("helm")
def test_every_line_of_the_roles_is_explained() -> None:
    """A23, A45: the table of rights in the README has each rule of the default rendering, and no other."""
    objects = render(*COMMAND)
    accounts = {"daalu-edge": "edge", "daalu-edge-bootstrap": "Job"}
    roles = {one["metadata"]["name"]: one["rules"] for one in objects if one["kind"] in ("Role", "ClusterRole")}
    granted = {
        (accounts[subject["name"]], "/".join(filter(None, (group, resource))), verb)
        for one in objects if one["kind"] in ("RoleBinding", "ClusterRoleBinding")
        for subject in one["subjects"] for rule in roles[one["roleRef"]["name"]]
        for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
    }  # fmt: skip
    explained = set()
    for line in (CHART / "README.md").read_text().splitlines():
        if match := re.fullmatch(r"\| (edge|Job) \| [^|]+ \| ([^|]+) \| ([^|]+) \| [^|]+ \|", line):
            account, resources, verbs = match.groups()
            explained |= {
                (account, name, verb) for name in re.findall(r"`(.+?)`", resources) for verb in verbs.split(", ")
            }
    assert explained == granted


def test_every_key_of_the_values_is_commented() -> None:
    """A45: with the words of the schema. To mend it: python chart/readme.py."""
    text = (CHART / "values.yaml").read_text()
    assert readme.commented(text) == text
