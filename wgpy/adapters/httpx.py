"""httpx through a tunnel, in one line.

    httpx.AsyncClient(transport=transport(tunnel))    with `wgpy.open_tunnel` and `wgpy.adapters.asyncio.open_tunnel`
    httpx.Client(transport=transport(tunnel))         with `wgpy.sync.open_tunnel`

Names are resolved in the tunnel; proxies of the environment are not looked at, because httpx does so for its own
transports only.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, overload

import httpcore
import httpx

from wgpy.adapters import asyncio as asyncio_face
from wgpy.adapters import sync as sync_face
from wgpy.adapters.httpcore import backend

if TYPE_CHECKING:
    from wgpy.adapters.net import Tunnel

__all__ = ["transport"]


@overload
def transport(
    tunnel: sync_face.Tunnel,
    *,
    verify: ssl.SSLContext | None = None,
    http2: bool = False,
    limits: httpx.Limits | None = None,
) -> httpx.HTTPTransport: ...
@overload
def transport(
    tunnel: asyncio_face.Tunnel | Tunnel,
    *,
    verify: ssl.SSLContext | None = None,
    http2: bool = False,
    limits: httpx.Limits | None = None,
) -> httpx.AsyncHTTPTransport: ...
def transport(
    tunnel: Any,
    *,
    verify: ssl.SSLContext | None = None,
    http2: bool = False,
    limits: httpx.Limits | None = None,
) -> httpx.HTTPTransport | httpx.AsyncHTTPTransport:
    """A transport whose connections go through the tunnel.

    Args:
        tunnel: any face of it.
        verify: how to check certificates; None for httpx's own way.
        http2: offer HTTP/2 (needs `httpx[http2]`).
        limits: of the pool of connections; None for httpx's own.
    """
    limits = limits or httpx.Limits(max_connections=100, max_keepalive_connections=20)
    settings: dict[str, Any] = {
        "ssl_context": verify or httpx.create_ssl_context(),
        "max_connections": limits.max_connections,
        "max_keepalive_connections": limits.max_keepalive_connections,
        "keepalive_expiry": limits.keepalive_expiry,
        "http1": True,
        "http2": http2,
        "network_backend": backend(tunnel),
    }
    # httpx has no argument for the pool of a transport; the attribute has had this name since its first release.
    made: httpx.HTTPTransport | httpx.AsyncHTTPTransport
    if isinstance(tunnel, sync_face.Tunnel):
        made = httpx.HTTPTransport(verify=settings["ssl_context"])
        made._pool = httpcore.ConnectionPool(**settings)
    else:
        made = httpx.AsyncHTTPTransport(verify=settings["ssl_context"])
        made._pool = httpcore.AsyncConnectionPool(**settings)
    return made
