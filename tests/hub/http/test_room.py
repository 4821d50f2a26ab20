"""Places: in all and for each source; who waits longest goes first, who works never."""

from __future__ import annotations

import random

import pytest

from hub_server.http.room import Place, Room, source_of


class Guest:
    def __init__(self, room: Room, host: str) -> None:
        self.is_out = False
        self.place = room.admit(host, self.leave_at_once)

    def leave_at_once(self) -> None:
        self.is_out = True


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_a_source_is_an_address_or_a_64(one: str, other: str, is_same: bool) -> None:
    assert (source_of(one) == source_of(other)) is is_same


def test_when_it_is_full_who_waits_longest_goes() -> None:
    room = Room(3, 3)
    first, second, third = (Guest(room, f"192.0.2.{number}") for number in range(3))
    assert first.place is not None
    assert second.place is not None
    first.place.work()
    first.place.wait()  # it was served, and waits again: since later than the others
    fourth = Guest(room, "192.0.2.9")
    assert [guest.is_out for guest in (first, second, third, fourth)] == [False, True, False, False]
    assert (room.taken, room.evicted) == (3, 1)
    second.place.leave()  # its task notices later
    second.place.wait()
    assert room.taken == 3


def test_who_works_stays_and_the_newcomer_is_refused() -> None:
    room = Room(2, 2)
    for number in range(2):
        place = Guest(room, f"192.0.2.{number}").place
        assert place is not None
        place.work()
    assert Guest(room, "192.0.2.9").place is None
    assert room.taken == 2


def test_a_source_beyond_its_share_loses_its_own_and_nobody_else_s() -> None:
    room = Room(10, 3, exempt=["192.0.2.99"])
    other = Guest(room, "198.51.100.1")
    guests = [Guest(room, "192.0.2.1") for _ in range(5)]
    assert [guest.is_out for guest in guests] == [True, True, False, False, False]
    assert not other.is_out
    behind_a_proxy = [Guest(room, "192.0.2.99") for _ in range(6)]
    assert not any(guest.is_out for guest in behind_a_proxy)
    assert room.taken == 10


def test_it_counts_right_whatever_happens() -> None:
    chance = random.Random(7)
    room = Room(20, 6)
    inside: list[tuple[Guest, Place]] = []
    for _ in range(20_000):
        inside = [(guest, place) for guest, place in inside if not guest.is_out]
        act = chance.random()
        if act < 0.4:
            guest = Guest(room, f"192.0.2.{chance.randrange(8)}")
            if guest.place is not None:
                inside.append((guest, guest.place))
        elif inside:
            place = chance.choice(inside)[1]
            chance.choice([place.wait, place.work, place.leave])()
            inside = [(guest, place) for guest, place in inside if not place.has_left]
        still = [place for guest, place in inside if not guest.is_out]
        assert room.taken == len(still) <= 20
        assert room.waiting <= room.taken
