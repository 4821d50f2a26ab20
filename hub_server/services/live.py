"""What changed, for pages that stay open: one ring of events per hub, one subscription per page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from hub_server.services.views import Actor, LiveEvent


class Live:
    """What changed, for pages that stay open."""

    def subscribe(
        self, actor: Actor, tenant_id: str, *, last_event_id: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[LiveEvent]]:
        """Open a subscription: `async with live.subscribe(...) as events: async for event in events`.

        At most one event per cluster and second; what happened since `last_event_id` comes first.
        """
        raise NotImplementedError
