"""The streams behind pages that stay open: server-sent events that carry fragments made by the same templates.

A stream wakes up for what `services.live` tells and renders again the parts that it concerns; a part that came out the
same is not sent. Every five seconds it also says when each row was seen, notices what only time changes, and beats. An
unnamed event holds `<hx-partial>` elements that htmx puts in place; the event `seen` holds times for the page's
script. Where the browser missed more than the hub remembers, it is told to load the page again; where its session
ended, `ended`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import trio
from markupsafe import Markup
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hub_server import supervise
from hub_server.domain.errors import HubError
from hub_server.domain.foreign import digits
from hub_server.domain.roles import Right
from hub_server.grounds import GroundLost
from hub_server.nursery import unwrapped
from hub_server.services.standing import ground_of
from hub_server.services.views import LiveEvent
from hub_server.web import render
from hub_server.web.site import Visit

BEAT = 5.0  # seconds between two looks at what only time changes
LIFE = 300.0  # seconds until a stream ends and the browser asks again, so that an open page keeps its session


@dataclass(slots=True)
class Pen:
    """Writes one stream; remembers each part, so that only what changed is sent."""

    send: Send
    last_id: int = 0
    _sent: dict[str, int] = field(default_factory=dict)

    async def parts(self, parts: Mapping[str, str], *, swap: str = "outerMorph") -> None:
        """Send the parts (element id to HTML) that differ from what was sent before."""
        changed = {name: html for name, html in parts.items() if self._sent.get(name) != hash(html)}
        if not changed:
            return
        self._sent.update({name: hash(html) for name, html in changed.items()})
        await self.message(
            "".join(
                Markup('<hx-partial hx-target="#{}" hx-swap="{}">').format(name, swap)
                + Markup(html)
                + Markup("</hx-partial>")
                for name, html in changed.items()
            )
        )

    def remember(self, parts: Mapping[str, str]) -> None:
        """Take for sent what the page was made with, unless something newer was sent."""
        self._sent = {name: hash(html) for name, html in parts.items()} | self._sent

    async def message(self, data: str, *, event: str = "") -> None:
        """Send one event."""
        lines = (
            [f"id: {self.last_id}"]
            + ([f"event: {event}"] if event else [])
            + [f"data: {line}" for line in data.split("\n")]
        )
        await self._write("\n".join(lines) + "\n\n")

    async def ended(self, why: str) -> None:
        """Say that nobody may see this any more: the page then leads to sign-in, or to what the hub says of it now."""
        await self.message(why, event="ended")

    async def beat(self) -> None:
        """Say that the connection is alive: a page that hears nothing for three of these tells its reader."""
        await self.message("", event="beat")

    async def _write(self, text: str) -> None:
        await self.send({"type": "http.response.body", "body": text.encode(), "more_body": True})


React = Callable[[Pen, LiveEvent | None], Awaitable[None]]


class Stream(Response):
    """An answer that lasts as long as the page. `react` is called with every event, and with None every few seconds."""

    def __init__(self, visit: Visit, tenant_id: str, react: React, *, beat: float = BEAT) -> None:
        """Nothing is sent yet. Raises ForeignError for a Last-Event-ID that is none of ours."""
        super().__init__(None, 200, {**render.HEADERS, "X-Accel-Buffering": "no"}, "text/event-stream")
        del self.headers["content-length"]
        self.visit, self.tenant_id, self.react, self.beat = visit, tenant_id, react, beat
        # The page itself says up to where it knows; what happened before its stream was open comes first.
        last = visit.request.headers.get("Last-Event-ID", "") or visit.asked("since")
        self.last_id = digits("Last-Event-ID", last, 0, 10**18) if last else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream until the browser leaves or the session may not see it any more."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        pen, actor, grounds = Pen(send), self.visit.actor, self.visit.services.grounds
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + LIFE
            supervise.start_part(nursery, self._until_gone, receive, nursery.cancel_scope)
            try:
                with grounds.standing_on(ground_of(actor, self.tenant_id, Right.SEE)), unwrapped():
                    await self._serve(pen)
            except GroundLost as lost:
                await pen.ended(lost.detail)
            except HubError:
                pass  # the thing is gone: the page asks again and is told why
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _serve(self, pen: Pen) -> None:
        live = self.visit.services.live
        pen.last_id = live.last_id if self.last_id is None else self.last_id
        one_at_a_time = trio.Lock()

        async def look() -> None:
            while True:
                async with one_at_a_time:
                    await self.react(pen, None)
                    await pen.beat()
                await trio.sleep(self.beat)

        async with (
            live.subscribe(self.visit.actor, self.tenant_id, last_event_id=self.last_id) as events,
            trio.open_nursery() as nursery,
        ):
            supervise.start_part(nursery, look)
            async for event in events:
                async with one_at_a_time:
                    pen.last_id = event.id
                    await self.react(pen, event)
            nursery.cancel_scope.cancel()

    async def _until_gone(self, receive: Receive, scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


def seen(rows: Mapping[str, float | None]) -> str:
    """The payload of `seen`: element id to time."""
    return json.dumps(
        {name: render.iso(at) if at is not None else None for name, at in rows.items()}, separators=(",", ":")
    )
