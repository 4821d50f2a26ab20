"""One call of the API: who asks, its JSON body, and how answers and refusals look.

An `If-Match` header must name the row's revision; an `Idempotency-Key` on a POST makes a repeat return the first
answer, so that a program that lost the answer does not create twice.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hub_server.bootstrap import problem
from hub_server.domain import foreign
from hub_server.domain.errors import HubError, Invalid, Unauthenticated, Unavailable
from hub_server.domain.foreign import Document, ForeignError, cleaned
from hub_server.services import Services
from hub_server.services.core import noting_rights
from hub_server.services.views import Actor
from hub_server.web.site import is_from_here

__all__ = ["Call", "Handler", "endpoint"]

_BODY_LIMIT: Final = 256 * 1024
_VALUES: Final = 20_000
_LONGEST_TEXT: Final = 8192  # services know more
_SHIELDED: Final = 60.0  # seconds that a request with an Idempotency-Key goes on without its caller
_SAFE: Final = frozenset({"GET", "HEAD"})


class _Broken(HubError):
    status, code = 400, "bad_request"


class _Forged(HubError):
    status, code = 403, "csrf"


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as a handler sees it."""

    request: Request
    services: Services
    actor: Actor
    body: Document

    def path(self, name: str) -> str:
        """A part of the path."""
        return cleaned(str(self.request.path_params[name]), 200)

    def asked(self, name: str) -> str:
        """A parameter of the query, empty without it."""
        return foreign.text(name, self.request.query_params.get(name, "").strip(), 500)

    def limit(self) -> int:
        """How many items a page shall have."""
        return foreign.digits("limit", self.asked("limit") or "50", 1, 500)

    def text(self, name: str, default: str | None = None) -> str:
        """A text field of the body."""
        value = self.body.raw(name) if name in self.body else default
        # What surrounds a text is not part of it.
        return foreign.text(name, value.strip() if isinstance(value, str) else value, _LONGEST_TEXT)

    def maybe_text(self, name: str) -> str | None:
        """A text field that may be absent or null."""
        return None if self.body.raw(name) is None else self.text(name)

    def password(self, name: str) -> str:
        """A field with a password, which may hold any character."""
        if (found := self.body.text(name, most=_LONGEST_TEXT)) is None:
            raise Invalid(name, "missing")
        return found

    def words(self, name: str) -> list[str]:
        """A field with a list of texts; absent means empty."""
        return [foreign.text(f"{name}[{at}]", one, _LONGEST_TEXT) for at, one in enumerate(self.body.list(name))]

    def if_match(self) -> int | None:
        """The revision that the caller read; None without the header."""
        text = self.request.headers.get("If-Match", "").strip().removeprefix("W/").strip('"')
        return None if text in ("", "*") else foreign.digits("If-Match", text, 0, 2**31)


Handler = Callable[[Call], Awaitable[Any]]


def plain(value: Any) -> Any:
    """A view as JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    return value


def answer(value: Any, status: int = 200) -> Response:
    """An answer; a cluster carries its revision as ETag."""
    if value is None:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    document = plain(value)
    headers = {"Cache-Control": "no-store"}
    row = document.get("row", document) if isinstance(document, dict) else {}
    if "revision" in row:
        headers["ETag"] = f'"{row["revision"]}"'
    return Response(json.dumps(document, ensure_ascii=False), status, headers, "application/json")


def endpoint(services: Services, handler: Handler, status: int) -> Callable[[Request], Awaitable[Response]]:
    """The Starlette endpoint around a handler."""

    async def serve(request: Request) -> Response:
        actor: Actor | None = request.state.actor
        try:
            if actor is None:
                raise Unauthenticated("send `Authorization: Bearer dlp_...`, or sign in")
            if request.method not in _SAFE and actor.kind == "user":
                _refuse_forged(request, actor)
            body = Document({})
            if request.method not in _SAFE:
                body = await _body(request)
                if (actor := request.state.actor) is None:
                    raise Unauthenticated("what you signed in with ended while the body was sent")
            call = Call(request, services, actor, body)
            key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
            if key is None:
                return answer(await handler(call), status)
            return await _once(call, key, handler, status)
        except HubError as refusal:
            return problem(refusal)

    return serve


def _refuse_forged(request: Request, actor: Actor) -> None:
    sent = request.headers.get("X-CSRF-Token", "")
    if not (hmac.compare_digest(sent.encode(), actor.csrf.encode()) and is_from_here(request)):
        raise _Forged("a call by cookie carries the session's X-CSRF-Token, see GET /v1/me")


async def _body(request: Request) -> Document:
    octets = bytearray()
    try:
        async with contextlib.aclosing(request.stream()) as pieces:
            async for piece in pieces:
                octets += piece
                if len(octets) > _BODY_LIMIT:
                    raise _Broken(f"a body has at most {_BODY_LIMIT} octets")
    except ClientDisconnect:
        raise _Broken("the request broke off") from None
    if not octets:
        return Document({})
    try:
        return Document.parse(octets, _BODY_LIMIT, values=_VALUES)
    except ForeignError as error:
        if error.field:
            raise
        raise _Broken(f"the body is no JSON object that is taken here: {error.detail}") from None


async def _once(call: Call, key: str, handler: Handler, status: int) -> Response:
    """Carry it out once, and answer a repeat with what was answered first."""
    foreign.text("Idempotency-Key", key, 100, least=1)
    asked = f"{call.request.method} {call.request.url.path}\n{json.dumps(call.body.raw(), sort_keys=True)}"
    digest = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).digest()
    idempotence, actor = call.services.idempotence, call.actor
    kept = await idempotence.begin(actor, key, digest)
    if kept is not None:
        return Response(kept.body, kept.status, {"Idempotency-Replayed": "true"}, "application/json")
    try:
        # A caller who hangs up does not undo it: what was begun is ended, and answers the repeat.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _SHIELDED):
            with noting_rights() as passed:
                made = answer(await handler(call), status)
            await idempotence.finish(actor, key, made.status_code, bytes(made.body), passed)
            return made
    except HubError:
        await idempotence.forget(actor, key)  # a refusal changed nothing
        raise
    finally:
        idempotence.broke_off(actor, key)
    raise Unavailable("it took too long; whether it was carried out is not known", code="idempotency_unknown")
