"""A tenant with a cluster in every state that a page can show, for pages, screenshots and measurements.

The rows are made by the services; what an edge would have said is put where the hub keeps it, and stands still.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, insert

from hub_server.domain.alerts import Kind
from hub_server.domain.reasons import Reason
from hub_server.domain.status import Phase, Status
from hub_server.services.core import add_event, open_alert
from hub_server.services.presence import Row
from hub_server.store import schema
from tests.hub.whole import Whole

HOSTILE = "<img src=x onerror=alert(1)>"
LONG = "a-name-of-sixty-three-letters-as-somebody-will-surely-choose-it"


def put(
    row: Row, phase: Phase, now: float, *, ago: float = 3 * 86400, reason: Reason | None = None, **facts: Any
) -> None:
    """Let a row look as if an edge had said so, `ago` seconds ago; nothing changes it by itself."""
    for name, value in facts.items():
        setattr(row, name, value)
    joined = phase not in (Phase.INVITED, Phase.REDEEMED)
    row.status = replace(
        row.status, phase=phase, since=now - ago, reason=reason, last_packet=now - 1 if joined else None
    )
    if phase in (Phase.DISCONNECTED, Phase.RECONNECTING):
        row.status = replace(row.status, last_packet=now - ago, down_since=now - ago)
    if joined:
        row.connected_at = now - max(ago, 4 * 86400)
        row.redeemed_at, row.first_packet_at = row.connected_at - 40, row.connected_at - 2
        row.redeemed_from = "203.0.113.9"
        row.last_handshake = (row.status.last_packet or now) - 41
        row.invite_expires_at = None
    row.deadline = math.inf


def settle(row: Row, number: int, now: float, **facts: Any) -> None:
    """A cluster that is well."""
    put(
        row,
        Phase.CONNECTED,
        now,
        **{
            "address": f"100.64.{number // 250}.{number % 250 + 2}",
            "endpoint": "203.0.113.9:41641",
            "rtt": 0.018,
            "nodes_ready": 5,
            "nodes_total": 5,
            "kube_version": "v1.36.3",
            "agent_version": "0.1.0",
            "chart_version": "1.0.0",
            "api_state": "ok",
            "api_at": now - 3 * 86400,
            "hello": {
                "mtu": 1420,
                "mode": "userspace",
                "namespace": "daalu-edge",
                "service_account": "system:serviceaccount:daalu-edge:daalu-edge",
                "impersonation": {"enabled": False},
            },
        }
        | facts,
    )


async def many(whole: Whole, count: int) -> None:
    """`count` clusters more, most of them well."""
    now, dice = whole.hub.core.now(), random.Random(count)
    for number in range(count):
        invite = await whole.invite(f"cluster-{number:04}")
        row = whole.hub.presence.rows[invite.cluster_id]
        settle(row, number, now, rtt=dice.uniform(0.005, 0.08))
        if number % 50 == 7:
            put(row, Phase.DISCONNECTED, now, ago=dice.uniform(20, 800), reason=Reason.HEARTBEAT_LOST)


async def paint(whole: Whole) -> dict[str, str]:
    """One cluster per state; name to id."""
    now, rows = whole.hub.core.now(), whole.hub.presence.rows
    names = (
        "acme-eu-prod", "acme-us-prod", "acme-asia", "lab", "lab-late", "lab-udp", "lab-expired",
        "edge-blind", "edge-gone", "edge-cloned", "edge-old", LONG,
    )  # fmt: skip
    ids = {name: (await whole.invite(name)).cluster_id for name in names}

    def row(name: str) -> Row:
        return rows[ids[name]]

    for number, name in enumerate(names):
        if not name.startswith("lab"):
            settle(row(name), number, now)
    put(row("acme-us-prod"), Phase.DISCONNECTED, now, ago=240, reason=Reason.HEARTBEAT_LOST)
    put(row("acme-asia"), Phase.RECONNECTING, now, ago=12, reason=Reason.HEARTBEAT_LOST)
    row("lab-late").invited_at = now - 400
    put(row("lab-udp"), Phase.REDEEMED, now, ago=31, reason=Reason.NO_UDP_SEEN, redeemed_at=now - 31,
        redeemed_from="203.0.113.9", invited_at=now - 122, invite_expires_at=None)  # fmt: skip
    put(row("lab-expired"), Phase.INVITED, now, ago=600, reason=Reason.INVITE_EXPIRED)
    settle(row("edge-blind"), 7, now, api_state="unreachable", api_errno="ECONNREFUSED", api_detail="dial tcp")
    put(row("edge-gone"), Phase.DISCONNECTED, now, ago=7200, reason=Reason.EDGE_SHUT_DOWN, detail="uninstalled",
        open_alerts=1, is_down_alert_open=True)  # fmt: skip
    put(row("edge-cloned"), Phase.BLOCKED, now, ago=300, reason=Reason.CLUSTER_IDENTITY_CHANGED,
        cluster_uid="6f1c…a", offered_cluster_uid="91be…b", open_alerts=1,
        detail="joined as cluster 6f1c…a, now comes from 91be…b")  # fmt: skip
    settle(row("edge-old"), 10, now, chart_version="0.9.0", agent_version=HOSTILE, kube_version=HOSTILE)

    dice = random.Random(1)
    minutes = range(int(now // 60) - 1439, int(now // 60) + 1)
    samples = [
        {
            "cluster_id": ids["acme-eu-prod"],
            "minute": minute,
            "phase": "disconnected" if 700 < place < 712 else "reconnecting" if place == 712 else "connected",
            "reason": "EdgeShutDown" if 700 < place < 712 else None,
            "rtt": None if 700 < place < 712 else 0.018 + 0.006 * math.sin(place / 90) + dice.expovariate(900),
            "rx": int(600_000 + 400_000 * math.sin(place / 140)),
            "tx": int(200_000 + dice.uniform(0, 120_000)),
        }
        for place, minute in enumerate(minutes)
    ]
    nodes = [
        {
            "name": name,
            "ready": name != "worker-3",
            "schedulable": name != "worker-2",
            "roles": ["control-plane"] if name.startswith("control") else [],
            "version": "v1.36.3",
            "created": now - 40 * 86400,
            "conditions": ["MemoryPressure"] if name == "worker-3" else [],
        }
        for name in ("control-1", "worker-1", "worker-2", "worker-3", HOSTILE)
    ]

    def work(connection: Connection) -> None:
        connection.execute(insert(schema.status_samples), samples)
        told = {"cluster_id": ids["acme-eu-prod"], "told_at": now - 4, "nodes": nodes}
        connection.execute(insert(schema.nodes).values(**told))
        start = minutes[701] * 60.0
        common = {"tenant_id": whole.tenant_id, "cluster_id": ids["acme-eu-prod"]}
        add_event(connection, **common, kind="edge.goodbye", at=start, reason="EdgeShutDown", detail="restarting")
        add_event(connection, **common, kind="tunnel.restored", at=start + 680, detail="away for 11 min 20 s")
        add_event(connection, **common, kind="edge.upgraded", at=start + 690, detail=HOSTILE)
        for name, kind, ago in (("edge-gone", Kind.CLUSTER_DOWN, 6300), ("edge-cloned", Kind.IDENTITY_CHANGED, 300)):
            open_alert(
                connection, alert_id=whole.hub.core.id("al"), tenant_id=whole.tenant_id, cluster_id=ids[name],
                kind=kind, at=now - ago, detail=row(name).detail or "no packet", down_since=now - 7200,
            )  # fmt: skip

    await whole.hub.core.database.write(work)
    return ids


__all__ = ["HOSTILE", "LONG", "Status", "many", "paint", "put", "settle"]
