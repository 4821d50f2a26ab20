"""The door in front of the Diffie-Hellmans: mac1, the queue, load, cookies, tokens; B5 to B7, B72, S5 to S7, T23."""

from __future__ import annotations

import pytest

from tests.behaviours.forge import cookie_of, with_macs
from wgpy.config import Endpoint
from wgpy.constants import HANDSHAKE_QUEUE_SIZE, UNDER_LOAD_HOLD, UNDER_LOAD_QUEUE
from wgpy.errors import DropReason
from wgpy.keys import PrivateKey
from wgpy.protocol.door import HandshakeDoor, Knock
from wgpy.protocol.shared import Shared

KEY = PrivateKey(bytes(range(32)))
HERE = Endpoint("192.0.2.1", 51820)
BODY = b"\1\0\0\0IIII" + bytes(108)


@pytest.fixture
def shared() -> Shared:
    shared = Shared(random=lambda count: bytes(range(count)), wall_clock=float)
    shared.private_key = KEY
    return shared


@pytest.fixture
def door(shared: Shared) -> HandshakeDoor:
    return HandshakeDoor(shared)


def message(cookie: bytes = b"") -> bytes:
    return with_macs(BODY, KEY.public_key, cookie)


def fill(door: HandshakeDoor, count: int) -> None:
    for number in range(count):
        door.knock(message(), Endpoint("203.0.113.1", 1 + number), None)


def drain(door: HandshakeDoor, now: float) -> list[Knock]:
    admitted = []
    while door.waiting:
        knock = door.admit(now)
        if knock is not None:
            admitted.append(knock)
    return admitted


def test_without_load_whoever_knows_our_key_is_admitted_in_order(door: HandshakeDoor) -> None:
    fill(door, 3)
    assert [knock.remote.port for knock in drain(door, 0.0)] == [1, 2, 3]
    assert door.admit(0.0) is None


def test_b5_a_wrong_mac1_does_not_even_wait(door: HandshakeDoor, shared: Shared) -> None:
    door.knock(bytes(148), HERE, None)
    assert door.waiting == 0
    assert shared.drops == {DropReason.INVALID_MAC1: 1}


def test_the_queue_is_bounded_and_drops_the_newest(door: HandshakeDoor, shared: Shared) -> None:
    fill(door, HANDSHAKE_QUEUE_SIZE + 7)
    assert door.waiting == HANDSHAKE_QUEUE_SIZE
    assert shared.drops == {DropReason.HANDSHAKE_QUEUE_FULL: 7}


def test_s5_load_is_the_length_of_the_queue_and_holds_for_a_second(door: HandshakeDoor) -> None:
    fill(door, UNDER_LOAD_QUEUE - 1)
    assert not door.is_under_load(0.0)
    fill(door, 1)
    assert door.is_under_load(0.0)
    drain(door, 0.0)
    assert door.is_under_load(UNDER_LOAD_HOLD - 0.001)
    assert not door.is_under_load(UNDER_LOAD_HOLD), "S5: nobody stays in cookie mode for ever"


def under_load(door: HandshakeDoor, shared: Shared) -> None:
    fill(door, UNDER_LOAD_QUEUE)
    assert drain(door, 0.0) == []
    shared.outbox.clear()
    shared.drops.clear()


def test_b6_under_load_a_message_without_mac2_gets_one_cookie_reply(door: HandshakeDoor, shared: Shared) -> None:
    under_load(door, shared)
    door.knock(message(), HERE, "local")
    assert drain(door, 0.1) == []
    (reply,) = shared.outbox
    assert (reply.remote, reply.local, reply.length) == (HERE, "local", 64)
    assert reply.owner is None, "protocol notes 1.9: cookie replies are counted to no peer"
    assert shared.drops == {DropReason.INVALID_MAC2: 1}


