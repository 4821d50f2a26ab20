"""How many requests may be open at once: of one user, at one cluster, and of one user at one cluster.

What is followed (watches, logs) stands for hours and costs little; it is counted apart from requests that are answered
and done, so that neither takes the other's place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from hub_server.domain.errors import TooMany
from hub_server.domain.records import ProxyGrant

__all__ = ["USUAL", "Limits", "Rooms", "Share"]

_RETRY_AFTER: Final = 1.0


class Share(NamedTuple):
    """How many at once."""

    per_user: int
    per_user_and_cluster: int
    per_cluster: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may send, and how many users and clusters may hold.

    Attributes:
        request_body: octets.
        requests: those that are answered and done.
        watches: those that are followed: watches and logs.
    """

    request_body: int
    requests: Share
    watches: Share


USUAL: Final = Limits(3 * 2**20, Share(1024, 512, 768), Share(4096, 768, 1024))


class Rooms:
    """Who holds how many."""

    def __init__(self, limits: Limits) -> None:
        """Start empty."""
        self._limits = limits
        self._held: Counter[tuple[bool, str, str]] = Counter()

    @contextmanager
    def room(self, grant: ProxyGrant, *, is_long: bool) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            TooMany: there is none; the text says whose limit it is, and the setting.
        """
        what = "watches" if is_long else "requests"
        share = self._limits.watches if is_long else self._limits.requests
        user, cluster = grant.user_id, grant.cluster_id
        places = (
            ((is_long, user, ""), share.per_user, f"you have {{}} {what} open on all clusters", "user"),
            ((is_long, user, cluster), share.per_user_and_cluster, f"you have {{}} {what} open here", "user_cluster"),
            ((is_long, "", cluster), share.per_cluster, f"this cluster has {{}} {what} open", "cluster"),
        )
        for key, most, text, scope in places:
            if self._held[key] >= most:
                setting = f"kubectl_{what}_per_{scope}"
                raise TooMany(f"{text.format(most)}, as many as {setting} of the hub allows", retry_after=_RETRY_AFTER)
        for key, *_ in places:
            self._held[key] += 1
        try:
            yield
        finally:
            for key, *_ in places:
                self._held[key] -= 1
                if not self._held[key]:
                    del self._held[key]
