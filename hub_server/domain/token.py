"""The bootstrap token: its text, its parts, its proof. What the hub stores of it is the id and a hash of the secret.

    dle_<id>_<secret>_<hub key><check>        127 characters, lower-case base32 without padding

The hub's WireGuard key travels in the token, so that the printed command pins the hub without being longer (D15); the
check lets scanners of source code recognise a leaked one. Pure: keyed hashes and a checksum; X25519 is done by who
calls.

Source: product.md section 5.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field

ID_LENGTH = 10  # characters: 50 bits
SECRET_LENGTH = KEY_LENGTH = 52  # characters: 32 octets
CHECK_LENGTH = 7  # characters: CRC-32
TOKEN_LENGTH = 4 + ID_LENGTH + 1 + SECRET_LENGTH + 1 + KEY_LENGTH + CHECK_LENGTH
PREFIX = "dle_"

INVITE_LIFETIME = 3600  # seconds in which a token can be redeemed
RETRY_LIFETIME = 24 * 3600  # seconds after redemption in which the same key gets the same answer again (D5)
CLOCK_TOLERANCE = 600  # seconds between the edge's clock and the hub's


def is_canonical(public_key: bytes) -> bool:
    """Whether a public key of X25519 is written the one way that every program writes it (RFC 7748 section 5).

    The top bit says nothing, and numbers of 2^255 - 19 and more are others written again.
    """
    return int.from_bytes(public_key, "little") < 2**255 - 19


def _base32(octets: bytes) -> str:
    return base64.b32encode(octets).decode().lower().rstrip("=")


def _unbase32(text: str) -> bytes:
    if text != text.lower():
        raise ValueError("upper case")
    octets = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    if _base32(octets) != text:
        raise ValueError("bits beyond the end")
    return octets


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart."""

    id: str
    secret: bytes = field(repr=False)
    hub_key: bytes

    def text(self) -> str:
        """Write it as it is printed."""
        body = f"{PREFIX}{self.id}_{_base32(self.secret)}_{_base32(self.hub_key)}"
        return body + _base32(binascii.crc32(body.encode()).to_bytes(4, "big"))


def make_token(random: bytes, hub_key: bytes) -> Token:
    """Make a token from 39 random octets: seven for the id, 32 for the secret."""
    return Token(_base32(random[:7])[:ID_LENGTH], random[7:39], hub_key)


def parse_token(text: str) -> Token | None:
    """Take a token apart; None for whatever is not one, without saying why."""
    if len(text) != TOKEN_LENGTH or not text.startswith(PREFIX) or not text.isascii():
        return None
    body, check = text[:-CHECK_LENGTH], text[-CHECK_LENGTH:]
    try:
        _, token_id, secret, hub_key = body.split("_")
        if _unbase32(check) != binascii.crc32(body.encode()).to_bytes(4, "big") or len(token_id) != ID_LENGTH:
            return None
        token = Token(token_id, _unbase32(secret), _unbase32(hub_key))
    except (ValueError, binascii.Error):
        return None
    return token if len(token.secret) == 32 and len(token.hub_key) == 32 else None


def secret_hash(secret: bytes) -> bytes:
    """What is stored. A plain hash: nobody searches 256 random bits."""
    return hashlib.sha256(secret).digest()


# -- proofs ------------------------------------------------------------------------------------------------------------


def _mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key).digest()


def proof_key(shared: bytes) -> bytes:
    """The key of every proof and answer, from X25519(edge, hub): only the holder of either private key has it."""
    return _mac(shared, b"daalu-edge/1 bootstrap")


def bootstrap_proof(key: bytes, token_id: str, public_key: bytes, nonce: bytes, timestamp: int) -> bytes:
    """Bind a public key to a token, at a time."""
    return _mac(key, b"request\0" + token_id.encode() + b"\0" + public_key + nonce + timestamp.to_bytes(8, "big"))


def self_proof(key: bytes, public_key: bytes, nonce: bytes, timestamp: int) -> bytes:
    """Ask for oneself, at a time."""
    return _mac(key, b"self\0" + public_key + nonce + timestamp.to_bytes(8, "big"))


def answer_mac(key: bytes, nonce: bytes, body: bytes) -> bytes:
    """Show that an answer comes from the pinned hub, and belongs to this request."""
    return _mac(key, b"answer\0" + nonce + body)


def psk_seal_parts(shared: bytes, psk: bytes) -> tuple[bytes, bytes]:
    """Key and nonce that seal a preshared key in the answer; the nonce comes from the key: repeats are identical."""
    return _mac(shared, b"daalu-edge/1 psk"), _mac(proof_key(shared), b"psk\0" + psk)[:12]


def same(first: bytes, second: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(first, second)
