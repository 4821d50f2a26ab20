"""Values from outside: a checked value or a `ForeignError` with the field, never anything else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import foreign
from edge_agent.contract import HubConfig, canonical_key
from edge_agent.foreign import Document, ForeignError
from edge_agent.nodes import summary_of
from edge_agent.store import octets_of, texts_of
from tests.edge.fakehub import FakeHub
from tests.edge.fakekube import node

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"1", b'"x"', b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}',
        b'{"a": 1' + b"0" * 400 + b"}",
        b'{"a": 1, "a": 2}', b'{"a": "\\ud800"}', b'{"\\udfff": 1}', b"\xff{}", b'{"a":' * 70 + b"1" + b"}" * 70,
        b"[" * 100_000, b'{"a": "' + b'\\"' * 30_000, b'{"a": [' + b"1," * 50_000 + b"1]}", b" " * 70_000 + b"{}",
    ],
)  # fmt: skip
def test_what_is_no_sound_document_is_refused(text: bytes) -> None:
    with pytest.raises(ForeignError):
        Document.parse(text, 65536, values=40_000)


def test_a_document_is_read_by_paths_and_has_no_index() -> None:
    document = Document.parse('{"a": {"b": "x", "n": 3.0}, "l": [{"c": 1}], "t": ["x"], "no": null}', 1000)
    assert (document.text("a", "b"), document.integer("a", "n", least=0, most=3)) == ("x", 3)
    assert [one.integer("c", least=0, most=1) for one in document.items("l")] == [1]
    assert document.texts("t") == ("x",)
    assert (document.text("no"), document.get("no", "below").text("x"), document.items("none")) == ("", "", [])
    assert not hasattr(document, "__getitem__")


@pytest.mark.parametrize(
    ("read", "path"),
    [
        (lambda one: one.text("n"), "n"),
        (lambda one: one.text("t", most=1), "t"),
        (lambda one: one.integer("t", least=0, most=1), "t"),
        (lambda one: one.integer("n", least=0, most=4), "n"),
        (lambda one: one.integer("yes", least=0, most=4), "yes"),
        (lambda one: one.time("far"), "far"),
        (lambda one: one.truth("n"), "n"),
        (lambda one: one.items("l"), r"l\[0\]"),
        (lambda one: one.texts("l"), "l"),
        (lambda one: one.get("l"), "l"),
        (lambda one: one.text("t", "deeper"), "t"),
        (lambda one: one.line("two"), "two"),
        (lambda one: one.octets("t"), "t"),
        (lambda one: one.mapping("o"), r"o\.p"),
    ],
)
def test_what_is_of_another_kind_is_named_by_its_path(read: Callable[[Document], Any], path: str) -> None:
    text = '{"n": 5, "t": "xyz!", "l": [1], "o": {"p": 1}, "yes": true, "far": 1e20, "two": "a\\nb"}'
    with pytest.raises(ForeignError, match=f"^{path}: "):
        read(Document.parse(text, 1000))


@given(anything)
def test_no_value_makes_a_reader_raise_anything_else(value: object) -> None:
    """What a cluster or a hub sends in place of an object, at each place where one is read."""
    whole = node("one")
    for place in ("metadata", "spec", "status"):
        readers: list[Callable[[], object]] = [
            lambda place=place: summary_of(Document({**whole, place: value})),  # type: ignore[misc]
            lambda: HubConfig.from_document({**FakeHub().public_config(), "hub": value}),
            lambda: HubConfig.from_document({**FakeHub().public_config(), "mtu": value, "keepalive": value}),
            lambda: octets_of(Document({"data": value})),
            lambda: texts_of(Document({"data": value})),
        ]
        for reader in readers:
            with contextlib.suppress(ValueError):
                reader()


@given(st.binary(max_size=300))
def test_no_octets_make_the_parser_raise_anything_else(octets: bytes) -> None:
    with contextlib.suppress(ForeignError):
        Document.parse(octets, 300)


@given(anything)
def test_json_that_can_be_written_is_read(value: object) -> None:
    text = json.dumps({"value": value})
    try:
        document = Document.parse(text, 10**6)
    except ForeignError:
        return
    assert document.has("value") == (value is not None)


@pytest.mark.parametrize("value", ["", " 5", "+5", "-0", "05", "9" * 5000, "5.0", "1_0", "\u0665", "501"])
def test_digits_are_plain_short_and_bounded(value: str) -> None:
    with pytest.raises(ForeignError):
        foreign.digits("limit", value, 0, 500)
    assert foreign.digits("limit", "500", 0, 500) == 500


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-02T03:04:05Z", 1767323045),
        ("2026-01-02T05:04:05.123456+02:00", 1767323045),
        ("9999-12-31T23:59:59Z", 253402300799),
    ],
)
def test_times_of_kubernetes_are_read(text: str, seconds: int) -> None:
    assert foreign.moment("at", text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0000-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "99999-01-01T00:00:00Z", "now", "1"]
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ForeignError):
        foreign.moment("at", text)


def test_http_dates_are_read_or_not() -> None:
    assert foreign.http_date("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777
    for text in (None, "", "yesterday", "Sun, 99 Nov 1994 08:49:37 GMT", "Mon, 01 Jan 99999 00:00:00 GMT", "x" * 10**6):
        assert foreign.http_date(text) is None


def test_texts_are_made_fit_to_show() -> None:
    assert foreign.cleaned("a\x1b[31m\u202e\ud800b" + "c" * 100, 8) == "a\N{REPLACEMENT CHARACTER}[31m" + "\ufffd\ufffd"


def test_a_public_key_has_one_spelling() -> None:
    """The top bit of an X25519 key says nothing, nor does a number beyond the field."""
    key = bytes(range(32))
    assert canonical_key(key) == key
    assert canonical_key(key[:31] + bytes([key[31] | 0x80])) == key
    assert canonical_key((2**255 - 19 + 5).to_bytes(32, "little")) == bytes([5]) + bytes(31)
