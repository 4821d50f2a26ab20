"""Devices on which somebody has signed in before: a sealed word in a cookie, nothing is kept here.

Such a word signs nobody in. It only gives tries of a password a count of their own, so that whoever guesses elsewhere
cannot lock the owner out; one that was stolen has a count of its own as well. Source: OWASP, device cookies.
"""

from __future__ import annotations

import base64
import binascii

from hub_server.auth.cookies import DEVICE_LIFETIME
from hub_server.domain import foreign
from hub_server.domain.foreign import ForeignError
from hub_server.services.core import Core

_LONGEST = 400  # characters
_PURPOSE = "device"


def device_word(core: Core, user_id: str) -> str:
    """A new word for the device on which this person signed in a moment ago."""
    content = f"{user_id} {core.now():.0f} {core.random(12).hex()}"
    return base64.urlsafe_b64encode(core.envelope.seal(content.encode(), _PURPOSE)).decode().rstrip("=")


def device_of(core: Core, word: str, user_id: str) -> str | None:
    """What to count tries from this device by; None unless this person signed in there within half a year."""
    if not 0 < len(word) <= _LONGEST or not word.isascii():
        return None
    try:
        sealed = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))
        owner, at, nonce = core.envelope.open(sealed, _PURPOSE).decode().split(" ")
        age = core.now() - foreign.digits("at", at, 0, 10**12)
    except (ValueError, binascii.Error, ForeignError):
        return None
    return nonce if owner == user_id and age <= DEVICE_LIFETIME else None
