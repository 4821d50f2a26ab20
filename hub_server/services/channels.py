"""Notification channels: signed webhooks."""

from __future__ import annotations

from collections.abc import Sequence

from hub_server.services.views import Actor, ChannelView, DeliveryView, NewChannel


class Channels:
    """Notification channels: signed webhooks."""

    async def list(self, actor: Actor, tenant_id: str) -> tuple[ChannelView, ...]:
        """The channels of a tenant."""
        raise NotImplementedError

    async def create(
        self, actor: Actor, tenant_id: str, *, name: str, url: str, kinds: Sequence[str] = ()
    ) -> NewChannel:
        """Add a webhook. Raises Invalid(field name|url|kinds)."""
        raise NotImplementedError

    async def delete(self, actor: Actor, tenant_id: str, channel_id: str) -> None:
        """Remove it."""
        raise NotImplementedError

    async def send_test(self, actor: Actor, tenant_id: str, channel_id: str) -> DeliveryView:
        """Queue a test message."""
        raise NotImplementedError

    async def deliveries(self, actor: Actor, tenant_id: str, channel_id: str) -> tuple[DeliveryView, ...]:
        """The last deliveries, newest first."""
        raise NotImplementedError
