"""People: sign-in, sessions, re-authentication, the first administrator."""

from __future__ import annotations

from hub_server.services.views import Actor, SessionView, SignedIn


class Accounts:
    """People: sign-in, sessions, re-authentication, the first administrator."""

    async def sign_in(
        self, email: str, password: str, *, remote: str, user_agent: str, request_id: str = ""
    ) -> SignedIn:
        """Check a password and open a session. Raises Unauthenticated (one text for every cause) or TooMany."""
        raise NotImplementedError

    async def sign_out(self, actor: Actor) -> None:
        """End the session of the actor."""
        raise NotImplementedError

    async def actor_of_session(self, cookie: str, *, remote: str, request_id: str = "") -> Actor | None:
        """The person behind a session cookie, or None."""
        raise NotImplementedError

    async def actor_of_token(self, bearer: str, *, remote: str, request_id: str = "") -> Actor | None:
        """The program behind a `dlp_` token, or None."""
        raise NotImplementedError

    async def reauthenticate(self, actor: Actor, password: str) -> Actor:
        """Type the password again; good for five minutes. Raises Unauthenticated or TooMany."""
        raise NotImplementedError

    async def change_password(self, actor: Actor, old: str, new: str) -> None:
        """Set a new password; ends all other sessions. Raises Invalid(field old|new)."""
        raise NotImplementedError

    async def sessions(self, actor: Actor) -> tuple[SessionView, ...]:
        """The browser sessions of the actor."""
        raise NotImplementedError

    async def end_session(self, actor: Actor, session_id: str) -> None:
        """End one of them."""
        raise NotImplementedError
