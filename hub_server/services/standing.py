"""Whether a credential still allows what it was taken for: asked when a request comes, and while its stream is open.

The same rows and the same words serve both, so that a request that would be refused now is a stream that is cut now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from sqlalchemy import Connection, Select, select

from hub_server.domain.errors import Forbidden
from hub_server.domain.roles import Right, Role, allows
from hub_server.domain.status import Phase
from hub_server.grounds import Ground
from hub_server.services import authority
from hub_server.services.views import Actor
from hub_server.settings import Settings
from hub_server.store import schema

__all__ = ["ground_of", "kubeconfig_problem", "kubeconfigs_query", "lost", "require"]

_REPLACED: Final = "this kubeconfig is not valid (any more): download a new one from the hub"
_SESSION_ENDED: Final = "your session has ended: sign in again"
_TOKEN_ENDED: Final = "this token is not valid (any more)"
_LESS: Final = "your role does not allow that (any more)"


def ground_of(actor: Actor, tenant_id: str, right: Right, cluster_id: str | None = None) -> Ground:
    """What something stands on that a signed-in person, or a program with a token, opened."""
    if actor.kind == "token":
        return Ground("token", actor.id, tenant_id, right, cluster_id)
    return Ground("session", actor.session_id or "", tenant_id, right, cluster_id)


# --- kubeconfigs -----------------------------------------------------------------------------------------------------


def kubeconfigs_query() -> Select[Any]:
    """Kubeconfigs with what their owners are by now: `role` is None for who is no member (any more)."""
    table, users, members, tenants = schema.kubeconfig_tokens, schema.users, schema.memberships, schema.tenants
    is_member = (members.c.user_id == table.c.user_id) & (members.c.tenant_id == table.c.tenant_id)
    return (
        select(table, users.c.email, users.c.active, members.c.role, members.c.stream.label("may_stream"))
        .add_columns(tenants.c.slug)
        .join(users, users.c.id == table.c.user_id)
        .join(tenants, tenants.c.id == table.c.tenant_id)
        .join(members, is_member, isouter=True)
    )


def kubeconfig_problem(row: Any, right: Right, now: float) -> str | None:
    """Why a kubeconfig does not allow something now; None when it does."""
    if row.revoked_at is not None or now >= row.expires_at:
        return _REPLACED
    if not row.active or row.role is None or not _has(row, Right.KUBECONFIG):
        return "the owner of this kubeconfig has lost the right to it"
    if right is Right.STREAM and not (row.stream and _has(row, Right.STREAM)):
        return "the owner of this kubeconfig has lost the right `stream`"
    return None


def _has(row: Any, right: Right) -> bool:
    grants = frozenset({Right.STREAM.value}) if row.may_stream else frozenset[str]()
    return allows(Role(row.role), right, grants)


# --- all kinds -------------------------------------------------------------------------------------------------------


def lost(connection: Connection, grounds: Collection[Ground], now: float, settings: Settings) -> dict[Ground, str]:
    """Those of some grounds that are gone, each with the reason: a few queries, however many they are."""
    gone: dict[Ground, str] = {}
    judges: dict[str, Callable[[Connection, list[Ground], float, Settings], Iterable[tuple[Ground, str | None]]]] = {
        "kubeconfig": _judge_kubeconfigs,
        "session": _judge_sessions,
        "token": _judge_tokens,
    }
    for credential, judge in judges.items():
        if some := [ground for ground in grounds if ground.credential == credential]:
            gone |= {ground: reason for ground, reason in judge(connection, some, now, settings) if reason}
    clusters = _clusters_gone(connection, {ground.cluster_id for ground in grounds if ground.cluster_id})
    return {ground: clusters[ground.cluster_id] for ground in grounds if ground.cluster_id in clusters} | gone


def require(connection: Connection, ground: Ground, now: float, settings: Settings) -> None:
    """For what is written a while after it was permitted. Raises Forbidden where the ground is gone by now."""
    if (reason := lost(connection, [ground], now, settings).get(ground)) is not None:
        raise Forbidden(reason)


def _judge_kubeconfigs(
    connection: Connection, grounds: list[Ground], now: float, _: Settings
) -> Iterable[tuple[Ground, str | None]]:
    query = kubeconfigs_query().where(schema.kubeconfig_tokens.c.id.in_({ground.id for ground in grounds}))
    rows = {row.id: row for row in connection.execute(query)}
    for ground in grounds:
        row = rows.get(ground.id)
        yield ground, _REPLACED if row is None else kubeconfig_problem(row, ground.right, now)


def _judge_sessions(
    connection: Connection, grounds: list[Ground], now: float, settings: Settings
) -> Iterable[tuple[Ground, str | None]]:
    sessions, users, members = schema.sessions, schema.users, schema.memberships
    query = (
        select(sessions.c.id, sessions.c.user_id)
        .join(users, users.c.id == sessions.c.user_id)
        .where(sessions.c.id.in_({ground.id for ground in grounds}), users.c.active)
        .where(sessions.c.last_used_at >= now - settings.session_idle)
        .where(sessions.c.created_at >= now - settings.session_absolute)
    )
    people = {row.id: row.user_id for row in connection.execute(query)}
    of_people = members.c.user_id.in_(set(people.values()))
    roles = {(row.user_id, row.tenant_id): row for row in connection.execute(select(members).where(of_people))}
    for ground in grounds:
        if ground.id not in people:
            yield ground, _SESSION_ENDED
            continue
        role = roles.get((people[ground.id], ground.tenant_id))
        grants = frozenset({Right.STREAM.value}) if role is not None and role.stream else frozenset[str]()
        yield ground, None if role is not None and allows(Role(role.role), ground.right, grants) else _LESS


def _judge_tokens(
    connection: Connection, grounds: list[Ground], now: float, _: Settings
) -> Iterable[tuple[Ground, str | None]]:
    table = schema.api_tokens
    rows = {
        row.id: row
        for row in connection.execute(select(table).where(table.c.id.in_({ground.id for ground in grounds})))
    }
    allowed = {token_id: authority.of_token(connection, row, now) for token_id, row in rows.items()}
    for ground in grounds:
        found = allowed.get(ground.id)
        if found is None:
            yield ground, _TOKEN_ENDED
        else:
            is_allowed = rows[ground.id].tenant_id == ground.tenant_id and ground.right in found.rights
            yield ground, None if is_allowed else _LESS


def _clusters_gone(connection: Connection, ids: Collection[str]) -> dict[str | None, str]:
    if not ids:
        return {}
    table = schema.clusters
    known = {row.id: row for row in connection.execute(select(table).where(table.c.id.in_(ids)))}
    gone: dict[str | None, str] = {}
    for cluster_id in ids:
        row = known.get(cluster_id)
        if row is None or row.deleted_at is not None:
            gone[cluster_id] = "this cluster was removed from the hub"
        elif row.phase == Phase.BLOCKED.value:
            gone[cluster_id] = f"this cluster is blocked ({row.reason}): an admin must accept or delete it"
    return gone
