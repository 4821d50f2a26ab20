"""The query machine: whom it asks when, and what it believes."""

from __future__ import annotations

import random

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR

from wgpy.errors import DropReason
from wgpy.netstack.constants import DNS_CACHE, DNS_CACHE_TIME
from wgpy.netstack.dns import Ask, Cache, Outcome, Query, candidates

SERVERS = ("10.0.0.53", "10.0.1.53")


def query(name: str = "www.example.org", version: int = 4, servers: tuple[str, ...] = SERVERS, seed: int = 1) -> Query:
    made = Query(name, version, servers, random=random.Random(seed).randbytes)
    made.start(0.0)
    return made


def reply(ask: Ask, *records: DNSRR, **fields: object) -> bytes:
    asked = DNS(ask.message)
    shown = {"id": asked.id, "qr": 1, "qd": asked.qd, "an": list(records)} | fields
    return bytes(DNS(**shown))


def address(name: str = "www.example.org.", value: str = "192.0.2.1", kind: str = "A") -> DNSRR:
    return DNSRR(rrname=name, type=kind, rdata=value)


def test_an_answer_settles_the_question() -> None:
    one = query()
    [ask] = one.asks()
    assert ask.server == SERVERS[0]
    assert not ask.over_tcp
    one.receive_untrusted(ask, reply(ask, address(), address(value="192.0.2.2"), address()), 0.1)
    assert (one.outcome, one.addresses) == (Outcome.FOUND, ("192.0.2.1", "192.0.2.2"))
    assert one.next_deadline() is None
    assert one.asks() == []


def test_the_other_family_is_asked_for_by_its_own_type() -> None:
    one = query(version=6)
    [ask] = one.asks()
    assert DNS(ask.message).qd[0].qtype == 28
    one.receive_untrusted(ask, reply(ask, address(value="2001:db8::1", kind="AAAA"), address()), 0.1)
    assert one.addresses == ("2001:db8::1",)


def test_every_ask_is_new_and_in_mixed_case() -> None:
    one = query()
    asks = one.asks()
    for moment in (2.0, 4.0, 6.0, 8.0, 10.0):
        one.handle_timer(moment)
        asks += one.asks()
    assert len({ask.message[:2] for ask in asks}) == 6
    names = {ask.name for ask in asks}
    assert len(names) == 6
    assert all(b".".join(name).lower() == b"www.example.org" for name in names)


def test_servers_are_asked_in_turn_two_seconds_apart_three_times_over() -> None:
    one = query()
    asked = []
    now = 0.0
    while one.outcome is None:
        asked += [(now, ask.server) for ask in one.asks()]
        deadline = one.next_deadline()
        assert deadline is not None
        one.handle_timer(deadline - 0.001)
        assert one.asks() == []
        now = deadline
        one.handle_timer(now)
    assert asked == [(2.0 * turn, SERVERS[turn % 2]) for turn in range(6)]
    assert (one.outcome, now) == (Outcome.NO_ANSWER, 12.0)


def test_a_late_answer_is_still_an_answer() -> None:
    one = query()
    [first] = one.asks()
    one.handle_timer(2.0)
    one.receive_untrusted(first, reply(first, address()), 2.5)
    assert one.outcome is Outcome.FOUND


@pytest.mark.parametrize(
    "forged",
    [
        {"id": 1},
        {"qd": DNSQR(qname="www.example.com.")},
        {"qd": DNSQR(qname="www.example.org.", qtype="AAAA")},
        {"qr": 0},
    ],
)
def test_forged_answers_change_nothing(forged: dict[str, object]) -> None:
    one = query()
    [ask] = one.asks()
    one.receive_untrusted(ask, reply(ask, address(value="203.0.113.66"), **forged), 0.1)
    one.receive_untrusted(ask, b"noise", 0.1)
    assert one.outcome is None
    assert one.asks() == []
    assert sum(one.refused.values()) == 2
    one.receive_untrusted(ask, reply(ask, address()), 0.2)
    assert one.addresses == ("192.0.2.1",)


def test_an_answer_to_an_earlier_ask_is_no_answer_to_this_one() -> None:
    one = query()
    [first] = one.asks()
    one.handle_timer(2.0)
    [second] = one.asks()
    one.receive_untrusted(second, reply(first, address()), 2.1)
    assert one.outcome is None
    assert one.refused == {DropReason.DNS_FORGED: 1}


def test_an_answer_without_our_case_is_asked_again_over_tcp() -> None:
    one = query()
    [ask] = one.asks()
    plain = DNSQR(qname="www.example.org.")
    one.receive_untrusted(ask, reply(ask, address(value="203.0.113.66"), qd=plain), 0.1)
    assert one.outcome is None
    [again] = one.asks()
    assert (again.server, again.over_tcp) == (ask.server, True)
    one.receive_untrusted(again, reply(again, address(), qd=plain), 0.2)
    assert one.addresses == ("192.0.2.1",)


def test_a_truncated_answer_is_asked_again_over_tcp() -> None:
    one = query()
    [ask] = one.asks()
    one.receive_untrusted(ask, reply(ask, tc=1), 0.1)
    [again] = one.asks()
    assert (again.server, again.over_tcp) == (ask.server, True)
    many = [address(value=f"192.0.2.{number}") for number in range(200)]
    one.receive_untrusted(again, reply(again, *many), 0.2)
    assert len(one.addresses) == 200


