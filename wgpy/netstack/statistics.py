"""What the stack counted: frozen values for whoever watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wgpy.errors import DropReason

__all__ = ["StackStatistics"]


@dataclass(frozen=True, slots=True)
class StackStatistics:
    """Counters since the start, and what exists now.

    Attributes:
        packets_received: for the stack, refused ones included.
        packets_sent: rows emitted.
        connections: in any state but TIME_WAIT.
        half_open: of these, in SYN_RECEIVED.
        time_wait: records of closed connections.
        opened: connections that came to be established.
        failed: connections that ended with an error.
        segments_retransmitted: TCP segments sent again.
        resets_sent: RST segments.
        buffered: octets in send and receive buffers.
        drops: packets refused, by reason.
    """

    packets_received: int
    packets_sent: int
    connections: int
    half_open: int
    time_wait: int
    opened: int
    failed: int
    segments_retransmitted: int
    resets_sent: int
    buffered: int
    drops: Mapping[DropReason, int]
