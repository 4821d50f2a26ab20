"""X25519, refusing the all-zero shared secret.

Source: RFC 7748; WireGuard whitepaper, section 5.4 (DH and DH-Generate).
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from wgpy.errors import BadPacket, DropReason

__all__ = ["Secret", "clamp", "generate"]


def generate() -> bytes:
    """32 octets for a new secret, from the library's own generator."""
    return X25519PrivateKey.generate().private_bytes_raw()


def clamp(octets: bytes) -> bytes:
    """Clear and set the bits that X25519 ignores or demands, so that what is stored is what is used (trap T29).

    Args:
        octets: 32 octets.
    """
    scalar = bytearray(octets)
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    return bytes(scalar)


class Secret:
    """A private scalar with its public point: ours for good, or an ephemeral one.

    Attributes:
        octets: the clamped scalar, 32 octets.
        public: the public key, 32 octets.
    """

    __slots__ = ("_key", "octets", "public")

    def __init__(self, octets: bytes) -> None:
        """Clamp and compute the public key, which costs about one exchange.

        Args:
            octets: 32 unpredictable octets.
        """
        self.octets = clamp(octets)
        self._key = X25519PrivateKey.from_private_bytes(self.octets)
        self.public = self._key.public_key().public_bytes_raw()

    def exchange(self, public: bytes) -> bytes:
        """The shared secret, 32 octets.

        Args:
            public: the other end's public key, 32 octets, from anywhere.

        Raises:
            BadPacket: the result is all zero, as for a point of low order (trap T10).
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise BadPacket(DropReason.LOW_ORDER_POINT) from None

    def __repr__(self) -> str:
        """Nothing of the secret."""
        return "<Secret>"
