"""The one cookie of the hub."""

from __future__ import annotations

from starlette.responses import Response

SESSION_COOKIE = "__Host-daalu"  # the prefix makes browsers insist on Secure, Path=/ and no Domain


def set_session(response: Response, cookie: str) -> None:
    """Give the browser its session: gone when the browser closes, unreadable for scripts, not sent across sites."""
    response.set_cookie(SESSION_COOKIE, cookie, path="/", secure=True, httponly=True, samesite="lax")


def clear_session(response: Response) -> None:
    """Take the session cookie away."""
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
