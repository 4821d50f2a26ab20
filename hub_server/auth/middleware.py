"""Who asks: turns a session cookie or a `dlp_` token into `request.state.actor`, before any handler runs.

The actor is None when nobody is signed in; handlers decide what that means. A browser's unsafe requests are checked
where their form is read (`web.site`, `api`), since only there the CSRF field can be seen. A body may take minutes, and
its sender lose a right meanwhile: behind its last piece stands the actor of that moment. Whoever signed in with a
password that the hub made gets no further than to changing it: all else is refused here, whatever its handler is.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol, TypeAlias

import trio
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response

from hub_server.auth.cookies import SESSION_COOKIE
from hub_server.bootstrap import problem
from hub_server.domain.errors import Forbidden
from hub_server.services.views import Actor

__all__ = ["Authentication"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_BEARER: Final = re.compile(r"[Bb]earer +(dlp_[0-9A-Za-z_-]{1,200})")
# Seconds for which an answer to "who asks" is taken as that of this moment.
_FRESH: Final = 1.0
# What a password that the hub made is good for: to look at oneself, to change it, to go away.
_CHANGING: Final = frozenset(
    {
        ("GET", "/profile"),
        ("POST", "/profile/password"),
        ("GET", "/sign-in"),
        ("POST", "/sign-in"),
        ("POST", "/sign-out"),
        ("GET", "/v1/me"),
        ("POST", "/v1/auth/password"),
    }
)


class _Accounts(Protocol):
    async def actor_of_session(self, cookie: str, *, remote: str, request_id: str = "") -> Actor | None: ...

    async def actor_of_token(self, bearer: str, *, remote: str, request_id: str = "") -> Actor | None: ...


class Authentication:
    """ASGI middleware around pages and API."""

    def __init__(self, application: Application, accounts: _Accounts) -> None:
        """Take the application inside, and who knows people and programs."""
        self._application = application
        self._accounts = accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        request_id = state.setdefault("request_id", secrets.token_hex(8))
        actor = state["actor"] = await self._actor(scope, request_id)
        looked_at = trio.current_time()

        async def receive_and_look() -> MutableMapping[str, Any]:
            message = await receive()
            is_over = message["type"] == "http.request" and not message.get("more_body", False)
            if is_over and state["actor"] is not None and trio.current_time() - looked_at > _FRESH:
                again = await self._actor(scope, request_id)
                state["actor"] = None if again is not None and _must_change(again, scope) else again
            return message

        async def send_strictly(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and scope.get("scheme") == "https":
                strict = (b"strict-transport-security", b"max-age=31536000")
                message["headers"] = [*message.get("headers", ()), strict]
            await send(message)

        if actor is not None and _must_change(actor, scope):
            await _change_first(scope)(scope, receive, send_strictly)
        else:
            await self._application(scope, receive_and_look, send_strictly)

    async def _actor(self, scope: Scope, request_id: str) -> Actor | None:
        if scope["path"].startswith(("/static/", "/healthz", "/readyz", "/v1/edge/")):
            return None
        remote = (scope.get("client") or ("", 0))[0]
        cookie, bearer = "", ""
        for name, value in scope["headers"]:
            if name == b"cookie":
                cookie = cookie or cookie_parser(value.decode("latin-1")).get(SESSION_COOKIE, "")
            elif name == b"authorization":
                found = _BEARER.fullmatch(value.decode("latin-1"))
                bearer = found[1] if found else ""
        if bearer:
            return await self._accounts.actor_of_token(bearer, remote=remote, request_id=request_id)
        if cookie:
            return await self._accounts.actor_of_session(cookie[:200], remote=remote, request_id=request_id)
        return None


def _must_change(actor: Actor, scope: Scope) -> bool:
    is_for_changing = (scope.get("method"), scope["path"]) in _CHANGING or scope["path"].startswith("/static/")
    return actor.must_change_password and not is_for_changing


def _change_first(scope: Scope) -> Response:
    """A program is told what to do, a browser is led there."""
    if scope["path"].startswith("/v1/"):
        return problem(
            Forbidden(
                "your password was made by the hub and is good for choosing your own only: "
                "POST /v1/auth/password, or sign in with a browser",
                code="password_change_required",
            )
        )
    headers = {"Cache-Control": "no-store"}
    if (b"hx-request", b"true") in scope["headers"]:
        return Response(status_code=403, headers={**headers, "HX-Redirect": "/profile"})
    return RedirectResponse("/profile", 303, headers)
