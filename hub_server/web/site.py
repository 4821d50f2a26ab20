"""One request to a page: who asks, what the form says, and how a refusal looks.

`handle` wraps every handler. It sends people who are not signed in to the sign-in page, refuses an unsafe request that
does not carry the session's CSRF field, and turns a refusal of a service into a page with a next step. No rule in here.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from hub_server.domain import foreign
from hub_server.domain.errors import HubError, Invalid, TooMany, Unauthenticated, Unavailable
from hub_server.log import present_request
from hub_server.services import Services
from hub_server.services.views import Actor, TenantView
from hub_server.web import render

MOST_FIELDS = 200
FORM_LIMIT = 256 * 1024


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, as a handler sees it."""

    request: Request
    services: Services
    actor: Actor
    form: FormData

    @property
    def now(self) -> float:
        """The hub's clock."""
        return self.services.now()

    @property
    def is_fragment(self) -> bool:
        """Whether htmx asks, for a part of a page."""
        return (
            self.request.headers.get("HX-Request") == "true"
            and "HX-History-Restore-Request" not in self.request.headers
        )

    @property
    def cluster_id(self) -> str:
        """From the path."""
        return str(self.request.path_params["cluster_id"])

    def field(self, name: str) -> str:
        """A text field of the form, without space around it."""
        value = self.form.get(name, "")
        return value.strip() if isinstance(value, str) else ""

    def fields(self, name: str) -> list[str]:
        """All values of a field that repeats."""
        return [value.strip() for value in self.form.getlist(name) if isinstance(value, str)]

    def asked(self, name: str) -> str:
        """A parameter of the query."""
        return foreign.cleaned(self.request.query_params.get(name, "").strip(), 500)

    async def tenant(self) -> TenantView:
        """The tenant of the path."""
        return await self.services.tenants.get(self.actor, str(self.request.path_params["tenant"]))

    async def frame(self, tenant: TenantView, section: str, **more: Any) -> dict[str, Any]:
        """What every page inside the frame shows: navigation, the badge, who is signed in."""
        return {
            "actor": self.actor,
            "tenant": tenant,
            "tenants": await self.services.tenants.list(self.actor),
            "section": section,
            "alerts_open": await self.services.alerts.open_count(self.actor, tenant.id),
            "now": self.now,
            "path": self.request.url.path,
            **more,
        }

    async def page(
        self, template: str, context: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """A whole page; for htmx its `content` block with the title alone, which is what its targets replace."""
        if self.is_fragment:
            return self.part(template, "content", context, status, headers)
        return render.answer(render.whole(template, context), status, headers)

    def part(
        self,
        template: str,
        block: str,
        context: Mapping[str, Any],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """One block of a page."""
        return render.answer(render.fragment(template, block, context), status, headers)


Handler = Callable[[Visit], Awaitable[Response]]


def see_other(address: str) -> Response:
    """Go there with a GET, after a form did its work."""
    return RedirectResponse(address, 303, render.HEADERS)


def safe_next(address: str) -> str:
    """Where to go after sign-in: a path of this hub, or its first page."""
    parts = urlsplit(address)
    is_ours = (
        address.startswith("/") and not address.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    )
    return address if is_ours and address.isprintable() and "\\" not in address else "/"


def is_from_here(request: Request) -> bool:
    """Whether a form was sent by a page of this hub, as the browser tells."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("Host")


async def read_form(request: Request) -> FormData:
    """The form that a page of ours sent, read to its bound and no further.

    Raises:
        Invalid: it is none, or it broke off.
    """
    octets = bytearray()
    try:
        async with contextlib.aclosing(request.stream()) as pieces:
            async for piece in pieces:
                octets += piece
                if len(octets) > FORM_LIMIT:
                    break
    except ClientDisconnect:
        raise Invalid("", "the form broke off") from None
    fields: list[tuple[str, str | UploadFile]] = [*foreign.form(octets, FORM_LIMIT, fields=MOST_FIELDS)]
    return FormData(fields)


def handle(services: Services, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint around a handler."""

    async def endpoint(request: Request) -> Response:
        actor: Actor | None = getattr(request.state, "actor", None)
        if actor is None or actor.kind != "user":
            if request.method != "GET":
                return error_page(Unauthenticated("your session has ended: sign in and try again"), None, services)
            if request.url.path.endswith("/live") and "text/event-stream" in request.headers.get("Accept", ""):
                # A page that comes back after its session ended: it cannot follow a redirect of its stream.
                told = "event: ended\ndata: your session has ended: sign in again\n\n"
                return Response(told, media_type="text/event-stream", headers=render.HEADERS)
            if request.headers.get("HX-Request") == "true":
                return Response(status_code=401, headers={**render.HEADERS, "HX-Redirect": "/sign-in"})
            address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return see_other("/sign-in" if address == "/" else f"/sign-in?next={quote(address, safe='')}")
        form = FormData()
        try:
            if request.method == "POST":
                form = await read_form(request)
                sent = form.get("csrf") or request.headers.get("X-CSRF-Token", "")
                if not (
                    actor.csrf
                    and isinstance(sent, str)
                    and hmac.compare_digest(sent.encode(), actor.csrf.encode())
                    and is_from_here(request)
                ):
                    return error_page(_Forged(), actor, services)
                if (actor := request.state.actor) is None:
                    raise Unauthenticated("your session ended while the form was sent: sign in and try again")
            return await handler(Visit(request, services, actor, form))
        except HubError as refusal:
            return error_page(refusal, actor, services, is_fragment=request.headers.get("HX-Request") == "true")

    return endpoint


class _Forged(HubError):
    status, code = 403, "csrf"

    def __init__(self) -> None:
        super().__init__("the form did not come from a page of this session: open the page again and repeat it")


_TITLES = {
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    409: "Not possible now",
    412: "It changed meanwhile",
    422: "Something is wrong with the form",
    429: "Too many requests",
    500: "The hub made a mistake",
    502: "The cluster does not answer",
    503: "The hub is busy",
}


def error_page(
    refusal: HubError, actor: Actor | None, services: Services, *, is_fragment: bool = False, request_id: str = ""
) -> Response:
    """A refusal as a page, or as a note inside one: what happened, the next step, the code in small type."""
    headers = {}
    if isinstance(refusal, (TooMany, Unavailable)):
        headers["Retry-After"] = str(max(1, round(refusal.retry_after)))
    context = {
        "actor": actor,
        "now": services.now(),
        "title": _TITLES.get(refusal.status, "It did not work"),
        "detail": refusal.detail,
        "code": refusal.code,
        "status": refusal.status,
        "request_id": request_id or present_request() or (actor.request_id if actor else ""),
    }
    if is_fragment:
        # htmx swaps the answer of a refused request where the result would be.
        return render.answer(render.fragment("error.html", "note", context), refusal.status, headers)
    return render.answer(render.whole("error.html", context), refusal.status, headers)
