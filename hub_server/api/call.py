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

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hub_server.bootstrap import problem
from hub_server.domain.errors import Conflict, HubError, Invalid, Unauthenticated
from hub_server.services import Services
from hub_server.services.views import Actor
from hub_server.web.site import is_from_here

__all__ = ["Call", "Handler", "endpoint"]

_BODY_LIMIT: Final = 256 * 1024
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
    body: Mapping[str, Any]

    def path(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    def asked(self, name: str) -> str:
        """A parameter of the query, empty without it."""
        return self.request.query_params.get(name, "").strip()

    def limit(self) -> int:
        """How many items a page shall have."""
        text = self.asked("limit") or "50"
        if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= 500):
            raise Invalid("limit", "a number from 1 to 500")
        return int(text)

    def text(self, name: str, default: str | None = None) -> str:
        """A text field of the body."""
        value = self.body.get(name, default)
        if not isinstance(value, str):
            raise Invalid(name, "expected text" if name in self.body else "missing")
        return value

    def maybe(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """A field that may be absent or null."""
        value = self.body.get(name)
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise Invalid(name, "wrong type")
        return value

    def words(self, name: str) -> list[str]:
        """A field with a list of texts; absent means empty."""
        value = self.body.get(name, [])
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise Invalid(name, "expected a list of texts")
        return value

    def if_match(self) -> int | None:
        """The revision that the caller read; None without the header."""
        text = self.request.headers.get("If-Match", "").strip().removeprefix("W/").strip('"')
        if not text or text == "*":
            return None
        if not (text.isascii() and text.isdigit()):
            raise Invalid("If-Match", "the ETag of the cluster as it was read")
        return int(text[:18])


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
            body = {} if request.method in _SAFE else await _body(request)
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


async def _body(request: Request) -> Mapping[str, Any]:
    octets = b""
    try:
        async with contextlib.aclosing(request.stream()) as pieces:
            async for piece in pieces:
                octets += piece
                if len(octets) > _BODY_LIMIT:
                    raise _Broken(f"a body has at most {_BODY_LIMIT} octets")
    except ClientDisconnect:
        raise _Broken("the request broke off") from None
    if not octets:
        return {}
    try:
        document = json.loads(octets)
    except (ValueError, RecursionError):
        raise _Broken("the body is no JSON") from None
    if not isinstance(document, dict):
        raise _Broken("the body is no JSON object")
    return document


async def _once(call: Call, key: str, handler: Handler, status: int) -> Response:
    """Answer a repeat with what was answered first."""
    if not 0 < len(key) <= 100 or not key.isprintable():
        raise Invalid("Idempotency-Key", "1 to 100 printable characters")
    asked = f"{call.request.method} {call.request.url.path}\n{json.dumps(call.body, sort_keys=True)}"
    digest = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).digest()
    idempotence = call.services.idempotence
    known = await idempotence.find(call.actor, key)
    if known is not None:
        if not hmac.compare_digest(known.request_hash, digest):
            raise Conflict("this Idempotency-Key was used for another request", code="idempotency_mismatch")
        return Response(known.body, known.status, {"Idempotency-Replayed": "true"}, "application/json")
    made = answer(await handler(call), status)
    await idempotence.keep(call.actor, key, digest, made.status_code, bytes(made.body))
    return made