def test_a_server_older_than_edns_is_asked_without() -> None:
    one = query()
    [ask] = one.asks()
    assert DNS(ask.message).ar
    one.receive_untrusted(ask, reply(ask, rcode=1), 0.1)
    [again] = one.asks()
    assert again.server == ask.server
    assert not DNS(again.message).ar
    one.receive_untrusted(again, reply(again, rcode=1), 0.2)
    assert one.asks()[0].server == SERVERS[1], "it refuses that too: the next one"


def test_aliases_are_followed_and_strangers_in_the_answer_are_not() -> None:
    one = query()
    [ask] = one.asks()
    records = [
        address("elsewhere.example.", "203.0.113.66"),
        DNSRR(rrname="WWW.example.org.", type="CNAME", rdata="a.example.net."),
        DNSRR(rrname="a.example.net.", type="CNAME", rdata="b.example.net."),
        address("b.example.net.", "192.0.2.7"),
    ]
    one.receive_untrusted(ask, reply(ask, *records), 0.1)
    assert one.addresses == ("192.0.2.7",)


def test_aliases_in_a_circle_lead_nowhere() -> None:
    one = query()
    [ask] = one.asks()
    records = [
        DNSRR(rrname="www.example.org.", type="CNAME", rdata="a.example."),
        DNSRR(rrname="a.example.", type="CNAME", rdata="www.example.org."),
    ]
    one.receive_untrusted(ask, reply(ask, *records), 0.1)
    assert one.outcome is Outcome.NO_DATA


def test_no_such_name_is_final() -> None:
    one = query()
    [ask] = one.asks()
    one.receive_untrusted(ask, reply(ask, rcode=3), 0.1)
    assert one.outcome is Outcome.NO_NAME


@pytest.mark.parametrize("code", [2, 5])
def test_a_server_that_fails_or_refuses_makes_room_for_the_next_at_once(code: int) -> None:
    one = query()
    servers = []
    while one.outcome is None:
        [ask] = one.asks()
        servers.append(ask.server)
        one.receive_untrusted(ask, reply(ask, rcode=code), 0.1)
    assert servers == list(SERVERS) * 3
    assert one.outcome is Outcome.SERVER_FAILURE


def test_a_network_that_refuses_makes_room_for_the_next_at_once() -> None:
    one = query()
    [first] = one.asks()
    one.failed(first, 0.1)
    [second] = one.asks()
    assert second.server == SERVERS[1]
    one.failed(first, 0.2)
    assert one.asks() == [], "the news is old"


def test_what_cannot_be_a_name_is_not_asked() -> None:
    with pytest.raises(ValueError, match="is no host name"):
        query("a..b")


def test_names_are_searched_for_as_resolv_conf_says() -> None:
    domains = ("a.example.", "b.example")
    assert candidates("db", domains) == ["db.a.example", "db.b.example", "db"]
    assert candidates("db.prod", domains) == ["db.prod", "db.prod.a.example", "db.prod.b.example"]
    assert candidates("db.", domains) == ["db."]


def test_an_answer_is_kept_for_as_long_as_all_of_it_is_good() -> None:
    one = query("www.example.org")
    [ask] = one.asks()
    alias = DNSRR(rrname="www.example.org.", type="CNAME", rdata="web.example.org.", ttl=40)
    target = DNSRR(rrname="web.example.org.", type="A", rdata="192.0.2.1", ttl=60)
    one.receive_untrusted(ask, reply(ask, alias, target), 0.1)
    assert one.ttl == 40
    cache = Cache()
    cache.put(one, 1.0)
    assert cache.get("WWW.example.org.", 4, 40.9) == ("192.0.2.1",)
    assert cache.get("www.example.org", 6, 40.9) == ()
    assert cache.get("www.example.org", 4, 41.0) == ()
    assert cache.get("www.example.org", 4, 1.0) == ()


def test_what_is_good_for_no_time_or_was_not_found_is_not_kept_and_nothing_for_ever() -> None:
    cache = Cache()
    for name, ttl in (("never.test", 0), ("ever.test", 2**31 - 1)):
        one = query(name)
        [ask] = one.asks()
        one.receive_untrusted(ask, reply(ask, DNSRR(rrname=f"{name}.", type="A", rdata="192.0.2.1", ttl=ttl)), 0.1)
        cache.put(one, 0.0)
    cache.put(query("lost.test"), 0.0)
    assert [cache.get(name, 4, 1.0) for name in ("never.test", "lost.test")] == [(), ()]
    assert cache.get("ever.test", 4, DNS_CACHE_TIME - 1)
    assert not cache.get("ever.test", 4, DNS_CACHE_TIME)


def test_the_cache_is_bounded() -> None:
    cache = Cache()
    for number in range(DNS_CACHE + 1):
        one = query(f"n{number}.test")
        [ask] = one.asks()
        record = DNSRR(rrname=f"n{number}.test.", type="A", rdata="192.0.2.1", ttl=60)
        one.receive_untrusted(ask, reply(ask, record), 0.1)
        cache.put(one, 0.0)
    assert cache.get("n0.test", 4, 1.0) == ()
    assert cache.get("n1.test", 4, 1.0) == cache.get(f"n{DNS_CACHE}.test", 4, 1.0) == ("192.0.2.1",)
