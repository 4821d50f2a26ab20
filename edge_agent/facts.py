"""What is known of the running agent: written by the part that finds it out, read by probes, metrics and `hello`.

Times are trio's, so that a test can turn the clock. Nothing here decides anything but `is_ready`.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Final

import trio

from edge_agent.kube import EDGE_TOKEN_REFUSED

__all__ = ["CLOCK_TOLERANCE", "SEEN_LIMIT", "ApiState", "Facts", "clock_text"]

_log = logging.getLogger("edge.facts")

# Without an answer of the hub for so long, the edge does not call itself connected (D2).
SEEN_LIMIT: Final = 15.0
# A clock that is off by more is told: it is the hub's tolerance for the time of a request.
CLOCK_TOLERANCE: Final = 600.0


@dataclasses.dataclass(frozen=True, slots=True)
class ApiState:
    """How the API server answers us.

    Attributes:
        state: ok, unreachable or forbidden; empty before the first try.
        errno_name: such as ECONNREFUSED, None where there is none.
        detail: for people; the API server's own words where it spoke.
    """

    state: str = ""
    errno_name: str | None = None
    detail: str = ""


@dataclasses.dataclass(slots=True)
class Facts:
    """The newest of everything.

    Attributes:
        boot_id: of this process, to tell a restart from a reconnection.
        problem: why there is no tunnel, empty if there is one.
        code: a reason code of the product for `problem`.
        mode: userspace or tun.
        mode_reason: why not the mode that was asked for, None if it is.
        mtu: inner.
        seen_at: when the hub last answered a heartbeat.
        rtt: seconds, of the last heartbeat that was answered.
        handshake_at: when the last handshake completed.
        handshakes: completed so far.
        endpoint: where the hub is.
        reopened: how often the tunnel was taken for lost and opened anew.
        rx_bytes: from the hub.
        tx_bytes: to the hub.
        api: how the API server answers.
        kube_version: of the API server.
        cluster_uid: None where it may not be read.
        clock_skew: seconds that our clock is ahead of the hub's, None while that is within the tolerance.
        streams: requests of the hub that are being answered.
        requests: of the hub, so far.
        is_stopping: no new work is taken.
    """

    boot_id: str = ""
    problem: str = "starting"
    code: str = ""
    mode: str = ""
    mode_reason: str | None = None
    mtu: int = 0
    seen_at: float | None = None
    rtt: float | None = None
    handshake_at: float | None = None
    handshakes: int = 0
    endpoint: str = ""
    reopened: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    api: ApiState = dataclasses.field(default_factory=ApiState)
    kube_version: str = ""
    cluster_uid: str | None = None
    clock_skew: int | None = None
    streams: int = 0
    requests: int = 0
    is_stopping: bool = False
    _hub_time_at_boot: float | None = dataclasses.field(default=None, repr=False, compare=False)
    _news: trio.Event = dataclasses.field(default_factory=trio.Event, repr=False, compare=False)

    async def changed(self) -> None:
        """Return when something was noted the next time; see `note`."""
        await self._news.wait()

    def note(self) -> None:
        """Wake whoever waits for `changed`: called by whoever wrote something that others wait for."""
        news, self._news = self._news, trio.Event()
        news.set()

    def note_clock(self, skew: float) -> None:
        """The hub said what time it is; `skew` is how far ours is ahead."""
        self._hub_time_at_boot = time.time() - skew - time.clock_gettime(time.CLOCK_BOOTTIME)
        self.look_at_clock()

    def look_at_clock(self) -> None:
        """Compare our clock with the hub's as it must have gone on since it was told: somebody may have set ours."""
        if self._hub_time_at_boot is None:
            return
        skew = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - self._hub_time_at_boot
        known, self.clock_skew = self.clock_skew, round(skew) if abs(skew) > CLOCK_TOLERANCE else None
        if (known is None) == (self.clock_skew is None):
            return
        self.note()
        if self.clock_skew is None:
            _log.info("the clock of this node agrees with the hub's again")
        else:
            _log.error("ClockSkew: %s", clock_text(self.clock_skew))

    def seen_ago(self) -> float | None:
        """Seconds since the hub last answered."""
        return None if self.seen_at is None else trio.current_time() - self.seen_at

    def handshake_age(self) -> float | None:
        """Seconds since the last handshake."""
        return None if self.handshake_at is None else trio.current_time() - self.handshake_at

    @property
    def is_seen(self) -> bool:
        """Whether the tunnel works, by its heartbeat."""
        ago = self.seen_ago()
        return ago is not None and ago < SEEN_LIMIT

    def why_not_ready(self) -> list[str]:
        """One line per reason; empty when ready: the tunnel works and the API server answers."""
        reasons: list[str] = []
        if self.is_stopping:
            reasons.append("stopping")
        if self.clock_skew is not None:
            reasons.append(f"ClockSkew: {clock_text(self.clock_skew)}")
        if self.problem:
            reasons.append(f"{self.code}: {self.problem}" if self.code else self.problem)
        elif not self.is_seen:
            ago = self.seen_ago()
            since = "never" if ago is None else f"{ago:.0f} s ago"
            reasons.append(f"NoUdpSeen: the hub last answered {since}; allow egress to it on its UDP port (51820)")
        if self.api.state != "ok":
            text = self.api.detail or "not asked yet"
            if self.api.errno_name == EDGE_TOKEN_REFUSED:
                reasons.append(f"{EDGE_TOKEN_REFUSED}: {text}")
            elif self.api.state == "forbidden":
                reasons.append(f"ApiForbidden: {text}")
            else:
                errno_name = f"{self.api.errno_name}: " if self.api.errno_name else ""
                reasons.append(f"TunnelUpApiUnreachable: the API server does not answer this pod: {errno_name}{text}")
        return reasons


def clock_text(skew: int) -> str:
    """What is wrong with the clock, and what mends it."""
    way = "ahead of" if skew > 0 else "behind"
    return (
        f"the clock of this node is {abs(skew) / 60:.0f} min {way} the hub's, which may refuse handshakes; set it (NTP)"
    )
