"""Passwords: what is refused, what is made, and that nothing stored takes as long as a wrong one."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from hub_server.auth.passwords import MAX_LENGTH, MIN_LENGTH, Passwords, check_password, make_password


class Counting(PasswordHasher):
    """A cheap hasher that notes each check."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.checked: list[str] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:
        self.checked.append(str(hash))
        return bool(super().verify(hash, password))


@pytest.mark.parametrize(
    ("length", "is_right"), [(0, False), (MIN_LENGTH - 1, False), (MIN_LENGTH, True), (MAX_LENGTH, True)]
)
def test_a_password_has_a_least_and_a_greatest_length(length: int, is_right: bool) -> None:
    assert (check_password("x" * length) == "") is is_right
    assert str(MAX_LENGTH) in check_password("x" * (MAX_LENGTH + 1))
    assert str(MIN_LENGTH) in check_password("x")


def test_a_made_password_is_long_readable_and_never_the_same() -> None:
    made = {make_password() for _ in range(50)}
    assert len(made) == 50
    for password in made:
        assert [len(part) for part in password.split("-")] == [5, 5, 5, 5]
        assert not set(password) & set("01ilo"), "letters that look like others"
        assert check_password(password) == ""


async def test_the_right_password_and_no_other_matches() -> None:
    passwords = Passwords(Counting())
    stored = await passwords.hash("correct horse battery")
    assert stored != await passwords.hash("correct horse battery"), "salted"
    assert await passwords.verify(stored, "correct horse battery", source="a", known=False)
    assert not await passwords.verify(stored, "correct horse batterY", source="a", known=True)
    assert await passwords.verify(passwords.hash_here("another one"), "another one", source="a", known=False)


async def test_where_nothing_is_stored_a_hash_is_checked_all_the_same() -> None:
    """Else the time of the answer would tell which addresses have an account."""
    hasher = Counting()
    passwords = Passwords(hasher)
    for stored in (None, "", "no hash at all"):
        assert not await passwords.verify(stored, "guess", source="a", known=False)
    assert [bool(one) for one in hasher.checked] == [True] * 3
    assert hasher.checked[0] == hasher.checked[1], "the decoy"
