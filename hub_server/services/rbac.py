"""The RBAC page: presets, the patch to apply, and the check through the tunnel. Never writes to a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import trio
from sqlalchemy import Connection, select, update

from hub_server import audit, supervise
from hub_server.domain import rbac as rules
from hub_server.domain.errors import EdgeUnreachable, Invalid, NotFound
from hub_server.domain.foreign import Document, ForeignError, cleaned
from hub_server.domain.roles import Right
from hub_server.services.core import Core
from hub_server.services.kubectl import Kubectl
from hub_server.services.presence import Presence, Row
from hub_server.services.standing import ground_of
from hub_server.services.views import Actor, DiffLine, PresetView, RbacPatch, RbacView, RuleCheck
from hub_server.store import schema
from hub_server.upstream import EdgeFault, Upstream

_REVIEW: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_AT_ONCE: Final = 8  # questions in flight
_MOST_QUESTIONS: Final = 400
_TIME_LIMIT: Final = 20.0
_ANSWER_LIMIT: Final = 64 * 1024


class Rbac:
    """The RBAC page: presets, the patch to apply, and the check through the tunnel. Never writes to a cluster."""

    def __init__(self, core: Core, presence: Presence, kubectl: Kubectl) -> None:
        """Stand on the core; `kubectl` knows the way into a cluster."""
        self._core = core
        self._presence = presence
        self._kubectl = kubectl

    async def view(self, actor: Actor, cluster_id: str, *, missing: Mapping[str, str] | None = None) -> RbacView:
        """The page, with the last check. `missing` (verb, group, resource, namespace) preselects a custom rule."""
        await self._seen(actor, cluster_id, "rbac.read")
        wish, granted = await self._core.database.read(_remembered, cluster_id)
        custom = [*(_custom(rule) for rule in wish.custom), *([_missing_rule(missing)] if missing else [])]
        known = _granted_of(granted)
        # Before the first check, what the chart grants is the best guess there is.
        has = rules.permissions(rules.DEFAULT.rules) if known is None else known
        wanted = rules.permissions(rules.rules(wish))
        return RbacView(
            presets=tuple(
                PresetView(one.key, one.title, one.text, one.needs_namespaces, tuple(map(_custom, one.rules)))
                for one in rules.PRESETS
            ),
            wanted_presets=wish.presets,
            wanted_namespaces=wish.namespaces,
            custom=tuple(custom),
            granted=rules.sentences(has),
            wanted=rules.sentences(wanted),
            diff=_lines(rules.difference(has, wanted)),
            checked_at=granted.get("at") if granted else None,
            error=None,
        )

    async def patch(
        self,
        actor: Actor,
        cluster_id: str,
        *,
        presets: Sequence[str],
        namespaces: Sequence[str] = (),
        custom: Sequence[Mapping[str, Any]] = (),
    ) -> RbacPatch:
        """The patch for a wish; remembered as wanted. Custom rows: {apiGroups, resources, verbs, namespace?}."""
        core = self._core
        row = await self._seen(actor, cluster_id, "rbac.patch")
        try:
            wish = rules.make_wish(presets, namespaces, custom)
        except rules.BadWish as problem:
            raise Invalid(problem.field, str(problem)) from None

        def work(connection: Connection) -> dict[str, Any] | None:
            clusters = schema.clusters
            live = (clusters.c.id == cluster_id) & clusters.c.deleted_at.is_(None)
            document = {
                "presets": list(wish.presets),
                "namespaces": list(wish.namespaces),
                "custom": [_custom(rule) for rule in wish.custom],
            }
            if not connection.execute(update(clusters).where(live).values(rbac_wanted=document)).rowcount:
                raise NotFound()
            entry = core.entry(actor, row.tenant_id, "rbac.patch", cluster_id=cluster_id, detail=document)
            audit.append(connection, entry)
            return _remembered(connection, cluster_id)[1]

        known = _granted_of(await core.database.write(work))
        account = rules.Account.parse(str((row.hello or {}).get("service_account") or ""))
        has = rules.permissions(rules.DEFAULT.rules) if known is None else known
        return RbacPatch(
            yaml=rules.manifest(wish, account),
            values=rules.values(wish),
            apply_command=rules.apply_command(wish, account),
            narrow_command=rules.narrow_command(account),
            diff=_lines(rules.difference(has, rules.permissions(rules.rules(wish)))),
            warnings=rules.warnings(wish),
        )

    async def check(self, actor: Actor, cluster_id: str) -> tuple[RuleCheck, ...]:
        """Ask the API server (access reviews through the tunnel) for every wanted rule. Raises EdgeUnreachable."""
        core = self._core
        row = await self._seen(actor, cluster_id, "rbac.check")
        wish, _ = await core.database.read(_remembered, cluster_id)
        wanted = rules.permissions(rules.rules(wish))[:_MOST_QUESTIONS]
        with core.grounds.standing_on(ground_of(actor, row.tenant_id, Right.MANAGE, cluster_id)):
            checks = await self._ask_all(row, wanted)
        granted = {"at": core.now(), "granted": [list(_key(one)) for one, check in checks if check.granted]}

        def work(connection: Connection) -> None:
            clusters = schema.clusters
            connection.execute(update(clusters).where(clusters.c.id == cluster_id).values(rbac_granted=granted))
            audit.append(connection, core.entry(actor, row.tenant_id, "rbac.check", cluster_id=cluster_id))

        await core.database.write(work)
        return tuple(check for _, check in checks)

    async def _ask_all(self, row: Row, wanted: Sequence[rules.Permission]) -> list[tuple[rules.Permission, RuleCheck]]:
        upstream = Upstream(self._kubectl.wire_to(row))
        answers: dict[rules.Permission, RuleCheck] = {}
        room = trio.CapacityLimiter(_AT_ONCE)
        failed: list[str] = []

        async def ask(permission: rules.Permission) -> None:
            async with room:
                try:
                    answers[permission] = await _ask(upstream, row.id, permission)
                except (OSError, EdgeFault, ForeignError, ValueError) as problem:
                    failed.append(str(problem) or type(problem).__name__)
                    nursery.cancel_scope.cancel()

        try:
            with trio.move_on_after(_TIME_LIMIT) as limit:
                async with trio.open_nursery() as nursery:
                    for permission in wanted:
                        supervise.start_part(nursery, ask, permission)
            if failed or limit.cancelled_caught:
                raise EdgeUnreachable(f"the API server could not be asked: {failed[0] if failed else 'no answer'}")
        finally:
            upstream.close()
        return [(permission, answers[permission]) for permission in wanted]

    async def _seen(self, actor: Actor, cluster_id: str, action: str) -> Row:
        row = self._presence.rows.get(cluster_id)
        tenant_id = row.tenant_id if row is not None else None
        await self._core.permit(actor, tenant_id, Right.MANAGE, action, cluster_id=cluster_id)
        assert row is not None, "permit refuses what is not there"
        return row


async def _ask(upstream: Upstream, cluster_id: str, permission: rules.Permission) -> RuleCheck:
    """One access review."""
    resource, _, subresource = permission.resource.partition("/")
    attributes = {"verb": permission.verb, "group": permission.group, "resource": resource}
    if subresource:
        attributes["subresource"] = subresource
    if permission.namespace:
        attributes["namespace"] = permission.namespace
    document = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    body = json.dumps(document).encode()

    async def send(piece: Any) -> None:
        await piece(body)

    fields = [(b"content-type", b"application/json"), (b"accept", b"application/json")]
    async with upstream.request(cluster_id, "POST", _REVIEW, fields, send, length=len(body)) as answer:
        pieces = b""
        while piece := await answer.piece():
            pieces += piece
            if len(pieces) > _ANSWER_LIMIT:
                raise ValueError("the answer is too long")
        found = Document.parse(pieces, _ANSWER_LIMIT)
        if answer.status not in (200, 201) or found.raw("status") is None:
            raise ValueError(cleaned(found.text("message") or f"HTTP {answer.status}", 300))
        status = found.get("status")
    return RuleCheck(
        key="/".join(_key(permission)),
        text=rules.sentence_of(permission),
        granted=status.truth("allowed") or False,
        reason=cleaned(status.text("reason") or status.text("evaluationError") or "", 300),
    )


def _key(permission: rules.Permission) -> tuple[str, str, str, str]:
    return permission.namespace, permission.group, permission.resource, permission.verb


def _custom(rule: rules.Rule) -> dict[str, Any]:
    return rule.as_json() | ({"namespace": rule.namespace} if rule.namespace else {})


def _missing_rule(missing: Mapping[str, str]) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "apiGroups": [missing.get("group", "")],
        "resources": [missing.get("resource", "")],
        "verbs": [missing.get("verb", "")],
    }
    return rule | ({"namespace": missing["namespace"]} if missing.get("namespace") else {})


def _lines(found: Sequence[rules.Line]) -> tuple[DiffLine, ...]:
    return tuple(DiffLine(line.sign, line.text) for line in found)  # type: ignore[arg-type] # one of the three


def _remembered(connection: Connection, cluster_id: str) -> tuple[rules.Wish, dict[str, Any] | None]:
    clusters = schema.clusters
    found = select(clusters.c.rbac_wanted, clusters.c.rbac_granted).where(clusters.c.id == cluster_id)
    wanted, granted = connection.execute(found).one()
    try:
        document = wanted or {}
        wish = rules.make_wish(document.get("presets", ()), document.get("namespaces", ()), document.get("custom", ()))
    except rules.BadWish:  # written by an older release that knew other presets
        wish = rules.make_wish((), (), ())
    return wish, granted


def _granted_of(granted: Mapping[str, Any] | None) -> tuple[rules.Permission, ...] | None:
    return None if granted is None else tuple(rules.Permission(*key) for key in granted["granted"])
