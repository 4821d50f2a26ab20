"""The form of a configuration file: lexing by protocol notes 3.7, places, and editing without loss."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpy.errors import ConfigError
from wgpy.ini import Document

TEXT = """\
# of the house
[Interface]   # us
 ListenPort = 518 20 # spaces are removed
PostUp = echo  "a # b" %i
postup=second

# the office
[ PEER ]
PublicKey=x=y
# between
AllowedIPs = 10.0.0.0/8, 10.1.0.0 / 16
"""


def test_lines_are_read_by_the_rules_of_wg() -> None:
    """`#` starts a comment, all white space goes, names are case-insensitive; shell lines keep both."""
    interface, peer = Document(TEXT).sections
    assert (interface.name, interface.line, interface.last_line) == ("interface", 2, 5)
    assert [(entry.key, entry.value, entry.line) for entry in interface.entries] == [
        ("listenport", "51820", 3),
        ("postup", 'echo  "a # b" %i', 4),
        ("postup", "second", 5),
    ]
    assert (peer.name, peer.line, peer.last_line) == ("peer", 8, 11)
    assert [(entry.name, entry.value, entry.column) for entry in peer.entries] == [
        ("PublicKey", "x=y", 11),
        ("AllowedIPs", "10.0.0.0/8,10.1.0.0/16", 14),
    ]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("Key = value", 1, 1),
        ("[Interface]\n  nonsense\n", 2, 3),
        ("\n\n[Interface\n", 3, 1),
        ("[Peer]\na # = b", 2, 1),
    ],
)
def test_what_is_neither_heading_nor_pair_is_named_with_its_place(text: str, line: int, column: int) -> None:
    with pytest.raises(ConfigError) as raised:
        Document(text)
    assert (raised.value.line, raised.value.column) == (line, column)
    reported: list[ConfigError] = []
    Document(text, reported.append)
    assert [(error.line, error.column) for error in reported] == [(line, column)]


lines = st.sampled_from(
    ["[Interface]", "[Peer]", "# comment", "", "  ", "A = 1", "B=2 # why", " C =3", "PostUp = x # y", "a=4", "#[Peer]"]
)
documents = st.lists(lines, max_size=14).map(lambda some: "\n".join(["[Interface]", *some]))


@given(documents | documents.map(lambda text: text + "\n"))
def test_the_text_comes_back_as_it_was(text: str) -> None:
    assert Document(text).text == text
    assert Document(text).edited([], [], []).rstrip("\n") == text.rstrip("\n")


@given(documents, st.data())
@settings(max_examples=150)
def test_a_change_touches_its_own_lines_only(text: str, data: st.DataObject) -> None:
    document = Document(text)
    section = data.draw(st.sampled_from(document.sections))
    key = data.draw(st.sampled_from(["A", "b", "New"]))
    values = data.draw(st.lists(st.sampled_from(["7", "8"]), max_size=3))
    edited = document.edited([(section, key, values)], [], [])
    place = document.sections.index(section)
    again = Document(edited).sections
    assert len(again) == len(document.sections)
    for number, (before, after) in enumerate(zip(document.sections, again, strict=True)):
        kept = [(entry.key, entry.value) for entry in before.entries if number != place or entry.key != key.lower()]
        assert [
            (entry.key, entry.value) for entry in after.entries if number != place or entry.key != key.lower()
        ] == kept
    assert [entry.value for entry in again[place].entries if entry.key == key.lower()] == values
    comments = [line.strip() for line in text.splitlines() if line.strip().startswith("#")]
    assert [line.strip() for line in edited.splitlines() if line.strip().startswith("#")] == comments


@given(documents, st.data())
def test_a_section_goes_with_the_comments_that_announce_it(text: str, data: st.DataObject) -> None:
    document = Document(text)
    section = data.draw(st.sampled_from(document.sections))
    place = document.sections.index(section)
    again = Document(document.edited([], [section], ["[Peer]\nLast = 1\n"])).sections
    expected = [one for number, one in enumerate(document.sections) if number != place]
    assert [(one.name, [(e.key, e.value) for e in one.entries]) for one in again[:-1]] == [
        (one.name, [(e.key, e.value) for e in one.entries]) for one in expected
    ]
    assert [(entry.key, entry.value) for entry in again[-1].entries] == [("last", "1")]


def test_a_changed_value_keeps_its_comment_and_its_place() -> None:
    document = Document("[Peer]\n  Endpoint =  a:1   # home\nOther = 1\n")
    edited = document.edited([(document.sections[0], "Endpoint", ["b:2"])], [], [])
    assert edited == "[Peer]\n  Endpoint =  b:2  # home\nOther = 1\n"
