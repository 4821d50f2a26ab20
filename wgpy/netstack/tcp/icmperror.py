"""What an ICMP error does to a connection: it ends an attempt, never an established connection.

RFC 1122 4.2.3.9 would have an attempt outlive "unreachable"; RFC 5461 says why nobody does that, and what L does.

Source: RFC 5927 sections 4 to 7, RFC 5461 sections 3 and 4, RFC 1191, RFC 8201.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from wgpy.netstack.constants import MINIMUM_MTU_IPV4, MINIMUM_MTU_IPV6
from wgpy.netstack.tcp.states import State

if TYPE_CHECKING:
    from wgpy.netstack.tcp.connection import TcpConnection

__all__ = ["take"]


def take(conn: TcpConnection, code: int, mtu: int, now: float) -> None:
    """Take an error that quotes something in flight.

    Args:
        conn: whose segment is quoted.
        code: errno of what it says; EMSGSIZE for a packet that was too big.
        mtu: of the next hop, for EMSGSIZE.
        now: the time.
    """
    if code == errno.EMSGSIZE:
        _too_big(conn, mtu, now)
    elif conn.state in (State.SYN_SENT, State.SYN_RECEIVED):
        if code == errno.EACCES and conn.headers.is_v4:
            code = errno.EHOSTUNREACH
        conn.fail(OSError(code, os.strerror(code)), now)
    else:
        conn.soft_error = code


def _too_big(conn: TcpConnection, mtu: int, now: float) -> None:
    least = MINIMUM_MTU_IPV4 if conn.headers.is_v4 else MINIMUM_MTU_IPV6
    # A router older than RFC 1191 says nothing; nobody may press us below what every path carries (RFC 5927 7.2).
    mtu = max(mtu, least)
    if mtu >= conn.mtu or not conn.host.lower_mtu(conn, mtu):
        return
    sender = conn.sender
    # What did not fit is lost, and that says nothing about congestion: send it again, cut anew.
    for run in sender.board.runs:
        if run.size > sender.payload or run.end - run.start > sender.payload:
            sender.board.mark_lost(run)
    conn.settle(now)
