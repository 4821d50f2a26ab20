"""What edges ask over HTTPS before they have a tunnel: `POST /v1/edge/bootstrap`, `/v1/edge/self`, `/v1/edge/probe`.

Only parses and answers; `services.joining` decides. Bodies are never logged. Every answer of ours that counts carries
a MAC in `Daalu-Answer-Mac`, so that an edge believes the hub of its token and nobody in between.
"""

from __future__ import annotations

import base64
import contextlib
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hub_server.domain.errors import HubError, Unavailable
from hub_server.domain.foreign import ForeignError, decode_json
from hub_server.log import present_request
from hub_server.services.joining import Answer, Joining, Refused, parse_request_untrusted

__all__ = ["problem", "routes"]

log = structlog.get_logger("hub.bootstrap")

_BODY_LIMIT: Final = 64 * 1024


def routes(joining: Joining) -> list[BaseRoute]:
    """The three addresses."""

    async def bootstrap(request: Request) -> Response:
        remote = _remote(request)
        return await _answered(request, joining, has_token=True, remote=remote)

    async def about(request: Request) -> Response:
        return await _answered(request, joining, has_token=False, remote=_remote(request))

    async def probe(request: Request) -> Response:
        try:
            joining.refuse_if_too_many(_remote(request))
            asked = await _document(request)
            answer = joining.probe(asked.get("pubkey") if isinstance(asked, dict) else None)
        except HubError as refusal:
            return problem(refusal)
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    return [
        Route("/v1/edge/bootstrap", bootstrap, methods=["POST"]),
        Route("/v1/edge/self", about, methods=["POST"]),
        Route("/v1/edge/probe", probe, methods=["POST"]),
    ]


async def _answered(request: Request, joining: Joining, *, has_token: bool, remote: str) -> Response:
    try:
        joining.refuse_if_too_many(remote)
        asked = parse_request_untrusted(await _document(request), has_token=has_token)
        answer = await (joining.redeem(asked, remote) if has_token else joining.about(asked))
    except HubError as refusal:
        return problem(refusal)
    except SQLAlchemyError:
        # To the edge it must not look final: it tries again for as long as its token is good.
        log.exception("the database does not answer")
        return problem(Unavailable("the hub is busy: try again in a moment"))
    return _signed(answer)


def _remote(request: Request) -> str:
    return request.client.host if request.client is not None else ""


async def _document(request: Request) -> Any:
    body = b""
    try:
        async with contextlib.aclosing(request.stream()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > _BODY_LIMIT:
                    raise Refused(413, "too_large", f"a request has at most {_BODY_LIMIT} octets")
    except ClientDisconnect:
        raise Refused(400, "bad_request", "the request broke off") from None
    try:
        return decode_json(body, _BODY_LIMIT, values=1000)
    except ForeignError as error:
        raise Refused(400, "bad_request", f"the body is no JSON that is taken here: {error}") from None


def _signed(answer: Answer) -> Response:
    headers = {"Daalu-Answer-Mac": base64.b64encode(answer.mac).decode(), "Cache-Control": "no-store"}
    return Response(answer.body, media_type="application/json", headers=headers)


def problem(refusal: HubError) -> Response:
    """A refusal as a problem document (RFC 9457)."""
    document = {
        "type": "about:blank",
        "title": refusal.code.replace("_", " ").capitalize(),
        "status": refusal.status,
        "code": refusal.code,
        "detail": refusal.detail,
        **getattr(refusal, "more", {}),
    }
    if request_id := present_request():
        document["request_id"] = request_id
    if (field := getattr(refusal, "field", None)) is not None:
        document["field"] = field
    headers = {"Cache-Control": "no-store"}
    if (after := getattr(refusal, "retry_after", None)) is not None:
        headers["Retry-After"] = str(max(1, round(after)))
    return JSONResponse(document, refusal.status, headers, media_type="application/problem+json")
