"""The RFC 9293 machine (section 3.3.2) as a table: which event leads from where to where.

                            +---------+  ACTIVE_OPEN
                            |  CLOSED |------------------> SYN_SENT
                            +---------+                    |  | SYN (both at once)
               PASSIVE_OPEN |             ESTABLISH        |  v
                            v   <--------------------------|  SYN_RECEIVED
                      SYN_RECEIVED ---ESTABLISH---> ESTABLISHED
                            | CLOSE                 | CLOSE    | FIN
                            v                       v          v
          FIN_ACKED     FIN_WAIT_1 <----------------+     CLOSE_WAIT
        FIN_WAIT_2 <-----|       | FIN                         | CLOSE
             | FIN       |       v                             v
             v           |    CLOSING --FIN_ACKED--+        LAST_ACK --FIN_ACKED--> CLOSED
        TIME_WAIT <------+-------------------------+

FAIL (reset, abort, timeout) leads from everywhere to CLOSED. LISTEN is not a state of a connection here but a
`listener.TcpListener`: its connections begin at PASSIVE_OPEN. An ACK of our FIN that carries the peer's is two events.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["Event", "State", "next_state"]


class State(enum.IntEnum):
    """Where a connection is in its life."""

    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    LAST_ACK = 9
    TIME_WAIT = 10


class Event(enum.Enum):
    """What can happen to a connection."""

    ACTIVE_OPEN = "we send a SYN"
    PASSIVE_OPEN = "a SYN came to a listener"
    SYN = "a SYN without ACK came in SYN_SENT"
    ESTABLISH = "our SYN was acknowledged"
    CLOSE = "the application has nothing more to send"
    FIN = "the peer's FIN is next in order"
    FIN_ACKED = "our FIN was acknowledged"
    FAIL = "reset, aborted or timed out"


_TABLE: Final[dict[tuple[State, Event], State]] = {
    (State.CLOSED, Event.ACTIVE_OPEN): State.SYN_SENT,
    (State.CLOSED, Event.PASSIVE_OPEN): State.SYN_RECEIVED,
    (State.SYN_SENT, Event.SYN): State.SYN_RECEIVED,
    (State.SYN_SENT, Event.ESTABLISH): State.ESTABLISHED,
    (State.SYN_RECEIVED, Event.ESTABLISH): State.ESTABLISHED,
    (State.SYN_RECEIVED, Event.CLOSE): State.FIN_WAIT_1,
    (State.ESTABLISHED, Event.CLOSE): State.FIN_WAIT_1,
    (State.ESTABLISHED, Event.FIN): State.CLOSE_WAIT,
    (State.FIN_WAIT_1, Event.ESTABLISH): State.FIN_WAIT_1,  # closed while still in SYN_RECEIVED
    (State.FIN_WAIT_1, Event.FIN): State.CLOSING,
    (State.FIN_WAIT_1, Event.FIN_ACKED): State.FIN_WAIT_2,
    (State.FIN_WAIT_2, Event.FIN): State.TIME_WAIT,
    (State.CLOSE_WAIT, Event.CLOSE): State.LAST_ACK,
    (State.CLOSING, Event.FIN_ACKED): State.TIME_WAIT,
    (State.LAST_ACK, Event.FIN_ACKED): State.CLOSED,
}


def next_state(state: State, event: Event) -> State | None:
    """The state after an event; None where the event cannot happen or changes nothing."""
    if event is Event.FAIL:
        return State.CLOSED
    return _TABLE.get((state, event))
