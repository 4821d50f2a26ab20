"""The form of a configuration file: lexing by protocol notes 3.7, places, and editing without loss."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpy.errors import ConfigError
from wgpy.ini import Change, Document

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


def test_lines_are_read_by_the_rules_of_wg_and_of_wg_quick() -> None:
    """`#` starts a comment and names are case-insensitive; of white space wg takes none and wg-quick that inside."""
    interface, peer = Document(TEXT).sections
    assert (interface.name, interface.line, interface.last_line, interface.is_quick) == ("interface", 2, 5, True)
    assert [(entry.key, entry.value, entry.line) for entry in interface.entries] == [
        ("listenport", "51820", 3),
        ("postup", 'echo  "a', 4),
        ("postup", "second", 5),
    ]
    assert (peer.name, peer.line, peer.last_line, peer.is_quick) == ("peer", 8, 11, False)
    assert [(entry.name, entry.value, entry.column) for entry in peer.entries] == [
        ("PublicKey", "x=y", 11),
        ("AllowedIPs", "10.0.0.0/8,10.1.0.0/16", 14),
    ]


def test_nothing_of_a_file_is_in_a_repr() -> None:
    document = Document("[Interface]\nPrivateKey = secret\n")
    assert "secret" not in repr(document) + repr(document.sections)


@pytest.mark.parametrize("end", ["\v", "\f", "\x1c", "\x85", "\u2028", "\r"])
def test_a_line_ends_with_a_line_feed_only(end: str) -> None:
    (section,) = Document(f"[Interface]\nPostUp = a{end}b # c{end}d\n").sections
    assert [entry.value for entry in section.entries] == [f"a{end}b"]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("Key = value", 1, 1),
        ("[Interface]\n  nonsense\n", 2, 3),
        ("\n\n[Interface\n", 3, 1),
        ("[Peer]\na # = b", 2, 1),
        ("[Interface]\nPost Up = x", 2, 1),
        ("[ Interface ]\nPostUp = x", 2, 1),
        ("[Interface]\nListenPort\u2009= 1", 2, 11),
        ("[Interface]\nListenPort = 1\0", 2, 15),
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
    assert Document(text).edited([]) == text
    assert Document(text.replace("\n", "\r\n")).edited([]) == text.replace("\n", "\r\n")


@given(documents, st.data())
@settings(max_examples=150)
def test_a_change_touches_its_own_lines_only(text: str, data: st.DataObject) -> None:
    document = Document(text)
    section = data.draw(st.sampled_from(document.sections))
    key = data.draw(st.sampled_from(["A", "b", "New"]))
    entries = [entry for entry in section.entries if entry.key == key.lower()]
    values = data.draw(st.lists(st.sampled_from(["7", "8", None]), min_size=len(entries), max_size=len(entries)))
    values += data.draw(st.lists(st.sampled_from(["7", "8"]), max_size=3))
    edited = document.edited([Change(key, entries, values, section)])
    place = document.sections.index(section)
    again = Document(edited).sections
    assert len(again) == len(document.sections)
    for number, (before, after) in enumerate(zip(document.sections, again, strict=True)):
        kept = [(entry.key, entry.value) for entry in before.entries if number != place or entry.key != key.lower()]
        assert [
            (entry.key, entry.value) for entry in after.entries if number != place or entry.key != key.lower()
        ] == kept
    assert [entry.value for entry in again[place].entries if entry.key == key.lower()] == [
        value for value in values if value is not None
    ]
    assert [line.partition("#")[2] for line in edited.splitlines() if "#" in line] == [
        line.partition("#")[2] for line in text.splitlines() if "#" in line
    ]


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
    document = Document("[Peer]\n  Endpoint =  a:1   # home\t\r\nOther = 1\n")
    section = document.sections[0]
    edited = document.edited([Change("Endpoint", section.entries[:1], ["b:2"], section)])
    assert edited == "[Peer]\n  Endpoint =  b:2   # home\t\r\nOther = 1\n"
