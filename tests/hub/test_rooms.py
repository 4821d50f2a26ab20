"""How many requests may be open at once."""

from __future__ import annotations

import contextlib

import pytest

from hub_server.app import limits_of_kubectl
from hub_server.domain.errors import TooMany
from hub_server.domain.records import ProxyGrant
from hub_server.rooms import USUAL, Limits, Rooms, Share
from hub_server.settings import Settings


def grant(user: str = "u1", cluster: str = "cl_1") -> ProxyGrant:
    return ProxyGrant(user, "a@example.com", "t1", "acme", cluster, "operator")


def taken(rooms: Rooms, who: ProxyGrant, count: int, *, is_long: bool, stack: contextlib.ExitStack) -> None:
    for _ in range(count):
        stack.enter_context(rooms.room(who, is_long=is_long))


def test_each_scope_has_its_limit_and_names_its_setting() -> None:
    rooms = Rooms(Limits(1, Share(4, 2, 3), Share(1, 1, 1)))
    with contextlib.ExitStack() as stack:
        taken(rooms, grant(), 2, is_long=False, stack=stack)
        with pytest.raises(TooMany, match=r"2 requests open here.*kubectl_requests_per_user_cluster") as refused:
            taken(rooms, grant(), 1, is_long=False, stack=stack)
        assert refused.value.retry_after == 1
        taken(rooms, grant("u2"), 1, is_long=False, stack=stack)
        with pytest.raises(TooMany, match=r"this cluster has 3 requests.*kubectl_requests_per_cluster"):
            taken(rooms, grant("u3"), 1, is_long=False, stack=stack)
        taken(rooms, grant(cluster="cl_2"), 2, is_long=False, stack=stack)
        with pytest.raises(TooMany, match=r"4 requests open on all clusters.*kubectl_requests_per_user of"):
            taken(rooms, grant(cluster="cl_3"), 1, is_long=False, stack=stack)
        taken(rooms, grant(), 1, is_long=True, stack=stack)
    taken(rooms, grant(), 2, is_long=False, stack=contextlib.ExitStack())


def test_a_refusal_and_an_end_hold_no_place() -> None:
    rooms = Rooms(Limits(1, Share(1, 1, 1), Share(1, 1, 1)))
    for _ in range(3):
        with rooms.room(grant(), is_long=False), pytest.raises(TooMany):
            rooms.room(grant(), is_long=False).__enter__()
    assert not rooms._held


def test_the_settings_say_what_is_usual() -> None:
    assert limits_of_kubectl(Settings()) == USUAL


def test_a_dashboard_of_many_kinds_over_several_clusters_meets_no_limit() -> None:
    """Argo CD and dashboards watch every kind that a cluster has, and first list all of them at once."""
    rooms = Rooms(USUAL)
    with contextlib.ExitStack() as stack:
        for cluster in range(4):
            taken(rooms, grant(cluster=f"cl_{cluster}"), 100, is_long=False, stack=stack)
        for cluster in range(8):
            taken(rooms, grant(cluster=f"cl_{cluster}"), 400, is_long=True, stack=stack)
