"""Signing in and out. The one page for people whom the hub does not know yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from hub_server.auth.cookies import DEVICE_COOKIE, clear_session, set_device, set_session
from hub_server.domain.errors import Invalid, TooMany, Unauthenticated, Unavailable
from hub_server.services import Services
from hub_server.web.kept import Kept
from hub_server.web.site import Visit, again_page, is_from_here, read_form, safe_next, see_other, sign_in_page

Endpoint = Callable[[Request], Awaitable[Response]]


def show(services: Services) -> Endpoint:
    """The form; somebody who is signed in goes on."""

    async def endpoint(request: Request) -> Response:
        address = safe_next(request.query_params.get("next", "/"))
        if getattr(request.state, "actor", None) is not None:
            return see_other(address)
        return sign_in_page(services, next=address)

    return endpoint


def submit(services: Services) -> Endpoint:
    """Check what was typed; the session is a cookie that scripts cannot read."""

    async def endpoint(request: Request) -> Response:
        try:
            form = await read_form(request)
        except Invalid as refusal:
            return sign_in_page(services, next="/", error=refusal.detail, status=refusal.status)
        email, password = str(form.get("email", "")).strip(), str(form.get("password", ""))
        address, kept = safe_next(str(form.get("next", "/"))), Kept.read(str(form.get("kept", "")))
        if not is_from_here(request):
            return sign_in_page(services, next=address, email=email, error="Send the form from this page.", status=403)
        try:
            signed_in = await services.accounts.sign_in(
                email,
                password,
                remote=request.client.host if request.client else "",
                user_agent=request.headers.get("User-Agent", "")[:256],
                device=request.cookies.get(DEVICE_COOKIE, ""),
                request_id=str(getattr(request.state, "request_id", "")),
            )
        except (Unauthenticated, TooMany, Unavailable) as refusal:
            answer = sign_in_page(
                services, next=address, email=email, error=refusal.detail, kept=kept, status=refusal.status
            )
            if isinstance(refusal, (TooMany, Unavailable)):
                answer.headers["Retry-After"] = str(max(1, round(refusal.retry_after)))
            return answer
        if kept is not None and safe_next(kept.action) == kept.action and not signed_in.actor.must_change_password:
            answer = again_page(services, signed_in.actor, kept, next=address)
        else:
            answer = see_other("/profile" if signed_in.actor.must_change_password else address)
        set_session(answer, signed_in.cookie)
        set_device(answer, signed_in.device)
        return answer

    return endpoint


async def sign_out(visit: Visit) -> Response:
    """End the session here and in the hub."""
    await visit.services.accounts.sign_out(visit.actor)
    answer = see_other("/sign-in")
    clear_session(answer)
    return answer
