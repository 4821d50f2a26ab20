"""What changed, for pages that stay open: one ring of events per hub, one subscription per page.

An event says only what to fetch again, so nothing is shown to anyone who may not read it. Slow pages never hold
anything up: a subscription keeps the set of what changed, not a queue. Nothing here touches the database.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Literal

import trio

from hub_server.domain.errors import NotFound
from hub_server.services.views import Actor, LiveEvent

KEPT = 4096  # events that a returning page can catch up on
PER_ROW = 1.0  # seconds between two events about the same thing, at least
Kind = Literal["cluster", "nodes", "event", "alert", "list", "reset"]


class Live:
    """What changed, for pages that stay open."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Begin with nothing. Ids start with the clock, so that those of a hub that ran before are all lower."""
        self._now = now
        self._next = math.floor(now() * 1000)
        self._ring: deque[tuple[str, LiveEvent]] = deque(maxlen=KEPT)
        self._subscriptions: dict[_Subscription, str] = {}
        self._is_closed = False

    def publish(self, tenant_id: str, kind: Kind, cluster_id: str | None = None) -> None:
        """Say that something changed. Called on trio's thread."""
        event = LiveEvent(self._next, kind, cluster_id, self._now())
        self._next += 1
        self._ring.append((tenant_id, event))
        for subscription, tenant in self._subscriptions.items():
            if tenant == tenant_id:
                subscription.put(event)

    def close(self) -> None:
        """End every subscription, now and later: the hub is stopping, pages connect again by themselves."""
        self._is_closed = True
        for subscription in self._subscriptions:
            subscription.close()

    @property
    def last_id(self) -> int:
        """The newest event: a page that is made now and subscribes from here misses nothing in between."""
        return self._next - 1

    @property
    def viewers(self) -> int:
        """How many pages are open."""
        return len(self._subscriptions)

    def subscribe(
        self, actor: Actor, tenant_id: str, *, last_event_id: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[LiveEvent]]:
        """Open a subscription: `async with live.subscribe(...) as events: async for event in events`.

        At most one event per cluster, kind and second; what happened since `last_event_id` comes first, or one `reset`
        when that is too long ago.

        Raises:
            NotFound: the actor is no member of the tenant.
        """
        if tenant_id not in actor.roles:
            raise NotFound()
        return self._subscribe(tenant_id, last_event_id)

    @asynccontextmanager
    async def _subscribe(self, tenant_id: str, last_event_id: int | None) -> AsyncIterator[AsyncIterator[LiveEvent]]:
        subscription = _Subscription()
        if self._is_closed:
            subscription.close()
        for event in self._missed(tenant_id, last_event_id):
            subscription.put(event)
        self._subscriptions[subscription] = tenant_id
        try:
            yield subscription.events()
        finally:
            del self._subscriptions[subscription]

    def _missed(self, tenant_id: str, last_event_id: int | None) -> list[LiveEvent]:
        if last_event_id is None or last_event_id == self._next - 1:
            return []
        oldest = self._ring[0][1].id if self._ring else self._next
        if not oldest - 1 <= last_event_id < self._next:
            return [LiveEvent(self._next - 1, "reset", None, self._now())]
        return [event for tenant, event in self._ring if tenant == tenant_id and event.id > last_event_id]


class _Subscription:
    """What one page has not been told yet: the newest event of each (kind, cluster)."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str | None], LiveEvent] = {}
        self._told: dict[tuple[str, str | None], float] = {}
        self._wake = trio.Event()
        self._is_closed = False

    def close(self) -> None:
        self._is_closed = True
        self._wake.set()

    def put(self, event: LiveEvent) -> None:
        key = (event.kind, event.cluster_id)
        self._waiting.pop(key, None)
        self._waiting[key] = event
        self._wake.set()

    async def events(self) -> AsyncIterator[LiveEvent]:
        while not self._is_closed:
            now = trio.current_time()
            self._told = {key: at for key, at in self._told.items() if at + PER_ROW > now}
            ready = next((key for key in self._waiting if key not in self._told), None)
            if ready is not None:
                self._told[ready] = now
                event = self._waiting.pop(ready)
                # A page that returns says the last id it got: that must not lie behind one that still waits here.
                oldest = min((waiting.id for waiting in self._waiting.values()), default=event.id + 1)
                yield replace(event, id=min(event.id, oldest - 1))
                continue
            deadline = min((self._told[key] for key in self._waiting), default=math.inf) + PER_ROW
            with trio.move_on_at(deadline):
                self._wake = trio.Event()
                await self._wake.wait()
