"""The timers against the table of protocol notes 1.8, which is whitepaper section 6; B17 to B22, R1, R2."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpy.protocol.timers import NEVER, Due, PeerTimers

DELAYS = {"retransmit": 5.0, "keepalive": 10.0, "new handshake": 15.0, "zero keys": 540.0, "session": 180.0}
JITTERED = {"retransmit", "new handshake"}
# Fact: what it does to which timer. "start" leaves one that runs alone.
FACTS: dict[str, dict[str, str]] = {
    "initiation sent": {"retransmit": "set"},
    "retry sent": {"retransmit": "set"},
    "handshake completed": {"retransmit": "off"},
    "session created": {"zero keys": "set", "session": "set"},
    "data sent": {"new handshake": "start"},
    "data received": {"keepalive": "start"},
    "authenticated sent": {"keepalive": "off", "persistent": "set"},
    "authenticated received": {"new handshake": "off", "persistent": "set"},
    "down": dict.fromkeys([*DELAYS, "persistent"], "off"),
}
# The order in which what is due must be done: wiping before anything that sends.
ORDER = ["session", "zero keys", "retransmit", "new handshake", "keepalive", "persistent"]
ASKS = {
    "session": Due.SESSION_EXPIRED,
    "zero keys": Due.ZERO_KEYS,
    "retransmit": Due.RETRY_HANDSHAKE,
    "new handshake": Due.NEW_HANDSHAKE,
    "keepalive": Due.KEEPALIVE,
    "persistent": Due.PERSISTENT_KEEPALIVE,
}


@dataclass
class Model:
    """The table, followed to the letter."""

    interval: int = 0
    retries: int = 0
    wants_another: bool = False
    at: dict[str, float] = field(default_factory=dict)

    def fact(self, name: str, now: float, jitter: float) -> None:
        for timer, verb in FACTS[name].items():
            if verb == "off":
                self.at.pop(timer, None)
            elif timer == "persistent":
                if self.interval:
                    self.at[timer] = now + self.interval
            elif verb == "set" or timer not in self.at:
                self.at[timer] = now + DELAYS[timer] + (jitter if timer in JITTERED else 0)
            elif timer == "keepalive":
                self.wants_another = True
        match name:
            case "initiation sent" | "handshake completed" | "down":
                self.retries = 0
            case "retry sent":
                self.retries += 1
        if name in ("authenticated sent", "down"):
            self.wants_another = False

    def expire(self, now: float) -> list[Due]:
        due = []
        for timer in ORDER:
            if self.at.get(timer, NEVER) > now:
                continue
            del self.at[timer]
            asks = ASKS[timer]
            if timer == "retransmit" and self.retries > 18:
                asks = Due.GIVE_UP
                self.at.pop("keepalive", None)
                self.at.setdefault("zero keys", now + 540)
            if timer == "keepalive":
                if self.wants_another:
                    asks = Due.KEEPALIVE_AGAIN
                self.wants_another = False
            if timer == "persistent":
                self.at[timer] = now + self.interval
            due.append(asks)
        return due


def tell(timers: PeerTimers, name: str, now: float, jitter: float) -> None:
    match name:
        case "initiation sent" | "retry sent":
            timers.handshake_initiated(now, jitter, is_retry=name == "retry sent")
        case "handshake completed":
            timers.handshake_completed()
        case "session created":
            timers.session_created(now)
        case "data sent":
            timers.data_sent(now, jitter)
        case "data received":
            timers.data_received(now)
        case "authenticated sent":
            timers.authenticated_sent(now)
        case "authenticated received":
            timers.authenticated_received(now)
        case _:
            timers.stop()


steps = st.tuples(
    st.sampled_from([*FACTS, "expire", "expire", "expire at the deadline", "interval"]),
    st.sampled_from([0.0, 0.125, 1.0, 4.5, 5.0, 10.0, 15.0, 60.0, 200.0]),
    st.sampled_from([0.0, 0.25, 0.3125]),
)


@given(st.lists(steps, max_size=60))
@settings(max_examples=400)
def test_every_fact_moves_the_timers_as_the_table_says(script: list[tuple[str, float, float]]) -> None:
    timers, model, now = PeerTimers(), Model(), 1000.0
    for name, passed, jitter in script:
        if name == "expire at the deadline":
            now = max(now, min(model.at.values(), default=now))
        else:
            now += passed
        if name == "interval":
            model.interval = int(passed)
            timers.set_persistent_interval(model.interval, now)
            model.at.pop("persistent", None)
            if model.interval:
                model.at["persistent"] = now + model.interval
        elif name.startswith("expire"):
            assert timers.expire(now) == model.expire(now)
        else:
            tell(timers, name, now, jitter)
            model.fact(name, now, jitter)
        assert timers.next_deadline() == min(model.at.values(), default=NEVER)
        assert timers.attempts == model.retries


def test_b21_20_initiations_then_giving_up() -> None:
    timers, now, sent = PeerTimers(), 0.0, 1
    timers.handshake_initiated(now, 0.2, is_retry=False)
    while True:
        now = timers.next_deadline()
        due = timers.expire(now)
        if due == [Due.GIVE_UP]:
            break
        assert due == [Due.RETRY_HANDSHAKE]
        timers.handshake_initiated(now, 0.2, is_retry=True)
        sent += 1
    assert sent == 20
    assert now == pytest.approx(20 * 5.2)
    assert timers.next_deadline() == now + 540, "B22: the keys go 540 s later"


def test_b22_giving_up_does_not_put_off_the_wiping_that_is_due_earlier() -> None:
    timers = PeerTimers()
    timers.session_created(0.0)
    timers.attempts = 19
    timers.retransmit_at = 500.0
    assert Due.GIVE_UP in timers.expire(500.0)
    assert timers.zero_keys_at == 540.0


def test_r1_silence_is_counted_from_the_first_unanswered_packet() -> None:
    timers = PeerTimers()
    for second in range(14):
        timers.data_sent(float(second), 0.0)
    assert timers.next_deadline() == 15.0


def test_a_retry_that_met_the_gate_waits_for_it() -> None:
    """Protocol notes 1.8; the kernel leaves the timer off here."""
    timers = PeerTimers()
    timers.handshake_initiated(0.0, 0.0, is_retry=False)
    assert timers.expire(5.0) == [Due.RETRY_HANDSHAKE]
    timers.postpone_retry(7.0)
    assert timers.expire(6.9) == []
    assert timers.expire(7.0) == [Due.RETRY_HANDSHAKE]


def test_b17_a_second_keepalive_follows_where_more_data_came() -> None:
    timers = PeerTimers()
    timers.data_received(0.0)
    timers.data_received(5.0)
    assert timers.expire(10.0) == [Due.KEEPALIVE_AGAIN]
    timers.authenticated_sent(10.0)
    timers.keepalive_again(10.0)
    assert timers.expire(20.0) == [Due.KEEPALIVE]
    assert timers.next_deadline() == NEVER
