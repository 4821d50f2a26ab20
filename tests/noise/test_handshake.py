"""The whole handshake against the independent `noiseprotocol` package, in both roles; T3, T9, T11, T27, B10, S2.

WireGuard is Noise IKpsk2 with a prologue; what the Noise package makes stands between the header and the MACs.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import load
from wgpy.constants import CONSTRUCTION, IDENTIFIER
from wgpy.crypto.aead import TransportCipher
from wgpy.crypto.dh import Secret
from wgpy.errors import BadPacket, DropReason
from wgpy.noise import handshake
from wgpy.noise.cookie import CookieChecker, CookieMaker
from wgpy.noise.handshake import AuthenticInitiation, InitiationState, SessionKeys
from wgpy.wire.messages import Initiation, Response

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from noise.connection import Keypair, NoiseConnection

NO_PSK = bytes(32)
PSK = bytes(range(100, 132))
TIMESTAMP = bytes.fromhex("400000006553f10a0b000000")
INITIATOR, RESPONDER = Secret(b"\x11" * 32), Secret(b"\x22" * 32)
OUR_EPHEMERAL, THEIR_EPHEMERAL = Secret(b"\x33" * 32), Secret(b"\x44" * 32)


def noise(ours: Secret, theirs: Secret | None, ephemeral: Secret, psk: bytes) -> NoiseConnection:
    """The other implementation, in the role that follows from whether it knows whom it talks to."""
    connection = NoiseConnection.from_name(CONSTRUCTION)
    if theirs is None:
        connection.set_as_responder()
    else:
        connection.set_as_initiator()
        connection.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, theirs.public)
    connection.set_prologue(IDENTIFIER)
    connection.set_psks(psk)
    connection.set_keypair_from_private_bytes(Keypair.STATIC, ours.octets)
    connection.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral.octets)
    with pytest.warns(UserWarning, match="ephemeral keypairs is already set"):
        connection.start_handshake()
    return connection


def initiate(ephemeral: Secret = OUR_EPHEMERAL, timestamp: bytes = TIMESTAMP) -> tuple[InitiationState, bytes]:
    return handshake.create_initiation(
        static=INITIATOR,
        remote_static=RESPONDER.public,
        static_static=INITIATOR.exchange(RESPONDER.public),
        ephemeral=ephemeral,
        timestamp=timestamp,
        sender_index=7,
    )


def authenticated(body: bytes) -> AuthenticInitiation:
    opened = handshake.consume_initiation_untrusted(body + bytes(32), static=RESPONDER)
    return opened.authenticate_untrusted(RESPONDER.exchange(opened.remote_static))


def respond(initiation: AuthenticInitiation, psk: bytes = NO_PSK) -> tuple[bytes, SessionKeys]:
    return handshake.create_response(initiation, preshared_key=psk, ephemeral=THEIR_EPHEMERAL, sender_index=9)


def accept(state: InitiationState, body: bytes, psk: bytes = NO_PSK) -> tuple[int, SessionKeys]:
    return handshake.consume_response_untrusted(state, body + bytes(32), static=INITIATOR, preshared_key=psk)


def seal(key: bytes, counter: int, plaintext: bytes) -> bytes:
    out = bytearray(len(plaintext) + 16)
    nonce = memoryview(bytes(4) + counter.to_bytes(8, "little"))
    TransportCipher(key).seal_rows([nonce], [memoryview(plaintext)], [memoryview(out)])
    return bytes(out)


@pytest.mark.parametrize("psk", [NO_PSK, PSK], ids=["no psk", "psk"])
def test_as_initiator_octet_by_octet_with_the_noise_package(psk: bytes) -> None:
    """T9, T11: the same initiation from the same secrets, its response accepted, its transport keys the same."""
    state, body = initiate()
    twin = noise(INITIATOR, RESPONDER, OUR_EPHEMERAL, psk)
    assert body[8:] == bytes(twin.write_message(TIMESTAMP))

    other = noise(RESPONDER, None, THEIR_EPHEMERAL, psk)
    assert bytes(other.read_message(body[8:])) == TIMESTAMP
    assert other.noise_protocol.handshake_state.rs.public_bytes == INITIATOR.public
    response = Response(9, 7, *split(bytes(other.write_message()), 32)).encode()
    index, keys = accept(state, response, psk)
    assert index == 9
    assert bytes(other.decrypt(seal(keys.sending, 0, b"there"))) == b"there"
    assert bytes(other.encrypt(b"back")) == seal(keys.receiving, 0, b"back")


@pytest.mark.parametrize("psk", [NO_PSK, PSK], ids=["no psk", "psk"])
def test_as_responder_octet_by_octet_with_the_noise_package(psk: bytes) -> None:
    other = noise(INITIATOR, RESPONDER, OUR_EPHEMERAL, psk)
    fields = bytes(other.write_message(TIMESTAMP))
    body = Initiation(7, fields[:32], fields[32:80], fields[80:]).encode()
    initiation = authenticated(body)
    assert (initiation.remote_static, initiation.timestamp) == (INITIATOR.public, TIMESTAMP)
    response, keys = respond(initiation, psk)
    twin = noise(RESPONDER, None, THEIR_EPHEMERAL, psk)
    twin.read_message(fields)
    assert response[12:] == bytes(twin.write_message())
    assert bytes(other.read_message(response[12:])) == b""
    assert bytes(other.encrypt(b"there")) == seal(keys.receiving, 0, b"there")
    assert bytes(other.decrypt(seal(keys.sending, 0, b"back"))) == b"back"


def split(octets: bytes, at: int) -> tuple[bytes, bytes]:
    return octets[:at], octets[at:]


CAPTURES = load("handshakes")


@pytest.mark.parametrize("capture", CAPTURES["handshakes"])
def test_captures_with_a_live_peer_octet_by_octet(capture: dict[str, Any]) -> None:
    """Protocol notes 8.2: made with the ephemeral keys and timestamps of then, every octet is that of then."""
    ours, theirs = Secret(capture["our_private_key"]), Secret(capture["their_private_key"])
    shared, ephemeral, psk = ours.exchange(theirs.public), Secret(capture["our_ephemeral"]), capture["preshared_key"]
    initiation, response = capture["initiation"], capture["response"]
    # Whoever received the initiation could read it; we hold the private keys of both.
    initiator, responder = (ours, theirs) if capture["is_initiator"] else (theirs, ours)
    opened = handshake.consume_initiation_untrusted(initiation, static=responder).authenticate_untrusted(shared)
    assert opened.remote_static == initiator.public
    index = int.from_bytes((initiation if capture["is_initiator"] else response)[4:8], "little")
    macs = CookieMaker(theirs.public)
    if capture["is_initiator"]:
        state, body = handshake.create_initiation(
            static=ours,
            remote_static=theirs.public,
            static_static=shared,
            ephemeral=ephemeral,
            timestamp=opened.timestamp,
            sender_index=index,
        )
        assert macs.add_macs(body, 0.0) == initiation
        assert CookieChecker(ours.public).check_mac1(response), "T3: keyed with the receiver's public key"
        _, keys = handshake.consume_response_untrusted(state, response, static=ours, preshared_key=psk)
    else:
        assert CookieChecker(ours.public).check_mac1(initiation)
        body, keys = handshake.create_response(opened, preshared_key=psk, ephemeral=ephemeral, sender_index=index)
        assert macs.add_macs(body, 0.0) == response
    plaintexts = [unseal(keys.receiving, octets) for octets in capture["transport"]]
    assert plaintexts[-1].startswith(capture["delivered"])
    assert all(octets[4:8] == index.to_bytes(4, "little") for octets in capture["transport"])


def unseal(key: bytes, message: bytes) -> bytes:
    out = bytearray(len(message) - 32)
    wrong = TransportCipher(key).open_rows(
        [memoryview(bytes(4) + message[8:16])], [memoryview(message)[16:]], [memoryview(out)]
    )
    assert not wrong
    return bytes(out)


secrets = st.binary(min_size=32, max_size=32).map(Secret)


@given(secrets, secrets, secrets, secrets, st.sampled_from([NO_PSK, PSK]), st.binary(min_size=12, max_size=12))
def test_both_ends_agree_for_any_keys(
    initiator: Secret, responder: Secret, here: Secret, there: Secret, psk: bytes, timestamp: bytes
) -> None:
    shared = initiator.exchange(responder.public)
    state, body = handshake.create_initiation(
        static=initiator,
        remote_static=responder.public,
        static_static=shared,
        ephemeral=here,
        timestamp=timestamp,
        sender_index=1,
    )
    opened = handshake.consume_initiation_untrusted(body + bytes(32), static=responder)
    initiation = opened.authenticate_untrusted(shared)
    assert (initiation.remote_static, initiation.timestamp) == (initiator.public, timestamp)
    response, keys = handshake.create_response(initiation, preshared_key=psk, ephemeral=there, sender_index=2)
    _, mirrored = handshake.consume_response_untrusted(state, response + bytes(32), static=initiator, preshared_key=psk)
    assert (keys.sending, keys.receiving) == (mirrored.receiving, mirrored.sending)
    assert keys.sending != keys.receiving


@given(st.integers(8, 115), st.integers(0, 7))
def test_one_bit_changed_in_an_initiation_and_it_does_not_authenticate(position: int, bit: int) -> None:
    _, body = initiate()
    damaged = bytearray(body)
    damaged[position] ^= 1 << bit
    if position == 39 and bit == 7:
        return  # X25519 ignores the top bit of a point, but the transcript does not: tested below
    with pytest.raises(BadPacket) as raised:
        authenticated(bytes(damaged))
    assert raised.value.reason is DropReason.HANDSHAKE_UNDECRYPTABLE


def test_the_unused_bit_of_an_ephemeral_key_is_part_of_the_transcript() -> None:
    _, body = initiate()
    damaged = bytearray(body)
    damaged[39] ^= 0x80
    with pytest.raises(BadPacket):
        authenticated(bytes(damaged))


@given(st.integers(12, 59), st.integers(0, 7))
def test_one_bit_changed_in_a_response_and_it_does_not_authenticate(position: int, bit: int) -> None:
    state, body = initiate()
    response, _ = respond(authenticated(body))
    damaged = bytearray(response)
    damaged[position] ^= 1 << bit
    with pytest.raises(BadPacket) as raised:
        accept(state, bytes(damaged))
    assert raised.value.reason is DropReason.HANDSHAKE_UNDECRYPTABLE


def test_t27_another_preshared_key_makes_this_handshake_fail() -> None:
    state, body = initiate()
    response, _ = respond(authenticated(body), PSK)
    with pytest.raises(BadPacket):
        accept(state, response, NO_PSK)
    assert accept(state, response, PSK)[0] == 9, "the failure changed nothing"


def test_an_initiation_for_somebody_else_is_not_readable() -> None:
    _, body = initiate()
    with pytest.raises(BadPacket) as raised:
        handshake.consume_initiation_untrusted(body + bytes(32), static=Secret(b"\x55" * 32))
    assert raised.value.reason is DropReason.HANDSHAKE_UNDECRYPTABLE


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_s2_every_all_zero_secret_is_refused(point: bytes) -> None:
    """T10, B10: es as initiator and responder, ee and se in either role."""
    with pytest.raises(BadPacket) as raised:
        handshake.create_initiation(
            static=INITIATOR,
            remote_static=point,
            static_static=bytes(32),
            ephemeral=OUR_EPHEMERAL,
            timestamp=TIMESTAMP,
            sender_index=7,
        )
    assert raised.value.reason is DropReason.LOW_ORDER_POINT
    state, body = initiate()
    with pytest.raises(BadPacket) as raised:
        handshake.consume_initiation_untrusted(body[:8] + point + body[40:] + bytes(32), static=RESPONDER)
    assert raised.value.reason is DropReason.LOW_ORDER_POINT
    good = authenticated(body)
    for field in ("ephemeral", "remote_static"):
        values = {name: getattr(good, name) for name in AuthenticInitiation.__dataclass_fields__}
        with pytest.raises(BadPacket) as raised:
            respond(AuthenticInitiation(**{**values, field: point}))
        assert raised.value.reason is DropReason.LOW_ORDER_POINT
    response, _ = respond(good)
    with pytest.raises(BadPacket) as raised:
        accept(state, response[:12] + point + response[44:])
    assert raised.value.reason is DropReason.LOW_ORDER_POINT


def test_the_states_show_nothing_of_their_secrets() -> None:
    state, body = initiate()
    initiation = authenticated(body)
    _, keys = respond(initiation)
    for value in (state, initiation, keys):
        assert repr(value).startswith("<wgpy.noise.handshake.")
