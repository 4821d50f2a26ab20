"""Keys as values: 32 octets each, base64 as `wg` prints them, nothing secret in a repr.

Source: RFC 7748 for clamping; wg(8) for the text form.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING, Final, NoReturn, cast

from wgpy.crypto import aead, dh
from wgpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["PresharedKey", "PrivateKey", "PublicKey"]

_SIZE: Final = 32
_ALPHABET: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
# 32 octets leave two bits of the last character unused; `wg` wants them zero.
_LAST: Final = frozenset(b"AEIMQUYcgkosw048")


def _octets(value: object, kind: str) -> bytes:
    """32 octets, from themselves or from the 44 characters that `wg` accepts.

    Never quotes the value: it may be secret.
    """
    value = _text_or_octets(value, kind)
    if isinstance(value, str):
        try:
            text = value.encode("ascii")
        except UnicodeEncodeError:
            raise ConfigError(f"{kind}: base64 has no characters outside ASCII", field=kind) from None
        if len(text) != 44 or text[43:] != b"=":
            raise ConfigError(
                f"{kind}: expected 44 characters of base64 that end in '=', got {len(text)} characters", field=kind
            )
        if not _ALPHABET.issuperset(text[:43]):
            raise ConfigError(f"{kind}: a character that is not base64", field=kind)
        if text[42] not in _LAST:
            raise ConfigError(f"{kind}: not the base64 of 32 octets (stray bits in the last character)", field=kind)
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:  # pragma: no cover - the checks above leave nothing for it to refuse
            raise ConfigError(f"{kind}: not base64", field=kind) from None
    if len(value) != _SIZE:
        raise ConfigError(f"{kind}: expected {_SIZE} octets, got {len(value)}", field=kind)
    return value


def _text_or_octets(value: object, kind: str) -> bytes | str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value
    mend = "; give its public_key" if kind == "PublicKey" and isinstance(value, PrivateKey) else ""
    raise ConfigError(f"a {kind}, octets or base64 is wanted, not a {type(value).__name__}{mend}", field=kind)


class PrivateKey:
    """Our side's identity.

    Compares in constant time, cannot be hashed, and shows nothing of itself in a repr.

    Example:
        >>> import secrets
        >>> key = wgpy.PrivateKey.generate(secrets.token_bytes)
        >>> len(str(key.public_key))
        44
    """

    __slots__ = ("_public_key", "secret")
    __hash__ = None  # type: ignore[assignment]  # a secret has no place in a set or as a key of a dict

    def __init__(self, value: bytes | str) -> None:
        """Take 32 octets or 44 characters of base64; clamped at once, so that what is shown is what is used (B64).

        Raises:
            ConfigError: another length, or not base64. The message does not quote the value.
        """
        self.secret = dh.Secret(_octets(value, "PrivateKey"))
        self._public_key = PublicKey(self.secret.public)

    @classmethod
    def of(cls, value: object) -> PrivateKey:
        """The key as it is, or made of its text or octets; where a program may give either.

        Raises:
            ConfigError: a key of another kind, another length, or not base64.
        """
        return value if isinstance(value, cls) else cls(cast("bytes | str", value))  # which looks at it

    @classmethod
    def generate(cls, random: Callable[[int], bytes] | None = None) -> PrivateKey:
        """Make a new key.

        Args:
            random: a source of unpredictable octets for tests; None takes the one of the cryptographic library.
        """
        return cls(dh.generate() if random is None else random(_SIZE))

    @property
    def public_key(self) -> PublicKey:
        """The public key that belongs to it."""
        return self._public_key

    def to_base64(self) -> str:
        """44 characters. A method, so that no `str()` or f-string shows a secret by accident."""
        return base64.b64encode(self.secret.octets).decode()

    def __bytes__(self) -> bytes:
        """The 32 clamped octets."""
        return self.secret.octets

    def __eq__(self, other: object) -> bool:
        """In constant time."""
        if not isinstance(other, PrivateKey):
            return NotImplemented
        return hmac.compare_digest(self.secret.octets, other.secret.octets)

    def __copy__(self) -> Self:
        """Itself: it cannot change."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: it cannot change."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse: who pickles something that holds a secret did not mean to write it down."""
        raise TypeError("a PrivateKey is not pickled; where it must be kept, keep its to_base64()")

    def __repr__(self) -> str:
        """Nothing of the secret."""
        return "PrivateKey(<hidden>)"


class PublicKey:
    """A peer's name.

    Example:
        >>> key = wgpy.PublicKey("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
        >>> key
        <PublicKey xTIBA5rb>
        >>> str(key)
        'xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg='
    """

    __slots__ = ("_octets",)

    def __init__(self, value: bytes | str) -> None:
        """Take 32 octets or 44 characters of base64.

        Raises:
            ConfigError: another length, or not base64.
        """
        self._octets = _octets(value, "PublicKey")

    @classmethod
    def of(cls, value: object) -> PublicKey:
        """A public key as it is, or made of its text or octets; where a program may give either.

        Raises:
            ConfigError: a key of another kind, another length, or not base64.
        """
        return value if isinstance(value, cls) else cls(cast("bytes | str", value))  # which looks at it

    def __bytes__(self) -> bytes:
        """The 32 octets."""
        return self._octets

    def __str__(self) -> str:
        """44 characters of base64."""
        return base64.b64encode(self._octets).decode()

    def __repr__(self) -> str:
        """The first eight characters: enough to know it again in a log."""
        return f"<PublicKey {str(self)[:8]}>"

    def __eq__(self, other: object) -> bool:
        """In constant time, like every key."""
        if not isinstance(other, PublicKey):
            return NotImplemented
        return hmac.compare_digest(self._octets, other._octets)

    def __hash__(self) -> int:
        """By its octets."""
        return hash(self._octets)


class PresharedKey:
    """A secret that two peers share besides their key pairs; all zero means none (whitepaper 5.2).

    Example:
        >>> wgpy.PresharedKey(bytes(32)).is_zero
        True
    """

    __slots__ = ("_octets",)
    __hash__ = None  # type: ignore[assignment]  # a secret has no place in a set or as a key of a dict

    def __init__(self, value: bytes | str) -> None:
        """Take 32 octets or 44 characters of base64.

        Raises:
            ConfigError: another length, or not base64. The message does not quote the value.
        """
        self._octets = _octets(value, "PresharedKey")

    @classmethod
    def of(cls, value: object) -> PresharedKey:
        """The key as it is, or made of its text or octets; where a program may give either.

        Raises:
            ConfigError: a key of another kind, another length, or not base64.
        """
        return value if isinstance(value, cls) else cls(cast("bytes | str", value))  # which looks at it

    @classmethod
    def generate(cls, random: Callable[[int], bytes] | None = None) -> PresharedKey:
        """Make a new key.

        Args:
            random: a source of unpredictable octets for tests; None takes the one of the cryptographic library.
        """
        return cls(aead.generate_key() if random is None else random(_SIZE))

    @property
    def is_zero(self) -> bool:
        """Whether it stands for no preshared key."""
        return self._octets == bytes(_SIZE)

    def to_base64(self) -> str:
        """44 characters. A method, so that no `str()` or f-string shows a secret by accident."""
        return base64.b64encode(self._octets).decode()

    def __bytes__(self) -> bytes:
        """The 32 octets."""
        return self._octets

    def __eq__(self, other: object) -> bool:
        """In constant time."""
        if not isinstance(other, PresharedKey):
            return NotImplemented
        return hmac.compare_digest(self._octets, other._octets)

    def __copy__(self) -> Self:
        """Itself: it cannot change."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: it cannot change."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse: who pickles something that holds a secret did not mean to write it down."""
        raise TypeError("a PresharedKey is not pickled; where it must be kept, keep its to_base64()")

    def __repr__(self) -> str:
        """Nothing of the secret."""
        return "PresharedKey(<hidden>)"
