"""What the log says of acts and changes: one line each, when it is committed, bounded where strangers cause it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from hub_server import acts
from hub_server.domain.errors import HubError
from tests.hub.ground import Ground


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[structlog.typing.EventDict]]:
    monkeypatch.setattr(acts, "_minute", acts._Minute())
    with structlog.testing.capture_logs() as caught:
        yield caught


async def test_what_happens_to_a_cluster_is_logged_with_its_code(
    tmp_path: Path, lines: list[structlog.typing.EventDict]
) -> None:
    hub = await Ground.make(tmp_path)
    invite = await hub.invite()
    await hub.redeem(invite.token)
    hub.presence.handshake_confirmed(invite.cluster_id, "192.0.2.1:4500", hub.clock())
    await hub.wait(16 * 60)
    hub.presence.handshake_confirmed(invite.cluster_id, "192.0.2.1:4500", hub.clock())
    await hub.wait(70, beat=invite.cluster_id)
    mine = [line for line in lines if line.get("cluster") == invite.cluster_id]
    assert {line["event"] for line in mine} >= {
        "cluster.create", "invite.created", "invite.redeem", "tunnel.connected", "tunnel.lost", "tunnel.disconnected",
        "alert.opened", "tunnel.restored", "alert.resolved",
    }  # fmt: skip
    assert {line["log_level"] for line in mine} == {"info"}
    for secret in (invite.token, hub.password, hub.cookie):
        assert secret not in repr(lines)


async def test_sign_ins_are_logged_and_refused_ones_a_few_a_minute(
    tmp_path: Path, lines: list[structlog.typing.EventDict]
) -> None:
    hub = await Ground.make(tmp_path)
    await hub.sign_in("admin@localhost", hub.password)
    opened = [line for line in lines if line["event"] == "session.open"]
    assert opened[-1]["actor"] == "admin@localhost"
    assert opened[-1]["remote"]
    for number in range(200):
        with pytest.raises(HubError):
            await hub.sign_in(f"nobody{number}@example.com", "not this one", remote=f"192.0.2.{number}")
    await hub.core.later.flush()
    refused = [line for line in lines if line.get("result") == "refused"]
    assert len(refused) == 20
    assert acts._minute.untold >= 180 - 20


async def test_what_was_undone_and_what_only_looks_is_not_logged(
    tmp_path: Path, lines: list[structlog.typing.EventDict]
) -> None:
    hub = await Ground.make(tmp_path)
    lines.clear()
    with pytest.raises(HubError):
        await hub.services.clusters.create(hub.admin, hub.tenant_id, name="")
    hub.core.later.append(hub.core.entry(hub.admin, hub.tenant_id, "panel.run", target="get pods"))
    hub.core.later.append(hub.core.entry(hub.admin, hub.tenant_id, "kubectl.get"))
    await hub.core.later.flush()
    assert lines == []
