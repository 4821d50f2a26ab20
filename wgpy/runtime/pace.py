"""How much of the time handshakes may take: all that data leaves, and a share of it while data flows.

A handshake costs as much as thousands of octets of data, and whoever knows our public key may ask for one. So time is
the measure, not messages: after a turn of handshakes they pause, if the sockets moved so much data meanwhile that it is
worth protecting. What comes during a pause waits in a socket of its own and overflows there, which costs nothing.
"""

from __future__ import annotations

from typing import Final

__all__ = ["HandshakePace"]

# Of the time, while data flows: 15,000 messages a second can be looked at within it.
_SHARE: Final = 1 / 12
# Seconds of work after which it is decided: long against the price of a pause, short against a queue of data.
_TURN: Final = 0.001
# Octets moved per second of handshake work that count as data flowing: in a storm of honest peers a handshake of some
# 0.2 ms brings a packet or two with it, which is ten times less.
_FLOWING: Final = 10e6


class HandshakePace:
    """When handshakes have their next turn.

    Attributes:
        resumes_at: engine time; not before it.
    """

    __slots__ = ("_octets", "_spent", "resumes_at")

    def __init__(self) -> None:
        """Start with nothing spent."""
        self.resumes_at = 0.0
        self._spent = 0.0
        self._octets = 0

    def spent(self, seconds: float, now: float, octets: int) -> None:
        """Handshakes took so long.

        Args:
            seconds: of work.
            now: engine time, after it.
            octets: of data that were moved since the start of the world.
        """
        self._spent += seconds
        if self._spent < _TURN:
            return
        if octets - self._octets > self._spent * _FLOWING:
            self.resumes_at = now + self._spent * (1 / _SHARE - 1)
        self._spent = 0.0
        self._octets = octets
