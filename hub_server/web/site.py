"""One request to a page: who asks, what the form says, and how a refusal looks.

`handle` wraps every handler. It sends people who are not signed in to the sign-in page, refuses an unsafe request that
does not carry the session's CSRF field, and turns a refusal of a service into a page with a next step. No rule in here.
"""

from __future__ import annotations

import contextlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from hub_server.auth.cookies import TENANT_COOKIE, set_tenant
from hub_server.domain import foreign
from hub_server.domain.errors import HubError, Invalid, NotFound, TooMany, Unavailable
from hub_server.log import present_request
from hub_server.services import Services
from hub_server.services.views import Actor, TenantView
from hub_server.web import render
from hub_server.web.kept import Kept

MOST_FIELDS = 200
FORM_LIMIT = 256 * 1024


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, as a handler sees it."""

    request: Request
    services: Services
    actor: Actor
    form: FormData
    live_id: int = 0  # the newest event when the request came

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

    async def some_tenant(self) -> TenantView:
        """The tenant that the address names, or else where one was last, for pages that belong to none.

        Raises:
            NotFound: the actor belongs to no tenant.
        """
        tenants = await self.services.tenants.list(self.actor)
        if not tenants:
            raise NotFound("your account belongs to no tenant yet: ask an administrator to add you")
        wanted = (self.asked("tenant"), self.request.cookies.get(TENANT_COOKIE))
        by_slug = {tenant.slug: tenant for tenant in tenants}
        return next((by_slug[slug] for slug in wanted if slug in by_slug), tenants[0])

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
            "live_id": self.live_id,
            "once": secrets.token_urlsafe(12),
            **more,
        }

    async def page(
        self, template: str, context: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """A whole page; for htmx its `content` block with the title alone, which is what its targets replace."""
        if self.is_fragment:
            return self.part(template, "content", context, status, headers)
        answer = render.answer(render.whole(template, context), status, headers)
        if (tenant := context.get("tenant")) is not None and self.request.cookies.get(TENANT_COOKIE) != tenant.slug:
            set_tenant(answer, tenant.slug)
        return answer

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


def _is_surely_from_here(request: Request) -> bool:
    """Whether the browser itself says that a page of this hub sent it: what it brings may be shown again."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    return "Origin" in request.headers and is_from_here(request)


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
                return await _ended(request, services)
            if request.url.path.endswith("/live") and "text/event-stream" in request.headers.get("Accept", ""):
                # A page that comes back after its session ended: it cannot follow a redirect of its stream.
                told = "event: ended\ndata: your session has ended: sign in again\n\n"
                return Response(told, media_type="text/event-stream", headers=render.HEADERS)
            if request.headers.get("HX-Request") == "true":
                return Response(status_code=401, headers={**render.HEADERS, "HX-Redirect": _sign_in(_page_of(request))})
            return see_other(_sign_in(request.url.path + (f"?{request.url.query}" if request.url.query else "")))
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
                    return _forged(request, actor, services, form)
                if (actor := request.state.actor) is None:  # it ended while the form was sent
                    return await _ended(request, services, form)
            return await handler(Visit(request, services, actor, form, services.live.last_id))
        except HubError as refusal:
            return error_page(
                refusal,
                actor,
                services,
                is_fragment=request.headers.get("HX-Request") == "true",
                path=request.url.path,
            )

    return endpoint


def _sign_in(address: str) -> str:
    return "/sign-in" if address == "/" else f"/sign-in?next={quote(address, safe='')}"


def _page_of(request: Request) -> str:
    """The page from which htmx asks."""
    parts = urlsplit(request.headers.get("HX-Current-URL", ""))
    return safe_next(parts.path + (f"?{parts.query}" if parts.query else ""))


# To htmx a form whose session is gone is answered with nothing: the page's script sends it again without htmx, so that
# the page about it, which keeps what was typed, is a page and not a part of one.
_ALONE: Final = {**render.HEADERS, "HX-Reswap": "none"}


async def _ended(request: Request, services: Services, form: FormData | None = None) -> Response:
    """A form came without a session: sign in, and what was typed is offered again."""
    if request.headers.get("HX-Request") == "true":
        return Response(status_code=401, headers=_ALONE)
    kept = None
    if _is_surely_from_here(request) and request.url.path != "/sign-out":
        with contextlib.suppress(Invalid):
            kept = Kept.of(request.url.path, (form or await read_form(request)).multi_items())
    told = "Your session has ended. Sign in again" + (": what you typed is kept." if kept else " and repeat it.")
    return sign_in_page(services, next=request.url.path, error=told, kept=kept, status=401)


def _forged(request: Request, actor: Actor, services: Services, form: FormData) -> Response:
    """A form without this session's field: of a page of an earlier session it is offered again, else refused."""
    kept = Kept.of(request.url.path, form.multi_items()) if _is_surely_from_here(request) else None
    if kept is None:
        return error_page(_Forged(), actor, services, path=request.url.path)
    if request.headers.get("HX-Request") == "true":
        return Response(status_code=401, headers=_ALONE)
    return again_page(services, actor, kept, next=request.url.path, status=403)


def sign_in_page(
    services: Services, *, next: str, email: str = "", error: str = "", kept: Kept | None = None, status: int = 200
) -> Response:
    """The sign-in form."""
    context = {"now": services.now(), "next": next, "email": email, "error": error, "kept": kept}
    context["request_id"] = present_request()
    return render.answer(render.whole("sign_in.html", context), status)


def again_page(services: Services, actor: Actor, kept: Kept, *, next: str, status: int = 200) -> Response:
    """A form that was not carried out, to be sent with one click."""
    context = {"now": services.now(), "actor": actor, "kept": kept, "next": next}
    return render.answer(render.whole("again.html", context), status)


class _Forged(HubError):
    status, code = 403, "csrf"

    def __init__(self) -> None:
        super().__init__("the form did not come from a page of this session: open the page again and repeat it")


def _back(path: str) -> str:
    """Where an error page leads: the tenant of its address, or where one was last."""
    found = re.match(r"(/t/[a-z0-9-]+)/.", path)
    return found[1] if found else "/"


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
    refusal: HubError,
    actor: Actor | None,
    services: Services,
    *,
    is_fragment: bool = False,
    request_id: str = "",
    path: str = "",
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
        "back": _back(path),
        "request_id": request_id or present_request() or (actor.request_id if actor else ""),
    }
    if is_fragment:
        # It stands beside what is on the page, in place of nothing; the page's stream has its own words.
        if not path.endswith("/live"):
            headers |= {"HX-Retarget": "#failed", "HX-Reswap": "innerHTML"}
        return render.answer(render.fragment("error.html", "note", context), refusal.status, headers)
    return render.answer(render.whole("error.html", context), refusal.status, headers)
