"""One's own account: password and sessions."""

from __future__ import annotations

from starlette.responses import Response

from hub_server.domain.errors import Invalid, TooMany, Unauthenticated
from hub_server.web.site import Visit, see_other


async def show(visit: Visit) -> Response:
    """Who I am, where I am signed in."""
    return await _page(visit, errors={})


async def _page(visit: Visit, *, errors: dict[str, str], status: int = 200) -> Response:
    sessions = await visit.services.accounts.sessions(visit.actor)
    context = await visit.frame(
        await visit.some_tenant(), "profile", sessions=sessions, errors=errors, saved=visit.asked("saved") == "1"
    )
    return await visit.page("profile.html", context, status)


async def change_password(visit: Visit) -> Response:
    """A new password; all other sessions end."""
    old, new, again = (visit.form.get(name, "") for name in ("old", "new", "again"))
    if new != again:
        return await _page(visit, errors={"again": "the two new passwords differ"}, status=422)
    try:
        await visit.services.accounts.change_password(visit.actor, str(old), str(new))
    except Invalid as refusal:
        return await _page(visit, errors={refusal.field: refusal.detail}, status=422)
    except (Unauthenticated, TooMany) as refusal:
        return await _page(visit, errors={"old": refusal.detail}, status=422)
    return see_other("/profile?saved=1")


async def end_session(visit: Visit) -> Response:
    """Sign out another browser."""
    await visit.services.accounts.end_session(visit.actor, str(visit.request.path_params["session_id"]))
    return see_other("/profile")
