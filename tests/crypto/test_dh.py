"""X25519 against RFC 7748; T10 and T29."""

from __future__ import annotations

import pytest

from tests.vectors import load
from wgpy.crypto.dh import Secret, clamp, generate
from wgpy.errors import BadPacket, DropReason

VECTORS = load("x25519")
P = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]


@pytest.mark.parametrize("vector", VECTORS["single"])
def test_rfc_7748_section_5_2_single(vector: dict[str, bytes]) -> None:
    assert Secret(vector["scalar"]).exchange(vector["point"]) == vector["result"]


def test_rfc_7748_section_5_2_iterated() -> None:
    k = u = (9).to_bytes(32, "little")
    for number in range(1, 1001):
        k, u = Secret(k).exchange(u), k
        if str(number) in VECTORS["iterated"]:
            assert k == VECTORS["iterated"][str(number)]


def test_rfc_7748_section_6_1() -> None:
    v = VECTORS["agreement"]
    alice, bob = Secret(v["alice_private"]), Secret(v["bob_private"])
    assert (alice.public, bob.public) == (v["alice_public"], v["bob_public"])
    assert alice.exchange(bob.public) == bob.exchange(alice.public) == v["shared"]


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("top_bit", [0, 1])
def test_t10_a_low_order_point_is_bad_packet_whatever_its_unused_bit(point: int, top_bit: int) -> None:
    octets = (point | top_bit << 255).to_bytes(32, "little")
    with pytest.raises(BadPacket) as raised:
        Secret(bytes(range(32))).exchange(octets)
    assert raised.value.reason is DropReason.LOW_ORDER_POINT


def test_t29_the_stored_scalar_is_the_clamped_one() -> None:
    assert clamp(b"\xff" * 32) == b"\xf8" + b"\xff" * 30 + b"\x7f"
    assert clamp(bytes(32)) == bytes(31) + b"\x40"
    secret = Secret(b"\xff" * 32)
    assert secret.octets == clamp(b"\xff" * 32)
    assert secret.public == Secret(secret.octets).public


def test_generated_secrets_differ() -> None:
    first, second = generate(), generate()
    assert len(first) == len(second) == 32
    assert first != second
