"""Signing in under attack: guesses elsewhere lock out no open session and no known device; clocks do not matter."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
import trio.testing
from argon2 import PasswordHasher
from sqlalchemy import update

from hub_server.auth.passwords import AT_ONCE, Passwords
from hub_server.auth.turns import WAITING
from hub_server.domain.errors import Forbidden, HubError, Invalid, TooMany, Unauthenticated, Unavailable
from hub_server.domain.roles import Role
from hub_server.services.devices import device_of, device_word
from hub_server.store import schema
from tests.hub.ground import EMAIL, Ground


async def refusals(ground: Ground, remote: str, times: int, **more: Any) -> list[type[HubError]]:
    found = []
    for _ in range(times):
        with pytest.raises(HubError) as refused:
            await ground.services.accounts.sign_in(EMAIL, "wrong", remote=remote, user_agent="", **more)
        found.append(refused.type)
    return found


async def test_a_source_is_slowed_and_all_others_are_not(tmp_path: Path) -> None:
    ground = await Ground.make(tmp_path)
    assert await refusals(ground, "198.51.100.1", 7) == [Unauthenticated] * 5 + [TooMany] * 2
    await ground.sign_in(EMAIL, ground.password, remote="198.51.100.2")
    # One customer has a /64 to himself.
    assert await refusals(ground, "2001:db8::1", 5) == [Unauthenticated] * 5
    assert await refusals(ground, "2001:db8::2:2", 1) == [TooMany]
    assert await refusals(ground, "2001:db8:0:1::1", 1) == [Unauthenticated]


async def test_guesses_from_everywhere_lock_neither_session_nor_known_device_out(tmp_path: Path) -> None:
    ground = await Ground.make(tmp_path)
    accounts = ground.services.accounts
    at_home = await accounts.sign_in(EMAIL, ground.password, remote="192.0.2.7", user_agent="")
    for number in range(40):
        await refusals(ground, f"198.51.100.{number}", 5)
    with pytest.raises(TooMany):
        await accounts.sign_in(EMAIL, ground.password, remote="192.0.2.8", user_agent="")
    await accounts.reauthenticate(at_home.actor, ground.password)
    again = await accounts.sign_in(EMAIL, ground.password, remote="198.51.100.1", user_agent="", device=at_home.device)
    # A device that was stolen has a count of its own, and the session another one.
    assert TooMany in await refusals(ground, "203.0.113.1", 6, device=again.device)
    await accounts.sign_in(EMAIL, ground.password, remote="203.0.113.1", user_agent="", device=at_home.device)
    with pytest.raises(Unauthenticated):
        await accounts.reauthenticate(again.actor, "wrong")


async def test_setting_the_clock_back_keeps_nobody_out(tmp_path: Path) -> None:
    ground = await Ground.make(tmp_path)
    times = [0.0]
    ground.core.monotonic = lambda: times[0]
    assert (await refusals(ground, "198.51.100.1", 6))[-1] is TooMany
    ground.clock.forward(-3600)
    times[0] += 2.1
    await ground.sign_in(EMAIL, ground.password, remote="198.51.100.1")


async def test_a_device_is_of_one_person_for_half_a_year(tmp_path: Path) -> None:
    ground = await Ground.make(tmp_path)
    word = device_word(ground.core, ground.admin.id)
    assert device_of(ground.core, word, ground.admin.id)
    assert device_of(ground.core, word, "us_another") is None
    for bad in ("", "x", word[:-4], word[4:], word + "AAAA", "\ud800", "é" * 20, "A" * 5000):
        assert device_of(ground.core, bad, ground.admin.id) is None
    ground.clock.forward(181 * 86400)
    assert device_of(ground.core, word, ground.admin.id) is None


class Gate(PasswordHasher):
    """Checks as many passwords as it is told to let through."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.let = threading.Semaphore(0)

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        self.let.acquire()
        return super().verify(hash, password)


