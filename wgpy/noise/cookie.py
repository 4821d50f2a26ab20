"""mac1, mac2 and the cookie reply: what keeps a flood of handshake messages from costing Diffie-Hellmans.

mac1 proves that the sender knows our public key, and costs one hash. Under load we also want mac2, keyed with a cookie
that we send to the address the message claims to come from: whoever shows it receives there.

Source: WireGuard whitepaper, sections 5.3 and 5.4.4, 5.4.7.
"""

from __future__ import annotations

import hmac
from hashlib import blake2s
from typing import TYPE_CHECKING, Final

from wgpy.constants import COOKIE_MAX_AGE, COOKIE_SECRET_MAX_AGE, LABEL_COOKIE, LABEL_MAC1
from wgpy.crypto import xchacha
from wgpy.crypto.kdf import blake2s_hash, mac
from wgpy.errors import BadPacket, DropReason
from wgpy.wire.messages import CookieReply

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CookieChecker", "CookieMaker"]

_NO_MAC2: Final = bytes(16)
_NEVER: Final = float("-inf")


class CookieChecker:
    """The end that is knocked at: checks both MACs and makes cookie replies. Keeps one secret, nothing per sender."""

    __slots__ = ("_cookie_key", "_mac1_key", "_secret", "_secret_made_at")

    def __init__(self, static_public: bytes) -> None:
        """Derive the keys from our public key, 32 octets."""
        self._mac1_key = blake2s_hash(LABEL_MAC1, static_public)
        self._cookie_key = blake2s_hash(LABEL_COOKIE, static_public)
        self._secret = b""
        self._secret_made_at = _NEVER

    def check_mac1(self, message: bytes) -> bool:
        """Whether the sender knows our public key. In constant time."""
        expected = blake2s(message[:-32], key=self._mac1_key, digest_size=16).digest()
        return hmac.compare_digest(expected, message[-32:-16])

    def check_mac2(self, message: bytes, source: bytes, now: float, random: Callable[[int], bytes]) -> bool:
        """Whether the sender has the cookie for the address that the message came from. In constant time.

        Args:
            message: 148 or 92 octets.
            source: IP address and UDP port, in octets; both, or all users behind one NAT would share cookies (S8).
            now: engine time.
            random: for a new secret when the old one is too old.
        """
        expected = mac(self._cookie(source, now, random), message[:-16])
        return hmac.compare_digest(expected, message[-16:])

    def create_reply(self, message: bytes, source: bytes, now: float, random: Callable[[int], bytes]) -> bytes:
        """A cookie reply to a refused message: 64 octets, smaller than what it answers.

        Args:
            message: the initiation or response that is refused.
            source: as for `check_mac2`.
            now: engine time.
            random: for the nonce.
        """
        nonce = random(24)
        cookie = self._cookie(source, now, random)
        encrypted = xchacha.seal(self._cookie_key, nonce, cookie, message[-32:-16])
        # The sender's index is at the same place in both kinds of message; it is echoed back (trap T6).
        return CookieReply(int.from_bytes(message[4:8], "little"), nonce, encrypted).encode()

    def _cookie(self, source: bytes, now: float, random: Callable[[int], bytes]) -> bytes:
        if now - self._secret_made_at >= COOKIE_SECRET_MAX_AGE:
            self._secret = random(32)
            self._secret_made_at = now
        return mac(self._secret, source)


class CookieMaker:
    """The end that knocks: adds both MACs to its messages and remembers the cookie it was given."""

    __slots__ = ("_cookie", "_cookie_made_at", "_last_mac1", "_remote_static")

    def __init__(self, remote_static: bytes) -> None:
        """Knock at the owner of this public key, 32 octets."""
        self._remote_static = remote_static
        self._cookie = b""
        self._cookie_made_at = _NEVER
        self._last_mac1 = b""

    def add_macs(self, body: bytes, now: float) -> bytes:
        """The whole message: body, mac1, and mac2 or zeros.

        Args:
            body: 116 octets of an initiation or 60 of a response.
            now: engine time.
        """
        # The key is derived anew: two hashes per handshake against 32 octets kept per peer.
        mac1 = mac(blake2s_hash(LABEL_MAC1, self._remote_static), body)
        self._last_mac1 = mac1
        if now - self._cookie_made_at < COOKIE_MAX_AGE:
            # Trap T5: mac2 covers mac1.
            return body + mac1 + mac(self._cookie, body + mac1)
        self._cookie = b""
        return body + mac1 + _NO_MAC2

    def consume_reply_untrusted(self, message: bytes, now: float) -> None:
        """Remember the cookie of a reply to the message we sent last; one reply per message (trap T7).

        Args:
            message: 64 octets.
            now: engine time.

        Raises:
            BadPacket: it answers nothing, or does not authenticate.
        """
        reply = CookieReply.decode_untrusted(message)
        if not self._last_mac1:
            raise BadPacket(DropReason.COOKIE_UNEXPECTED)
        key = blake2s_hash(LABEL_COOKIE, self._remote_static)
        self._cookie = xchacha.open_untrusted(key, reply.nonce, reply.encrypted_cookie, self._last_mac1)
        self._cookie_made_at = now
        self._last_mac1 = b""
