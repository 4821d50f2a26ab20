"""The audit log: append only, one hash chain for each tenant (and one for the hub itself).

An entry is written in the transaction of the act that it records, so neither exists without the other. Entries hold
names, ids and counts; never a secret, a body or an output. Source: product.md section 14.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from hub_server import acts
from hub_server.store import schema

HUB_CHAIN = "hub"
_NOTHING = b"\0" * 32


@dataclass(frozen=True, slots=True)
class Entry:
    """One act."""

    chain: str
    at: float
    actor: str
    action: str
    result: str = "ok"
    cluster_id: str | None = None
    target: str = ""
    remote: str = ""
    request_id: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


def append(connection: Connection, entry: Entry) -> None:
    """Add an entry to the end of its chain."""
    heads = schema.audit_heads
    head = connection.execute(select(heads).where(heads.c.chain == entry.chain).with_for_update()).one_or_none()
    if head is None:
        head = _first(connection, entry.chain)
    values: dict[str, Any] = {
        "chain": entry.chain,
        "seq": head.seq + 1,
        "at": entry.at,
        "actor": entry.actor[:254],
        "action": entry.action,
        "cluster_id": entry.cluster_id,
        "target": entry.target[:500],
        "result": entry.result,
        "remote": entry.remote[:64],
        "request_id": entry.request_id[:64],
        "detail": dict(entry.detail),
    }
    digest = _digest(head.hash, values)
    connection.execute(insert(schema.audit).values(**values, hash=digest))
    acts.tell(
        connection,
        entry.action,
        result=entry.result,
        actor=values["actor"],
        tenant=entry.chain,
        cluster=entry.cluster_id,
        target=values["target"],
        remote=values["remote"],
        request=values["request_id"],
    )
    connection.execute(update(heads).where(heads.c.chain == entry.chain).values(seq=values["seq"], hash=digest))


def _first(connection: Connection, chain: str) -> Any:
    heads = schema.audit_heads
    with connection.begin_nested() as savepoint:
        try:
            connection.execute(insert(heads).values(chain=chain, seq=0, hash=_NOTHING))
        except IntegrityError:  # another replica was first
            savepoint.rollback()
    return connection.execute(select(heads).where(heads.c.chain == chain).with_for_update()).one()


def _digest(previous: bytes, values: Mapping[str, Any]) -> bytes:
    text = json.dumps(dict(values), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(previous + text.encode("utf-8", "surrogatepass")).digest()


def verify(connection: Connection, chain: str) -> int | None:
    """Walk a chain; the number of the first entry that is not as it was written, None when all are."""
    table, previous, expected = schema.audit, _NOTHING, 1
    for row in connection.execute(select(table).where(table.c.chain == chain).order_by(table.c.seq)):
        values = {name: value for name, value in row._mapping.items() if name != "hash"}
        if row.seq != expected or _digest(previous, values) != row.hash:
            return expected
        previous, expected = row.hash, expected + 1
    head = connection.execute(select(schema.audit_heads).where(schema.audit_heads.c.chain == chain)).one_or_none()
    if head is not None and (head.seq != expected - 1 or head.hash != previous):
        return expected
    return None
