"""The cookies of the hub: of the session, of a device that was signed in on before, of the tenant one was in last."""

from __future__ import annotations

from starlette.responses import Response

SESSION_COOKIE = "__Host-daalu"  # the prefix makes browsers insist on Secure, Path=/ and no Domain

DEVICE_COOKIE = "__Host-daalu-device"
TENANT_COOKIE = "__Host-daalu-tenant"
DEVICE_LIFETIME = 180 * 86400


def set_device(response: Response, value: str) -> None:
    """Let the browser show later that its owner signed in here: it proves nothing else, see `services.devices`."""
    response.set_cookie(
        DEVICE_COOKIE, value, path="/", max_age=DEVICE_LIFETIME, secure=True, httponly=True, samesite="lax"
    )


def set_session(response: Response, cookie: str) -> None:
    """Give the browser its session: gone when the browser closes, unreadable for scripts, not sent across sites."""
    response.set_cookie(SESSION_COOKIE, cookie, path="/", secure=True, httponly=True, samesite="lax")


def clear_session(response: Response) -> None:
    """Take the session cookie away."""
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")


def set_tenant(response: Response, slug: str) -> None:
    """Remember in which tenant one was last, for addresses that belong to none; it opens nothing."""
    response.set_cookie(TENANT_COOKIE, slug, path="/", secure=True, httponly=True, samesite="lax")
