"""Everything a service of the hub may refuse with.

One class per kind of answer; each knows its HTTP status and its stable code, so that API, pages and log say the same.
A refusal never carries a secret. No I/O here.

HubError
├── NotFound           404   absent, or of another tenant: the two read alike
├── Forbidden          403   visible, but the role does not allow it
├── Unauthenticated    401   nobody is signed in, or the credential is spent
├── ReauthRequired     403   signed in, but the password was not typed within five minutes
├── Invalid            422   a field is wrong; `field` names it
├── Conflict           409   the state of the thing forbids it
├── Stale              412   If-Match names an older revision
├── TooMany            429   a limit; `retry_after` says how long
├── Unavailable        503   the hub cannot now; `retry_after`
└── EdgeUnreachable    502   the tunnel or the API server behind it does not answer
"""

from __future__ import annotations


class HubError(Exception):
    """A refusal with a status, a stable code and a sentence for people."""

    status = 500
    code = "internal"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        """Say what is wrong; `code` narrows the code of the class."""
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code


class NotFound(HubError):
    """Absent, or not yours: both read alike."""

    status, code = 404, "not_found"

    def __init__(self, detail: str = "there is no such thing here", *, code: str | None = None) -> None:
        """Say what is wrong."""
        super().__init__(detail, code=code)


class Forbidden(HubError):
    """You may see it, but not do this."""

    status, code = 403, "forbidden"


class Unauthenticated(HubError):
    """Nobody is signed in, or the credential is not valid (any more)."""

    status, code = 401, "unauthenticated"

    def __init__(self, detail: str = "sign in first", *, code: str | None = None) -> None:
        """Say what is wrong."""
        super().__init__(detail, code=code)


class ReauthRequired(HubError):
    """The act needs a password typed within the last five minutes."""

    status, code = 403, "reauthentication_required"

    def __init__(self, detail: str = "type your password again to go on", *, code: str | None = None) -> None:
        """Say what is wrong."""
        super().__init__(detail, code=code)


class Invalid(HubError):
    """A field is wrong; nothing was changed."""

    status, code = 422, "invalid"

    def __init__(self, field: str, detail: str, *, code: str | None = None) -> None:
        """Say what is wrong."""
        super().__init__(detail, code=code)
        self.field = field


class Conflict(HubError):
    """The state of the thing forbids it; nothing was changed."""

    status, code = 409, "conflict"


class Stale(HubError):
    """Somebody changed it since you read it."""

    status, code = 412, "stale"

    def __init__(self, detail: str = "it changed since you read it: read it again", *, code: str | None = None) -> None:
        """Say what is wrong."""
        super().__init__(detail, code=code)


class TooMany(HubError):
    """A limit was reached; try again after `retry_after` seconds."""

    status, code = 429, "too_many"

    def __init__(self, detail: str, *, retry_after: float, code: str | None = None) -> None:
        """Say what is wrong."""
        super().__init__(detail, code=code)
        self.retry_after = retry_after


class Unavailable(HubError):
    """The hub cannot do it now; try again after `retry_after` seconds."""

    status, code = 503, "unavailable"

    def __init__(self, detail: str, *, retry_after: float = 5.0, code: str | None = None) -> None:
        """Say what is wrong."""
        super().__init__(detail, code=code)
        self.retry_after = retry_after


class EdgeUnreachable(HubError):
    """The tunnel, the edge or the API server behind it does not answer."""

    status, code = 502, "edge_unreachable"
