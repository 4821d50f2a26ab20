"""The connection record and its verbs, which are synchronous and never block."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wgpy.netstack.tcp.states import State

__all__ = ["TcpConnection"]


class TcpConnection:
    """One TCP connection.

    Attributes:
        local: our address and port.
        remote: theirs.
        state: of RFC 9293.
        error: why it failed; None while it did not.
        at_eof: the peer's FIN was received and everything before it read.
    """

    local: tuple[str, int]
    remote: tuple[str, int]
    state: State
    error: OSError | None
    at_eof: bool

    # is_established, is_closed, is_readable, is_writable: properties

    def write(self, data: bytes | bytearray | memoryview, now: float) -> int:
        """Put octets into the bounded send buffer: how many were taken, perhaps none. bytes are kept by reference.

        Raises:
            OSError: the connection failed, or is shut down for writing (EPIPE).
        """
        raise NotImplementedError

    def read(self, max_bytes: int, now: float) -> bytes:
        """Take octets that arrived in order; b"" when there are none, and for good when `at_eof`.

        Raises:
            OSError: the connection failed, and everything before was read.
        """
        raise NotImplementedError

    def shutdown_write(self, now: float) -> None:
        """Send a FIN after everything written; reading goes on."""
        raise NotImplementedError

    def close(self, now: float, *, linger: float | None = None) -> None:
        """Give the connection up: what was written and a FIN are still sent for so long, then RST.

        Unread data means RST at once (RFC 1122 4.2.2.13).
        """
        raise NotImplementedError

    def abort(self, now: float) -> None:
        """RST, at once."""
        raise NotImplementedError
