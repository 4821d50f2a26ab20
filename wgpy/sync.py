"""A tunnel for plain threads; see `wgpy.adapters.sync`."""

from wgpy.adapters.sync import Listener, Tunnel, open_tunnel

__all__ = ["Listener", "Tunnel", "open_tunnel"]
