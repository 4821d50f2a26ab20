"""Passive opens: half-open connections apart from those that wait to be accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wgpy.netstack.tcp.connection import TcpConnection

__all__ = ["TcpListener"]


class TcpListener:
    """Connections to one port.

    Attributes:
        host: our address, None for all.
        port: ours.
    """

    host: str | None
    port: int

    def accept(self) -> TcpConnection | None:
        """The oldest established connection that nobody took yet."""
        raise NotImplementedError

    def close(self, now: float) -> None:
        """Listen no more; connections not yet accepted are reset."""
        raise NotImplementedError