def test_s7_tokens_are_taken_only_after_a_valid_mac2(door: HandshakeDoor, shared: Shared) -> None:
    under_load(door, shared)
    for _ in range(50):
        door.knock(message(), HERE, None)
    assert drain(door, 0.1) == []
    assert DropReason.RATE_LIMITED not in shared.drops, "whoever shows no cookie uses up nobody's tokens"
    reply = bytes(shared.outbox[-1].data)
    cookie = cookie_of(reply, KEY.public_key, message()[-32:-16])
    for _ in range(8):
        door.knock(message(cookie), HERE, None)
    assert len(drain(door, 0.2)) == 5
    assert shared.drops[DropReason.RATE_LIMITED] == 3


@pytest.mark.parametrize("hosts", [["192.0.2.1"], ["2001:db8::1", "2001:db8::2:2"]], ids=["IPv4", "one /64"])
def test_s8_tokens_are_those_of_the_address_whatever_the_port(
    door: HandshakeDoor, shared: Shared, hosts: list[str]
) -> None:
    under_load(door, shared)
    sources = [Endpoint(host, port) for port in (1000, 2000) for host in hosts]
    for source in sources:
        door.knock(message(), source, None)
    drain(door, 0.1)
    mac1 = message()[-32:-16]
    cookies = [cookie_of(bytes(reply.data), KEY.public_key, mac1) for reply in shared.outbox]
    for source, cookie in zip(sources, cookies, strict=True):
        for _ in range(4):
            door.knock(message(cookie), source, None)
    assert len(drain(door, 0.1)) == 5


def test_t23_one_call_looks_at_a_bounded_number_of_messages(door: HandshakeDoor, shared: Shared) -> None:
    fill(door, 500)
    assert door.admit(0.0) is None
    assert door.waiting == 500 - 64
    assert len(shared.outbox) == 16, "all are from one address, which got its reply"
    assert shared.drops == {DropReason.INVALID_MAC2: 16, DropReason.COOKIE_WITHHELD: 48}


def test_whoever_got_no_reply_lately_gets_one_whatever_the_flood_around_him(
    door: HandshakeDoor, shared: Shared
) -> None:
    under_load(door, shared)
    fill(door, 40)
    door.knock(message(), HERE, None)
    fill(door, 23)
    assert door.admit(0.5) is None
    assert HERE in [reply.remote for reply in shared.outbox]
    shared.outbox.clear()
    fill(door, 40)
    door.knock(message(), HERE, None)
    assert drain(door, 0.6) == []
    assert HERE not in [reply.remote for reply in shared.outbox]
    fill(door, 40)
    door.knock(message(), HERE, None)
    fill(door, UNDER_LOAD_QUEUE)
    assert drain(door, 1.6) == []
    assert HERE in [reply.remote for reply in shared.outbox], "a second later it gets another one"


def test_a_change_of_key_sends_those_who_wait_away(door: HandshakeDoor, shared: Shared) -> None:
    fill(door, 3)
    shared.private_key = PrivateKey(bytes(32))
    door.identity_changed()
    assert door.waiting == 0
    door.knock(message(), HERE, None)
    assert shared.drops == {DropReason.INVALID_MAC1: 1}
    shared.private_key = None
    door.identity_changed()
    door.knock(message(), HERE, None)
    assert shared.drops[DropReason.INTERFACE_DOWN] == 1
    assert door.admit(0.0) is None


def test_buckets_are_swept_and_say_when(door: HandshakeDoor, shared: Shared) -> None:
    under_load(door, shared)
    assert door.sweep_deadline() is None
    door.knock(message(), HERE, None)
    drain(door, 0.1)
    cookie = cookie_of(bytes(shared.outbox[-1].data), KEY.public_key, message()[-32:-16])
    door.knock(message(cookie), HERE, None)
    drain(door, 0.2)
    deadline = door.sweep_deadline()
    assert deadline is not None
    door.sweep(deadline + 2)
    assert door.sweep_deadline() is None
