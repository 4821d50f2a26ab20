"""Messages made by hand, by the same formulas but not through the engine, for tests that need wrong or odd ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from nacl.bindings import crypto_aead_chacha20poly1305_ietf_decrypt as aead_open
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt as aead_seal
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from wgpy.keys import PrivateKey, PublicKey

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"


def blake(*parts: bytes) -> bytes:
    return hashlib.blake2s(b"".join(parts)).digest()


def keyed(key: bytes, message: bytes, size: int = 16) -> bytes:
    return hashlib.blake2s(message, key=key, digest_size=size).digest()


def hmac(key: bytes, message: bytes) -> bytes:
    inner = blake(bytes(byte ^ 0x36 for byte in key.ljust(64, b"\0")), message)
    return blake(bytes(byte ^ 0x5C for byte in key.ljust(64, b"\0")), inner)


def kdf(key: bytes, message: bytes, count: int) -> list[bytes]:
    secret, last, out = hmac(key, message), b"", []
    for number in range(1, count + 1):
        last = hmac(secret, last + bytes([number]))
        out.append(last)
    return out


def tai64n(seconds: float) -> bytes:
    whole = int(seconds)
    nanoseconds = int((seconds - whole) * 1e9) & ~0xFFFFFF
    return (2**62 + 10 + whole).to_bytes(8, "big") + nanoseconds.to_bytes(4, "big")


def with_macs(message: bytes, receiver: PublicKey, cookie: bytes = b"") -> bytes:
    """A message without its last 32 octets, completed."""
    mac1 = keyed(blake(b"mac1----", bytes(receiver)), message)
    mac2 = keyed(cookie, message + mac1) if cookie else bytes(16)
    return message + mac1 + mac2


def cookie_of(reply: bytes, receiver: PublicKey, mac1: bytes) -> bytes:
    """The cookie in a cookie reply."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

    key = blake(b"cookie--", bytes(receiver))
    return bytes(crypto_aead_xchacha20poly1305_ietf_decrypt(reply[32:], mac1, reply[8:32], key))


@dataclass
class Initiator:
    """An initiator written from the whitepaper (section 5.4), with every secret in the open."""

    key: PrivateKey
    responder: PublicKey
    random: Callable[[int], bytes]
    psk: bytes = bytes(32)
    index: int = 7
    chain: bytes = b""
    digest: bytes = b""
    ephemeral: bytes = b""
    keys: tuple[bytes, bytes, int] | None = None
    cookie: bytes = field(default=b"")

    def initiation(
        self, seconds: float, *, static: bytes | None = None, ephemeral_public: bytes | None = None
    ) -> bytes:
        """An initiation; `static` and `ephemeral_public` put something else into its fields."""
        there = bytes(self.responder)
        self.chain = blake(CONSTRUCTION)
        self.digest = blake(blake(self.chain, IDENTIFIER), there)
        self.ephemeral = self.random(32)
        public = ephemeral_public or crypto_scalarmult_base(self.ephemeral)
        self.digest = blake(self.digest, public)
        (self.chain,) = kdf(self.chain, public, 1)
        self.chain, key = kdf(self.chain, crypto_scalarmult(self.ephemeral, there), 2)
        sealed_static = aead_seal(static or bytes(self.key.public_key), self.digest, bytes(12), key)
        self.digest = blake(self.digest, sealed_static)
        self.chain, key = kdf(self.chain, crypto_scalarmult(bytes(self.key), there), 2)
        sealed_time = aead_seal(tai64n(seconds), self.digest, bytes(12), key)
        self.digest = blake(self.digest, sealed_time)
        head = b"\1\0\0\0" + self.index.to_bytes(4, "little") + public + sealed_static + sealed_time
        return with_macs(head, self.responder, self.cookie)

    def accept(self, response: bytes) -> None:
        """Take the response; raises where it is not for us."""
        public = response[12:44]
        self.digest = blake(self.digest, public)
        (self.chain,) = kdf(self.chain, public, 1)
        (self.chain,) = kdf(self.chain, crypto_scalarmult(self.ephemeral, public), 1)
        (self.chain,) = kdf(self.chain, crypto_scalarmult(bytes(self.key), public), 1)
        self.chain, tau, key = kdf(self.chain, self.psk, 3)
        self.digest = blake(self.digest, tau)
        aead_open(response[44:60], self.digest, bytes(12), key)
        send, receive = kdf(self.chain, b"", 2)
        self.keys = send, receive, int.from_bytes(response[4:8], "little")

    def transport(self, counter: int, plaintext: bytes = b"") -> bytes:
        """A transport data message with any counter; the plaintext is padded as it should be."""
        assert self.keys is not None
        padded = plaintext + bytes(-len(plaintext) % 16)
        nonce = bytes(4) + counter.to_bytes(8, "little")
        head = b"\4\0\0\0" + self.keys[2].to_bytes(4, "little") + counter.to_bytes(8, "little")
        return head + aead_seal(padded, b"", nonce, self.keys[0])

    def read(self, message: bytes) -> bytes:
        """The plaintext of a transport data message from the responder."""
        assert self.keys is not None
        return bytes(aead_open(message[16:], b"", bytes(4) + message[8:16], self.keys[1]))
