"""WireGuard in Python: a protocol engine without I/O, a runtime on trio, a TUN driver and a TCP/IP stack of its own.

The path of a packet, from an application to a peer, with the module that owns each step:

    TUN interface --- tun.linux, dataplane.split      a superpacket becomes rows of one slab
    or streams ------ runtime.streams, netstack       octets become rows of one slab, when there is room for them
        |
    Engine ---------- protocol.engine                 destination -> peer (allowedips), keypair or staging (peer)
        |
    seal ------------ dataplane.transport             each row becomes one transport data message, in place
        |
    UDP socket ------ runtime.udp                     one UDP_SEGMENT send per slab

and back: runtime.udp (UDP_GRO), protocol.engine, dataplane.transport (open, replay), then dataplane.merge, tun.linux or
netstack, runtime.netdevice.
Handshakes are in noise.handshake, timers in protocol.timers, the one nursery in runtime.device.

What is exported here is the public interface; it is loaded on first use, so that programs which only want the engine
need neither trio nor Linux.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wgpy import adapters as adapters
    from wgpy import sync as sync
    from wgpy import testing as testing
    from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
    from wgpy.dataplane.slab import Slab
    from wgpy.errors import (
        ConfigError,
        DeviceError,
        DropReason,
        LocalProtocolError,
        TunnelClosed,
        WgpyError,
    )
    from wgpy.keys import PresharedKey, PrivateKey, PublicKey
    from wgpy.netstack.tcp.keepalive import Keepalive
    from wgpy.protocol.datagrams import DatagramBatch
    from wgpy.protocol.engine import Engine
    from wgpy.protocol.events import (
        EndpointChanged,
        HandshakeCompleted,
        HandshakeGaveUp,
        InitiationReceived,
        SessionExpired,
        SilenceEnded,
        UnknownPeer,
    )
    from wgpy.protocol.statistics import EngineStatistics, PeerStatistics
    from wgpy.runtime.device import Device
    from wgpy.runtime.resolving import EndpointUnresolved
    from wgpy.runtime.tunnel import Tunnel, open_device, open_interface, open_tunnel
    from wgpy.tun.base import PacketDevice
    from wgpy.tun.memory import MemoryDevice

_HOMES = {
    "ConfigError": "errors",
    "DatagramBatch": "protocol.datagrams",
    "Device": "runtime.device",
    "DeviceError": "errors",
    "DropReason": "errors",
    "Endpoint": "config",
    "EndpointChanged": "protocol.events",
    "EndpointUnresolved": "runtime.resolving",
    "Engine": "protocol.engine",
    "EngineStatistics": "protocol.statistics",
    "HandshakeCompleted": "protocol.events",
    "HandshakeGaveUp": "protocol.events",
    "InitiationReceived": "protocol.events",
    "InterfaceConfig": "config",
    "Keepalive": "netstack.tcp.keepalive",
    "LocalProtocolError": "errors",
    "MemoryDevice": "tun.memory",
    "PacketDevice": "tun.base",
    "PeerConfig": "config",
    "PeerStatistics": "protocol.statistics",
    "PresharedKey": "keys",
    "PrivateKey": "keys",
    "PublicKey": "keys",
    "SessionExpired": "protocol.events",
    "SilenceEnded": "protocol.events",
    "Slab": "dataplane.slab",
    "Tunnel": "runtime.tunnel",
    "TunnelClosed": "errors",
    "UnknownPeer": "protocol.events",
    "WgpyError": "errors",
    "open_device": "runtime.tunnel",
    "open_interface": "runtime.tunnel",
    "open_tunnel": "runtime.tunnel",
}

__all__ = [
    "ConfigError",
    "DatagramBatch",
    "Device",
    "DeviceError",
    "DropReason",
    "Endpoint",
    "EndpointChanged",
    "EndpointUnresolved",
    "Engine",
    "EngineStatistics",
    "HandshakeCompleted",
    "HandshakeGaveUp",
    "InitiationReceived",
    "InterfaceConfig",
    "Keepalive",
    "LocalProtocolError",
    "MemoryDevice",
    "PacketDevice",
    "PeerConfig",
    "PeerStatistics",
    "PresharedKey",
    "PrivateKey",
    "PublicKey",
    "SessionExpired",
    "SilenceEnded",
    "Slab",
    "Tunnel",
    "TunnelClosed",
    "UnknownPeer",
    "WgpyError",
    "open_device",
    "open_interface",
    "open_tunnel",
]


def __getattr__(name: str) -> object:
    if name in ("adapters", "sync", "testing"):  # public modules, such as `wgpy.sync.open_tunnel` for plain threads
        return importlib.import_module(f"wgpy.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'wgpy' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"wgpy.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "adapters", "sync", "testing"})
