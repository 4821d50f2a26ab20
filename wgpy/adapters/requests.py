"""requests through a tunnel, in one line: `session(tunnel).get("http://intranet.example/")`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL

from wgpy.adapters.urllib3 import pool_classes

if TYPE_CHECKING:
    import urllib3

    from wgpy.adapters.sync import Tunnel

__all__ = ["TunnelAdapter", "session"]


def session(tunnel: Tunnel) -> requests.Session:
    """A session all of whose connections go through the tunnel of `wgpy.sync.open_tunnel`."""
    made = requests.Session()
    adapter = TunnelAdapter(tunnel)
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    return made


class TunnelAdapter(HTTPAdapter):
    """For `Session.mount`, where some addresses shall go through a tunnel and others not.

    HTTP proxies, those of the environment too, are dialled in the tunnel: nothing leaves by another way.
    """

    def __init__(self, tunnel: Tunnel, **settings: Any) -> None:
        """Settings are those of `HTTPAdapter`."""
        self._classes = pool_classes(tunnel)
        super().__init__(**settings)

    def init_poolmanager(self, *arguments: Any, **settings: Any) -> None:
        """Make the pools; called by requests."""
        super().init_poolmanager(*arguments, **settings)
        self.poolmanager.pool_classes_by_scheme = self._classes

    def proxy_manager_for(self, proxy: str, **settings: Any) -> urllib3.ProxyManager:
        """Make the pools of a proxy; called by requests.

        Raises:
            InvalidProxyURL: a SOCKS proxy, which would be dialled outside of the tunnel.
        """
        if proxy.lower().startswith("socks"):
            raise InvalidProxyURL(f"{proxy} would be dialled outside of the tunnel: set trust_env=False, or NO_PROXY")
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **settings)
        manager.pool_classes_by_scheme = self._classes
        return manager
