"""Refused kubeconfigs for the audit: the first few of a minute one by one, the others as one sum.

Whoever has no token can ask as often as they like, so what is written of it is bounded: by tenant, by minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from hub_server import audit
from hub_server.kubeproxy import Asking
from hub_server.services.presence import Row

__all__ = ["SUM_EVERY", "Refusals"]

SUM_EVERY: Final = 60.0
_SINGLE: Final = 5  # entries of a minute, for each chain
_SOURCES: Final = 8  # named in a sum
_ACTION: Final = "kubectl.refused"


@dataclass(slots=True)
class _Minute:
    began: float
    seen: int = 0
    sources: dict[str, None] = field(default_factory=dict)


class Refusals:
    """What was refused and is not written yet."""

    def __init__(self) -> None:
        """Start with none."""
        self._minutes: dict[str, _Minute] = {}
        self._entries: list[audit.Entry] = []

    def note(self, asking: Asking, row: Row | None, token: Any, now: float) -> None:
        """A token was refused.

        Args:
            asking: what was asked for.
            row: of the cluster; None for one that is not there, whose refusals stand in the chain of the hub.
            token: the row of the token, where it is known and no longer good.
            now: Unix seconds.
        """
        chain = audit.HUB_CHAIN if row is None else row.tenant_id
        minute = self._minutes.get(chain)
        if minute is None or now - minute.began >= SUM_EVERY or now < minute.began:
            self._sum_up(chain, now)
            minute = self._minutes[chain] = _Minute(now)
        minute.seen += 1
        if minute.seen > _SINGLE:
            if len(minute.sources) < _SOURCES:
                minute.sources[asking.remote] = None
            return
        is_theirs = token is not None and row is not None and token.tenant_id == row.tenant_id
        self._entries.append(
            audit.Entry(
                chain=chain,
                at=now,
                actor=token.user_id if is_theirs else "",
                action=_ACTION,
                result="Unauthorized",
                cluster_id=None if row is None else row.id,
                target=token.id if is_theirs else "",
                remote=asking.remote,
                request_id=asking.request_id,
            )
        )

    def take(self, now: float) -> list[audit.Entry]:
        """What is to be written now."""
        for chain in [chain for chain, minute in self._minutes.items() if now - minute.began >= SUM_EVERY]:
            self._sum_up(chain, now)
        entries, self._entries = self._entries, []
        return entries

    def _sum_up(self, chain: str, now: float) -> None:
        minute = self._minutes.pop(chain, None)
        if minute is None or minute.seen <= _SINGLE:
            return
        detail = {"more": minute.seen - _SINGLE, "from": list(minute.sources), "seconds": round(now - minute.began)}
        self._entries.append(audit.Entry(chain, now, "", _ACTION, result="Unauthorized", detail=detail))
