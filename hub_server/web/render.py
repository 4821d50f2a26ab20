"""Templates, and the words in which pages say times and sizes. Knows no service and no request.

Every page leaves through `answer`, which adds the headers: scripts and styles come from this hub only and never inline,
nobody may frame a page, nothing is kept in shared caches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2_fragments
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from hub_server.domain.foreign import LATEST, calendar
from hub_server.domain.reasons import EXPLANATIONS, Reason
from hub_server.domain.roles import Right

FOLDER = Path(__file__).resolve().parent
STATIC = FOLDER / "static"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

# The class of a phase: decides dot and colour, which only repeat the word beside them.
TONES = {
    "connected": "ok",
    "reconnecting": "warn",
    "disconnected": "bad",
    "blocked": "bad",
    "invited": "idle",
    "redeemed": "idle",
    "deleted": "idle",
}
# What happened, in words; the kind itself stands beside it, for programs and searches.
EVENTS = {
    "alert.opened": "Alert opened",
    "alert.resolved": "Alert resolved",
    "api.ok": "API server answers again",
    "api.unreachable": "API server unreachable from the edge",
    "api.forbidden": "API server refuses the edge",
    "cluster.accepted": "New identity accepted",
    "cluster.blocked": "Blocked",
    "cluster.deleted": "Deleted",
    "config.rejected": "The edge refused a setting",
    "edge.goodbye": "The edge said goodbye",
    "edge.key_replaced": "Joined again: the new key is in use",
    "edge.misbehaved": "The edge sent what was refused",
    "edge.upgraded": "Edge upgraded",
    "invite.created": "Invite made",
    "invite.expired": "Invite expired",
    "invite.misused": "Invite used by another key",
    "invite.needed": "Installed again: needs a new invite",
    "invite.redeemed": "Invite redeemed",
    "invite.revoked": "Invite withdrawn",
    "tunnel.connected": "Connected for the first time",
    "tunnel.disconnected": "Disconnected",
    "tunnel.lost": "Fell silent",
    "tunnel.restored": "Connected again",
    "clock.off": "The node's clock is off",
    "clock.ok": "The node's clock is right again",
}
REASON_TONES = {
    Reason.TUNNEL_UP_API_UNREACHABLE: "warn",
    Reason.API_FORBIDDEN: "warn",
    Reason.EDGE_TOKEN_REFUSED: "warn",
    Reason.CLOCK_SKEW: "warn",
    Reason.INVITE_EXPIRED: "warn",
}


def moment(at: float) -> datetime:
    """A Unix time as a UTC date."""
    return calendar(at)


def iso(at: float) -> str:
    """For `datetime` attributes, milliseconds included."""
    return moment(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def full(at: float) -> str:
    """The whole truth, for hover and screen readers."""
    return moment(at).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(at: float) -> str:
    """A time of day."""
    return moment(at).strftime("%H:%M:%S")


def hour(at: float) -> str:
    """A time of day without seconds."""
    return moment(at).strftime("%H:%M")


def whole_seconds(seconds: float) -> int:
    """Seconds to show: not negative, and whatever they are, a number."""
    return math.floor(min(seconds, LATEST)) if seconds > 0 else 0


def age(seconds: float) -> str:
    """How long: `12 s`, `4 min`, `3 h`, `9 d`. The script on the page ticks with the same words."""
    whole = whole_seconds(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def span(seconds: float) -> str:
    """A length with a second unit where it matters: `91 s`, `4 min 10 s`, `2 h 5 min`."""
    whole = whole_seconds(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 and whole < 600 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 >= 60 else "")


def countdown(seconds: float) -> str:
    """Minutes and seconds that are left, as on a clock."""
    whole = whole_seconds(seconds)
    head = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{head}{whole // 60 % 60:02}:{whole % 60:02}"


def size(octets: float) -> str:
    """`310 MB`, `1.2 GB`; powers of ten, as networks count."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while octets >= 1000 and len(units) > 1:
        octets /= 1000
        del units[0]
    unit = units[0]
    return f"{octets:.0f} {unit}" if unit == "B" or octets >= 100 else f"{octets:.1f} {unit}"


def milliseconds(seconds: float) -> str:
    """A round trip."""
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"


def time_tag(at: float, now: float, kind: str = "age", id: str = "") -> Markup:
    """A time that the page's script keeps true: `age` since, `clock` since, `until` counts down, `due` in words."""
    words = {
        "age": lambda: age(now - at),
        "clock": lambda: countdown(now - at),
        "until": lambda: countdown(at - now),
        "due": lambda: age(at - now),
    }[kind]()
    name = f' id="{escape(id)}"' if id else ""
    return Markup(f'<time{name} datetime="{iso(at)}" data-tick="{kind}">{words}</time>')  # nothing else in it is text


def at_tag(at: float, style: str = "full") -> Markup:
    """A time that stands still."""
    styles: dict[str, Callable[[float], str]] = {
        "full": full,
        "clock": clock,
        "hour": hour,
        "minute": lambda at: moment(at).strftime("%d %b %H:%M"),
    }
    words = styles[style](at)
    return Markup(f'<time datetime="{iso(at)}" title="{full(at)}">{words}</time>')


def sentence(text: str) -> str:
    """With a capital letter, and the rest as it is."""
    return text[:1].upper() + text[1:]


def tone(row: Any) -> str:
    """The class of a row's status."""
    if row.phase == "connected" and row.reason is not None:
        return REASON_TONES.get(row.reason, "ok")
    return TONES[row.phase]


@cache
def static_url(name: str) -> str:
    """The address of a file with its fingerprint, so that browsers may keep it for ever."""
    return f"/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (age, span, size, milliseconds, iso, full, clock, hour, countdown, sentence)
    environment.filters.update({word.__name__: word for word in words})
    environment.globals.update(
        static=static_url,
        tick=time_tag,
        at=at_tag,
        tone=tone,
        event_words=EVENTS,
        explanations={str(reason): told for reason, told in EXPLANATIONS.items()},
        Right=Right,
    )
    macros: Any = environment.get_template("_macros.html").module
    environment.globals.update(status=macros.status, why=macros.why, copied=macros.copied)
    return environment


ENVIRONMENT = _environment()


def whole(template: str, context: Mapping[str, Any]) -> str:
    """A page."""
    return ENVIRONMENT.get_template(template).render(context)


def fragment(template: str, block: str, context: Mapping[str, Any]) -> str:
    """One block of a page: what a live update or a search replaces."""
    return jinja2_fragments.render_block(ENVIRONMENT, template, block, context)


def answer(html: str, status: int = 200, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """HTML with the headers that every page has."""
    return HTMLResponse(html, status, {**HEADERS, **(headers or {})})
