"""Keypairs, their limits, and the slot moves of protocol notes 1.7; B11 to B13, B16, S18, T25."""

from __future__ import annotations

import itertools

import pytest

from wgpy.constants import REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME
from wgpy.errors import LocalProtocolError
from wgpy.noise.handshake import SessionKeys
from wgpy.noise.keypair import Keypair, KeypairSlots

KEYS = SessionKeys(sending=bytes(range(32)), receiving=bytes(range(32, 64)))


def keypair(index: int = 1, *, is_initiator: bool = True, created_at: float = 0.0) -> Keypair:
    return Keypair(KEYS, local_index=index, remote_index=99, is_initiator=is_initiator, created_at=created_at)


def at_counter(counter: int, **more: bool) -> Keypair:
    pair = keypair(**more)
    pair._next_counter = counter
    return pair


def test_b13_a_session_of_180_s_is_good_for_nothing() -> None:
    pair = keypair(created_at=1000.0)
    assert not pair.is_expired(1000 + REJECT_AFTER_TIME - 0.001)
    assert pair.may_send(1000 + REJECT_AFTER_TIME - 0.001, 1)
    assert pair.is_expired(1000 + REJECT_AFTER_TIME)
    assert not pair.may_send(1000 + REJECT_AFTER_TIME, 1)


def test_only_the_initiator_replaces_a_session_for_its_age() -> None:
    """Whitepaper 6.2."""
    assert not keypair(created_at=1000.0).wants_successor(1000 + REKEY_AFTER_TIME - 0.001)
    assert keypair(created_at=1000.0).wants_successor(1000 + REKEY_AFTER_TIME)
    assert not keypair(is_initiator=False).wants_successor(REKEY_AFTER_TIME + 60)


def test_a_new_keypair_has_seen_no_counter_and_asked_for_no_successor() -> None:
    first, second = keypair(1), keypair(2)
    assert not first.was_refreshed
    assert not first.is_receive_only
    assert first.window.accept(0)
    assert second.window.accept(0), "each has a window of its own"


def test_b16_above_2_to_60_either_end_wants_a_successor() -> None:
    assert not at_counter(REKEY_AFTER_MESSAGES).wants_successor(0)
    assert at_counter(REKEY_AFTER_MESSAGES + 1).wants_successor(0)
    assert at_counter(REKEY_AFTER_MESSAGES + 1, is_initiator=False).wants_successor(0)


def test_b16_counters_are_handed_out_once_and_never_at_the_limit() -> None:
    pair = keypair()
    assert [pair.reserve(count)[1] for count in (1, 45, 3)] == [0, 1, 46]
    pair = at_counter(REJECT_AFTER_MESSAGES - 2)
    assert pair.may_send(0, 2)
    assert not pair.may_send(0, 3)
    with pytest.raises(LocalProtocolError):
        pair.reserve(3)
    assert pair.reserve(2)[1] == REJECT_AFTER_MESSAGES - 2
    assert not pair.may_send(0, 1)


def test_s18_a_wiped_keypair_holds_no_cipher_and_may_not_send() -> None:
    pair = keypair()
    pair.wipe()
    assert pair.receiving is None
    assert not pair.may_send(0, 1)
    with pytest.raises(LocalProtocolError):
        pair.reserve(1)


def test_a_repr_has_indices_only() -> None:
    assert repr(keypair(0x1234)) == "<Keypair local_index=0x00001234 remote_index=0x00000063>"


# Protocol notes 1.7, row by row: event, and the slots after it in terms of those before (p, c, n) and the new one (+).
MOVES = {
    ("initiator", False): ("c", "+", None),
    ("initiator", True): ("n", "+", None),
    ("responder", False): (None, "c", "+"),
    ("responder", True): (None, "c", "+"),
    ("confirm", True): ("c", "n", None),
    ("clear", False): (None, None, None),
    ("clear", True): (None, None, None),
}


@pytest.mark.parametrize(("event", "has_next"), MOVES)
@pytest.mark.parametrize(("has_previous", "has_current"), list(itertools.product([False, True], repeat=2)))
def test_the_slots_move_as_the_table_says(event: str, has_next: bool, has_previous: bool, has_current: bool) -> None:
    slots = KeypairSlots()
    before = {
        "p": keypair(1) if has_previous else None,
        "c": keypair(2) if has_current else None,
        "n": keypair(3) if has_next else None,
    }
    slots.previous, slots.current, slots.next = before["p"], before["c"], before["n"]
    new = keypair(4)
    match event:
        case "initiator":
            gone = slots.install_as_initiator(new)
        case "responder":
            gone = slots.install_as_responder(new)
        case "confirm":
            gone = slots.confirm(slots.next)
        case _:
            gone = slots.clear()
    names = {**before, "+": new, None: None}
    after = [slots.previous, slots.current, slots.next]
    assert after == [names[name] for name in MOVES[event, has_next]]
    lost = [pair for pair in before.values() if pair is not None and pair not in after]
    assert sorted(map(id, gone)) == sorted(map(id, lost))
    assert all(pair.receiving is None for pair in gone), "whatever loses its slot loses its keys (S18)"
    assert all(pair is None or pair.receiving is not None for pair in after)


def test_b32_after_a_change_of_key_every_slot_receives_only() -> None:
    slots = KeypairSlots()
    assert slots.is_empty
    slots.previous, slots.current, slots.next = keypair(1), keypair(2), keypair(3)
    slots.stop_sending()
    for pair in (slots.previous, slots.current, slots.next):
        assert not pair.may_send(0, 1)
        assert pair.receiving is not None
    assert not slots.is_empty
