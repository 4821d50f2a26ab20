"""What stands behind the HTTPS port: who is asked, who the visitor is, and how a refusal looks to whom.

    /k8s/...         kubectl's door, as it is           a refusal is a Kubernetes `Status`
    everything else  pages, JSON API, edges' bootstrap  a page for browsers, for others a problem document (RFC 9457)

The server below (`hub_server.http`) knows none of that. Every refusal carries the id that the log has.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from hub_server.domain import foreign
from hub_server.domain.errors import HubError
from hub_server.domain.headers import status_document
from hub_server.http import Application, Explain, Limits, Message, Scope, problem_document
from hub_server.misplaced import is_misplaced, serve_hint
from hub_server.services import Services
from hub_server.settings import Settings
from hub_server.web.site import error_page

__all__ = ["Door", "application", "explaining", "limits_of"]

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Addresses that programs ask: of ours, and what tools try that take this for an API server or a workload.
_OF_PROGRAMS: Final = re.compile(
    r"/(?:v1|k8s|apis?|version|openapi|healthz|livez|readyz|metrics|\.well-known)(?:[/.].*)?"
)
_MISTAKE: Final = "the hub made a mistake: its log tells more under the id of this request"


class Door:
    """The one HTTPS port: kubectl's requests go to its door as they are, everything else to pages and API."""

    def __init__(self, site: Application, kubectl: Application, trusted: frozenset[str], public_url: str) -> None:
        """Take the two applications, the proxies whose word about the visitor's address is taken, and our own name."""
        self._site = site
        self._kubectl = kubectl
        self._trusted = trusted
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["client"] = self._visitor(scope)
        if scope["path"].startswith("/k8s/"):
            await self._kubectl(scope, receive, send)
        elif is_misplaced(scope):
            await serve_hint(scope, receive, send, self._public_url)
        else:
            await self._site(scope, receive, send)

    def _visitor(self, scope: Scope) -> tuple[str, int]:
        """Who is at the other end: of proxies that we trust, the one that none of them is."""
        host, port = scope.get("client") or ("", 0)
        if host not in self._trusted:
            return host, port
        named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        for hop in reversed([hop.strip() for line in named for hop in line.split(",")]):
            try:
                host, port = str(ip_address(hop)), 0
            except ValueError:
                break  # the proxy passed on what a visitor made up
            if host not in self._trusted:
                break
        return host, port


def limits_of(settings: Settings) -> Limits:
    """The time limits of connections."""
    return Limits(
        handshake=settings.handshake_timeout,
        head=settings.head_timeout,
        body=settings.body_timeout,
        body_rate=settings.body_rate,
        idle=settings.idle_timeout,
        stall=settings.stall_timeout,
    )


# --- refusals --------------------------------------------------------------------------------------------------------


def explaining(services: Services) -> Explain:
    """How a refusal looks that no handler made."""

    def explain(
        scope: Scope | None, status: int, detail: str, request_id: str
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        if scope is not None and scope["path"].startswith("/k8s/"):
            reason = "InternalError" if status >= 500 else "BadRequest"
            fields = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
            return fields, status_document(status, reason, f"{detail} (request {request_id})")
        if scope is None or not _is_browser(scope):
            return problem_document(scope, status, detail, request_id)
        problem = HubError(detail, code=_CODES.get(status, "refused"))
        problem.status = status
        actor = scope.get("state", {}).get("actor")
        page = error_page(
            problem,
            actor,
            services,
            request_id=request_id,
            path=scope["path"],
            is_fragment=(b"hx-request", b"true") in scope["headers"],
        )
        return [field for field in page.raw_headers if field[0] != b"content-length"], bytes(page.body)

    return explain


_CODES: Final = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 408: "timeout", 500: "internal"}


def _is_browser(scope: Scope) -> bool:
    """Whether a page is the right answer: it is asked for, and not at an address of programs."""
    if _OF_PROGRAMS.fullmatch(scope["path"]):
        return False
    accepted = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
    weights = {"text/html": 0.0, "application/json": 0.0}
    for kind, *parameters in (part.split(";") for part in accepted.lower().split(",")[:50]):
        if (name := kind.strip().replace("application/problem+json", "application/json")) in weights:
            weights[name] = max(weights[name], _weight(parameters))
    return 0 < weights["text/html"] >= weights["application/json"]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.strip() == "q":
            try:
                return foreign.decimal("q", value.strip(), 0, 1)
            except foreign.ForeignError:
                return 0.0
    return 1.0


def application(routes: list[BaseRoute], explain: Explain) -> Starlette:
    """The site: its routes, and refusals for whatever none of them takes or a handler did not expect."""

    def answer(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
        fields, body = explain(request.scope, status, detail, getattr(request.state, "request_id", ""))
        response = Response(body, status, headers)
        response.raw_headers += fields
        return response

    async def refused(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, HTTPException), "it is registered for that"
        status, detail, headers = problem.status_code, problem.detail, dict(problem.headers or {})
        if status == 404:
            detail = "there is nothing at this address"
        elif status == 405:
            headers["Allow"] = ", ".join(sorted(_methods(request)))
            detail = f"this address takes {headers['Allow']}"
        return answer(request, status, detail, headers)

    async def unexpected(request: Request, problem: Exception) -> Response:
        return answer(request, 500, _MISTAKE)

    async def refused_by_us(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, HubError), "it is registered for that"
        after = getattr(problem, "retry_after", None)
        headers = {} if after is None else {"Retry-After": str(max(1, round(after)))}
        return answer(request, problem.status, problem.detail, headers)

    handlers: dict[Any, Any] = {HTTPException: refused, HubError: refused_by_us, Exception: unexpected}
    return Starlette(routes=routes, exception_handlers=handlers)


def _methods(request: Request) -> set[str]:
    """What the address takes, of all the routes that know it."""
    known: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            known |= route.methods or set()
    return known
