"""urllib3 through a tunnel, in one line: `pool_manager(tunnel).request("GET", "http://intranet.example/")`."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

if TYPE_CHECKING:
    from wgpy.adapters.sync import Tunnel

__all__ = ["pool_classes", "pool_manager"]


def pool_manager(tunnel: Tunnel, **settings: Any) -> urllib3.PoolManager:
    """A pool manager all of whose connections go through the tunnel.

    Args:
        tunnel: of `wgpy.sync.open_tunnel`.
        **settings: of `urllib3.PoolManager`.
    """
    manager = urllib3.PoolManager(**settings)
    manager.pool_classes_by_scheme = pool_classes(tunnel)
    return manager


def pool_classes(tunnel: Tunnel) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """What a pool manager asks for its pools by scheme."""

    class TunnelConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _dial(tunnel, self)

    class TunnelSecureConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _dial(tunnel, self)

    class TunnelPool(urllib3.HTTPConnectionPool):
        ConnectionCls = TunnelConnection

    class TunnelSecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = TunnelSecureConnection

    return {"http": TunnelPool, "https": TunnelSecurePool}


def _dial(tunnel: Tunnel, connection: HTTPConnection) -> socket.socket:
    """Connect, with the errors of urllib3."""
    # A float or None by now: the pool has resolved its default.
    timeout: Any = connection.timeout
    host = connection.host.strip("[]")
    try:
        return tunnel.create_connection((host, connection.port), timeout)
    except socket.gaierror as problem:
        raise NameResolutionError(connection.host, connection, problem) from problem
    except TimeoutError as problem:
        raise ConnectTimeoutError(connection, f"connecting to {host} timed out (timeout {timeout})") from problem
    except OSError as problem:
        raise NewConnectionError(connection, f"cannot connect to {host}: {problem}") from problem
