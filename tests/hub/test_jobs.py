"""What is kept no longer is removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert

from hub_server import jobs
from hub_server.store import schema
from tests.hub.clocked import clocked_hub


async def test_of_each_cluster_the_newest_events_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "EVENTS_OF_CLUSTER", 10)
    async with clocked_hub(tmp_path) as hub:
        noisy, calm = await hub.joined("noisy"), await hub.joined("calm")
        before = await hub.events(calm)
        values = {"tenant_id": hub.tenant_id, "cluster_id": noisy, "kind": "x", "detail": "", "at": hub.clock()}
        await hub.core.database.write(
            lambda connection: connection.execute(insert(schema.events), [values] * 50).rowcount
        )
        await hub.core.database.write(jobs.clean, hub.clock(), 90 * 86400.0)
        assert await hub.events(noisy) == ["x"] * 10
        assert await hub.events(calm) == before
