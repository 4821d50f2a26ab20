"""Numbers, texts, times and documents from outside: a checked value or a `ForeignError` with the field, never else."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_server.domain import foreign
from hub_server.domain.foreign import Document, ForeignError

writable = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -1, 11, True, "5", None, [], {}])
def test_what_is_no_number_within_its_bounds_is_refused(value):
    for read in (foreign.integer, foreign.number):
        with pytest.raises(ForeignError) as refused:
            read("ttl", value, 0, 10)
        assert refused.value.field == "ttl"
        assert refused.value.status == 422


def test_numbers_within_their_bounds_are_taken():
    assert foreign.integer("n", 10, 0, 10) == 10
    assert foreign.number("n", 10, 0, 10) == 10.0
    assert isinstance(foreign.number("n", 10, 0, 10), float)
    with pytest.raises(ForeignError):
        foreign.integer("n", 1.0, 0, 10)


@pytest.mark.parametrize(
    "value", ["", " 5", "+5", "-0", "05", "0" * 5000, "9" * 5000, "5.0", "1_0", "\u0665", "²", "501"]
)
def test_digits_are_plain_short_and_bounded(value):
    with pytest.raises(ForeignError):
        foreign.digits("limit", value, 0, 500)


def test_digits_are_read():
    assert [foreign.digits("limit", text, 0, 500) for text in ("0", "7", "500")] == [0, 7, 500]


@pytest.mark.parametrize("value", ["", "nan", "inf", "1e5", "1" * 50, "0x1", "1.", ".5", "00", "1 ", "11"])
def test_decimals_are_plain_and_bounded(value):
    with pytest.raises(ForeignError):
        foreign.decimal("n", value, 0, 10)
    assert foreign.decimal("n", "2.5", 0, 10) == 2.5


@pytest.mark.parametrize("value", [1e12, -1, math.nan, 10**400, foreign.LATEST + 1, "0", False])
def test_times_outside_the_years_1970_to_9999_are_refused(value):
    with pytest.raises(ForeignError):
        foreign.time("muted_until", value)


def test_moments_are_read_in_every_zone():
    assert foreign.moment("at", "1970-01-01T00:00:00Z") == 0
    assert foreign.moment("at", "2026-11-28T17:00:00.5+02:00") == foreign.moment("at", "2026-11-28T15:00:00.500Z")
    assert foreign.moment("at", "1969-12-31T23:00:00-02:00") == 3600
    assert foreign.moment("at", "2016-12-31T23:59:60Z") == foreign.moment("at", "2017-01-01T00:00:00Z")
    assert foreign.moment("at", "9999-12-31T23:59:59Z") == foreign.LATEST


@pytest.mark.parametrize(
    "value",
    [
        "", "now", "2026-02-30T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "0001-01-01T00:00:00Z",
        "1970-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-01-01T00:00:61Z", "2026-01-01T24:00:00Z",
        "20260-01-01T00:00:00Z", "2026-01-01T00:00:00Z" + " " * 5000, "2026-01-01T00:00:00+99:00",
    ],
)  # fmt: skip
def test_what_is_no_moment_is_refused(value):
    with pytest.raises(ForeignError):
        foreign.moment("at", value)


@pytest.mark.parametrize("value", ["a\ud800", "a\x00", "a\nb", "a\x85", "a\u202eb", "abcdef", None, 5, b"a"])
def test_texts_that_cannot_be_a_name_are_refused(value):
    with pytest.raises(ForeignError) as refused:
        foreign.text("name", value, 5)
    assert refused.value.field == "name"
    refused.value.detail.encode()


def test_texts_of_people_are_taken():
    assert foreign.text("name", "Zoë\u00a0🙂", 5) == "Zoë\u00a0🙂"
    assert foreign.text("note", "a\r\n\tb", 10, lines=True) == "a\r\n\tb"


@given(st.text(alphabet=st.characters()))
def test_a_cleaned_text_can_be_shown_and_stored(value):
    made = foreign.cleaned(value, 10)
    made.encode()
    assert len(made) <= 10
    assert foreign.text("shown", made, 10) == made


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "nested"),
        (b"[" * 70 + b"]" * 70, "nested"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested"),
        (b"[" + b"[]," * 300_000 + b"[]]", "values"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[1e999]", "large"),
        (b"[" + b"1" * 5000 + b"]", "long"),
        (b'{"name": "a\\ud800"}', "half"),
        (b'{"a\\udfff": 1}', "half"),
        (b"\xff", "no JSON"),
        (b"[1]]", "no JSON"),
        (b"0" * 2_000_000, "octets"),
    ],
)
def test_documents_beyond_a_bound_are_refused(octets, said):
    with pytest.raises(ForeignError, match=said):
        foreign.decode_json(octets, 2**20)


def test_the_field_with_half_a_character_is_named():
    with pytest.raises(ForeignError) as refused:
        foreign.decode_json(b'{"custom": [{"verb": "\\ud83d"}]}', 1000)
    assert refused.value.field == "custom[0].verb"
    assert foreign.decode_json(b'["\\ud83d\\ude00", "\\\\ud800"]', 1000) == ["\U0001f600", "\\ud800"]


def test_depth_is_counted_outside_texts_and_exactly():
    assert foreign.decode_json(b"[" * 64 + b"]" * 64, 1000)
    assert foreign.decode_json(rb'["[[[[\"[[["]', 1000, depth=1) == ['[[[["[[[']


@given(writable)
def test_what_json_writes_is_read_again(value):
    assert foreign.decode_json(json.dumps(value, ensure_ascii=False).encode(), 2**20) == value
    assert foreign.decode_json(json.dumps(value).encode(), 2**20) == value


@given(st.binary(max_size=200))
def test_any_octets_are_read_or_refused(octets):
    with contextlib.suppress(ForeignError):
        foreign.decode_json(octets, 100)


@given(st.dictionaries(st.text(), anything))
def test_any_document_is_read_or_refused(value):
    document = Document(value)
    for name in [*document, "missing"]:
        for read in (document.text, document.integer, document.number, document.truth, document.time, document.texts,
                     document.mapping, document.get, document.list, lambda name: list(document.items(name)),
                     lambda name: document.text(name, "x")):  # fmt: skip
            with contextlib.suppress(ForeignError):
                found = read(name)
                assert name in value or not found


def test_a_document_is_read_by_paths():
    document = Document.parse(
        b'{"metadata": {"name": "n1", "labels": {"a": "b"}, "creationTimestamp": "1970-01-01T00:01:00Z"},'
        b' "items": [{"n": 1}, {"n": null}], "zero": "0001-01-01T00:00:00Z", "words": ["x"], "none": null}',
        1000,
    )
    assert document.text("metadata", "name") == "n1"
    assert document.text("metadata", "missing", "deeper") is None
    assert document.mapping("metadata", "labels") == {"a": "b"}
    assert document.time("metadata", "creationTimestamp") == 60
    assert document.time("zero") is None
    assert [one.integer("n") for one in document.items("items")] == [1, None]
    assert document.texts("words") == ("x",)
    assert not document.list("none")
    assert "none" in document
    assert len(document.get("none")) == 0


def test_a_wrong_kind_is_named_by_its_path():
    document = Document.parse(b'{"items": [{"spec": []}, 5]}', 1000, path="answer")
    first = next(document.items("items"))
    with pytest.raises(ForeignError) as refused:
        first.text("spec", "nodeName")
    assert str(refused.value) == "answer.items[0].spec: expected an object"
    with pytest.raises(ForeignError, match=r"answer\.items\[1\]"):
        list(document.items("items"))