async def test_a_crowd_of_strangers_does_not_make_the_owner_wait(tmp_path: Path) -> None:
    """Eighty sign-ins at once from one source, and a hundred from as many: some are refused, the owner is next."""
    ground = await Ground.make(tmp_path)
    accounts = ground.services.accounts
    owner = await accounts.sign_in(EMAIL, ground.password, remote="192.0.2.7", user_agent="")
    gate = Gate()
    ground.core.passwords = Passwords(gate)
    ended: list[str] = []

    async def guess(email: str, remote: str) -> None:
        try:
            await accounts.sign_in(email, "wrong", remote=remote, user_agent="")
        except (Unauthenticated, TooMany, Unavailable) as refusal:
            ended.append(refusal.code)

    async with trio.open_nursery() as nursery:
        for number in range(80):
            nursery.start_soon(guess, f"a{number}@example.com", "198.51.100.1")
        for number in range(100):
            nursery.start_soon(guess, f"b{number}@example.com", f"198.51.100.{number + 2}")
        waiting = WAITING + AT_ONCE
        while len(ended) < 180 - waiting:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert ended.count("too_many_attempts") == 75
        assert ended.count("unavailable") == 105 - waiting
        signed_in = trio.Event()

        async def reauthenticate() -> None:
            await accounts.reauthenticate(owner.actor, ground.password)
            signed_in.set()

        nursery.start_soon(reauthenticate)
        await trio.testing.wait_all_tasks_blocked(0.01)
        while not signed_in.is_set():  # one check after the other: the first stranger makes room for the owner
            before = len(ended)
            gate.let.release()
            while len(ended) == before and not signed_in.is_set():
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert ended.count("unauthenticated") <= 2 * AT_ONCE + 1, "most are still waiting"
        gate.let.release(1000)
    assert ended.count("unauthenticated") == waiting


# --- what is compared now and written later --------------------------------------------------------------------------


async def test_of_many_changes_of_a_password_at_once_one_counts(tmp_path: Path) -> None:
    ground = await Ground.make(tmp_path)
    accounts = ground.services.accounts
    sessions = [await ground.sign_in(EMAIL, ground.password, remote=f"192.0.2.{number}") for number in range(6)]
    changed: list[int] = []

    async def change(number: int) -> None:
        with contextlib.suppress(Invalid):
            await accounts.change_password(sessions[number].actor, ground.password, f"the long password of {number}")
            changed.append(number)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(change, number)
    [winner] = changed
    left = [one for one in sessions if await accounts.actor_of_session(one.cookie, remote="")]
    assert left == [sessions[winner]]
    await ground.sign_in(EMAIL, f"the long password of {winner}", remote="198.51.100.9")


async def test_a_password_that_is_changed_while_it_is_compared_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = await Ground.make(tmp_path)
    accounts, verify = ground.services.accounts, Passwords.verify
    owner = await ground.sign_in(EMAIL, ground.password, remote="192.0.2.1")

    async def slowly(self: Passwords, *words: Any, **more: Any) -> bool:
        matches = await verify(self, *words, **more)
        monkeypatch.undo()
        await accounts.change_password(owner.actor, ground.password, "the next password of mine")
        return matches

    monkeypatch.setattr(Passwords, "verify", slowly)
    with pytest.raises(Unauthenticated):
        await ground.sign_in(EMAIL, ground.password, remote="192.0.2.2")
    assert [one.is_current for one in await accounts.sessions(owner.actor)] == [True]


async def test_who_is_demoted_while_a_password_is_hashed_adds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = await Ground.make(tmp_path)
    tenants, make_hash = ground.services.tenants, Passwords.hash
    signed_in = await ground.sign_in(EMAIL, ground.password, remote="192.0.2.1")
    [tenant_id] = signed_in.actor.roles

    async def slowly(self: Passwords, *words: Any, **more: Any) -> str:
        hashed = await make_hash(self, *words, **more)
        table = schema.memberships
        demoted = update(table).where(table.c.user_id == signed_in.actor.id).values(role="viewer")
        await ground.core.database.write(lambda connection: connection.execute(demoted) and None)
        return hashed

    monkeypatch.setattr(Passwords, "hash", slowly)
    with pytest.raises(Forbidden):
        await tenants.add_member(signed_in.actor, tenant_id, email="eve@example.com", name="", role=Role.ADMIN)
    assert [one.email for one in await tenants.members(signed_in.actor, tenant_id)] == [EMAIL]
