"""How a connection finds out that its peer is gone: questions after silence.

Source: RFC 9293 3.8.4, RFC 1122 4.2.3.6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from wgpy.netstack.constants import KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES

__all__ = ["Keepalive", "checked_user_timeout"]


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Ask a silent peer whether it is still there, and break the connection when it is not.

    What is in flight asks the same question, so a peer that is gone is found out within `dead_after` seconds whether
    something was sent to it or not. (The kernel waits for its retransmissions then, for a quarter of an hour.)

    Attributes:
        idle: seconds of silence before the first question, at least 1.
        interval: seconds between questions, at least 1.
        probes: so many questions in a row without an answer break the connection, at least 1.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> wgpy.Keepalive(idle=5, interval=3, probes=3).dead_after
        14
    """

    idle: float = KEEPALIVE_IDLE
    interval: float = KEEPALIVE_INTERVAL
    probes: int = KEEPALIVE_PROBES

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("idle", "interval"):
            seconds = getattr(self, name)
            if not 1 <= seconds < math.inf:
                raise ValueError(f"{name} must be at least 1 second, got {seconds}")
        if not isinstance(self.probes, int) or self.probes < 1:
            raise ValueError(f"probes must be a whole number from 1 on, got {self.probes}")

    @property
    def dead_after(self) -> float:
        """Seconds of silence after which the peer counts as gone."""
        return self.idle + self.interval * self.probes


def checked_user_timeout(seconds: float | None) -> float | None:
    """The same value.

    Raises:
        ValueError: it is no positive time.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"a user timeout is a positive number of seconds, got {seconds}")
    return seconds
