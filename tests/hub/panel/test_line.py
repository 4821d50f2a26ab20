"""Lines against answers that Kubernetes does not send: each ends in words, none in a fault, none beyond its bounds."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hub_server.domain.kubectl import list_to_json, list_to_yaml, to_json, to_yaml
from hub_server.domain.panel import LineRefused, parse, words_of
from hub_server.panel.frames import LONGEST_OUTPUT, Question, Reply
from hub_server.panel.line import run_line

NOW = 1_800_000_000.0
LINES = """\
get pods
get pods -A -o wide --show-labels -L app
get pods a b
get pods -o json
get pods a -o yaml
get pods,svc -o name
get all
get nonsense
describe pod a
describe pods
events
events --for pod/a
logs a
logs deploy/a
top pods -A
top pod a
top nodes
explain pods
explain pods.spec.containers
api-resources -o wide
version
version -o json
auth can-i get pods
auth can-i --list""".splitlines()
# What a hostile cluster would write into documents that are almost right.
NAMES = """\
kind metadata name namespace labels continue items rows cells object columnDefinitions priority format spec status
containers selector matchLabels groups preferredVersion groupVersion resources verbs shortNames usage cpu memory count
allocatable components schemas properties required allOf $ref x-kubernetes-group-version-kind resourceRules series
involvedObject lastTimestamp eventTime firstTimestamp annotations message reason details gitVersion"""
WORDS = ["Table", "PodList", "name", "", "v1", "2026-11-28T17:00:00Z", "9999999-01-01T00:00:00Z", "100m", "\x1b[2J"]


def _ask(octets: bytes, status: int = 200) -> Any:
    def ask(question: Question) -> Reply:
        return Reply(status, octets)

    return ask


def _some(dice: random.Random, depth: int) -> Any:
    kind = dice.random()
    if depth and kind < 0.55:
        return {dice.choice(NAMES.split()): _some(dice, depth - 1) for _ in range(dice.randrange(6))}
    if depth and kind < 0.75:
        return [_some(dice, depth - 1) for _ in range(dice.randrange(4))]
    return dice.choice([*WORDS, None, True, 0, -1, 10**30, 1.5, 3])


@pytest.mark.parametrize("line", LINES)
def test_no_document_ends_a_line_in_a_fault(line: str) -> None:
    dice = random.Random(line)
    for _ in range(300):
        document = _some(dice, 5)
        if isinstance(document, dict) and dice.random() < 0.5:
            document["kind"] = "Table"
        calls = 0
        octets = json.dumps(document).encode()

        def ask(question: Question, octets: bytes = octets) -> Reply:
            nonlocal calls
            calls += 1
            return Reply(200, octets) if calls < 20 else Reply(0, b"", is_over=True)

        found = run_line(parse(line), ask, NOW)
        assert len(found.output) <= LONGEST_OUTPUT + 200
        assert found.exit_code in (0, 1)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("octets", [b"", b"null", b"[]", b"{", b'"x"', b"\xff", b"[" * 100_000, b"1e999"])
def test_what_is_no_document_is_told_in_words(line: str, octets: bytes) -> None:
    if line.startswith("logs"):
        return
    found = run_line(parse(line), _ask(octets), NOW)
    assert "error: " in found.output
    assert found.exit_code == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 500, 503])
def test_a_failure_that_is_no_status_is_told_too(status: int) -> None:
    for octets in (b"", b"<html>", b'{"message":1}', b'{"details":[]}'):
        found = run_line(parse("get pods"), _ask(octets, status), NOW)
        assert str(status) in found.output


def test_one_wide_cell_does_not_make_forty_thousand_wide_rows() -> None:
    definitions = [{"name": "A", "type": "string"}, {"name": "B", "type": "string"}]
    rows = [{"cells": ["x" * 900_000, "y"]}] + [{"cells": ["a", "b"]}] * 40_000
    octets = json.dumps({"kind": "Table", "columnDefinitions": definitions, "rows": rows}).encode()
    found = run_line(parse("get pods"), _ask(octets), NOW)
    assert found.truncated
    assert len(found.output) < LONGEST_OUTPUT + 200


def test_one_long_key_does_not_make_every_line_of_a_description_long() -> None:
    spec = {"k" * 100_000: 1} | {f"k{number}": 1 for number in range(20_000)}
    octets = json.dumps({"metadata": {"name": "a"}, "spec": spec}).encode()
    found = run_line(parse("describe pod a"), _ask(octets), NOW)
    assert found.truncated
    assert len(found.output) < LONGEST_OUTPUT + 200


def test_large_objects_are_asked_for_in_smaller_pages() -> None:
    asked: list[str] = []

    def ask(question: Question) -> Reply:
        asked.append(question.target)
        if "limit=500" in question.target or "limit=125" in question.target:
            return Reply(200, b"", is_too_large=True)
        return Reply(200, json.dumps({"kind": "Table", "rows": [{"cells": []}]}).encode())

    assert run_line(parse("get pods"), ask, NOW).exit_code == 0
    assert [target.rpartition("=")[2] for target in asked] == ["500", "125", "31"]


def test_answers_that_stay_too_large_end_the_line() -> None:
    found = run_line(parse("get pods"), lambda question: Reply(200, b"", is_too_large=True), NOW)
    assert found.output == "error: the answer is too large for the panel: narrow the request\n"


def test_pages_without_end_end_with_the_time_of_the_line() -> None:
    left = 50

    def ask(question: Question) -> Reply:
        nonlocal left
        left -= 1
        if left < 0:
            return Reply(0, b"", is_over=True)
        return Reply(200, b'{"kind":"Table","metadata":{"continue":"x"}}')

    found = run_line(parse("get pods"), ask, NOW)
    assert found.output.startswith("[stopped")
    assert found.exit_code == 1


def test_a_log_that_is_over_keeps_what_came() -> None:
    def ask(question: Question) -> Reply:
        if question.is_text:
            return Reply(200, b"one\ntwo\n", is_over=True)
        return Reply(200, b'{"metadata":{"name":"a"}}')

    found = run_line(parse("logs -f a"), ask, NOW)
    assert found.output.startswith("one\ntwo\n[stopped")
    assert found.exit_code == 0


def test_no_match_is_an_empty_list() -> None:
    found = run_line(parse("get pods -o json"), _ask(b'{"kind":"PodList","items":[]}'), NOW)
    assert json.loads(found.output)["items"] == []
    found = run_line(parse("get pods -o yaml"), _ask(b'{"kind":"PodList","items":[]}'), NOW)
    assert yaml.safe_load(found.output)["items"] == []


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [
        "a\n\n",
        "\n",
        "x\x85y",
        "x\u2028y",
        " x",
        "yes",
        "1e3",
        "0o7",
        "1:30",
        "=",
        "a: b",
        "- x",
        "\ufeff",
        "a\tb\n",
        "#",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_yaml_and_json_say_what_the_document_says(value: Any) -> None:
    assert yaml.safe_load("".join(to_yaml(value))) == value
    assert json.loads("".join(to_json(value))) == value


@given(st.lists(VALUES, max_size=3))
def test_a_list_is_written_item_by_item_as_it_would_be_whole(items: list[Any]) -> None:
    whole = {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}
    assert "".join(list_to_json(items)) == "".join(to_json(whole))
    assert yaml.safe_load("".join(list_to_yaml(items))) == whole


def test_blanks_of_any_width_part_words_and_what_cannot_be_seen_is_named() -> None:
    assert words_of("get\u00a0pods\u2003-A") == ["get", "pods", "-A"]
    assert words_of("get 'a\u00a0b'") == ["get", "a\u00a0b"]
    with pytest.raises(LineRefused, match=r"U\+200B, ZERO WIDTH SPACE"):
        words_of("get pods\u200b")
