"""What the hub may send into the pod in tun mode: looked at before the kernel sees it, whatever the pod's sysctls say.

Behind a TUN interface stands the whole network of the pod: its other listeners, and, where `ip_forward` is on, whatever
the pod can reach, such as the cloud's metadata. A hub that was broken into must reach none of it. So a packet passes
only from the hub's address to ours, and only for the proxy's port, as an answer to a connection or heartbeat that we
began, or as the ICMP that goes with these. Everything else is dropped here, fragments and extension headers among it:
nothing that we speak of needs them.
"""

from __future__ import annotations

import collections
import ipaddress
from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["PacketFilter"]

_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
# Echo and its answer, unreachable (with the size that fits), time exceeded.
_ICMP_TYPES: Final = frozenset({0, 3, 8, 11})
_ICMPV6_TYPES: Final = frozenset({1, 2, 3, 128, 129})
_FRAGMENT: Final = 0x3FFF  # "more fragments" and the offset
# Connections of ours that may still be spoken of: the control line is one, and was one before it was opened again.
_REMEMBERED: Final = 16


class PacketFilter:
    """The rule, for one edge and one hub.

    Attributes:
        tcp_ports: ours, of connections that we opened.
        udp_ports: ours, of sockets that we opened.
    """

    def __init__(self, ours: Iterable[str], hub: Iterable[str], proxy_port: int) -> None:
        """Know the addresses of both ends of the tunnel.

        Args:
            ours: in the tunnel, one of each family.
            hub: likewise.
            proxy_port: of TCP, where the hub's requests are answered.
        """
        self._pairs = {(_octets(source), _octets(target)) for source in hub for target in ours}
        self._proxy_port = proxy_port.to_bytes(2, "big")
        self.tcp_ports: collections.deque[bytes] = collections.deque(maxlen=_REMEMBERED)
        self.udp_ports: collections.deque[bytes] = collections.deque(maxlen=_REMEMBERED)

    def opened(self, ports: collections.deque[bytes]) -> Callable[[int], None]:
        """A function that notes a port of ours, before anything is sent from it."""
        return lambda port: ports.append(port.to_bytes(2, "big"))

    def admits(self, packet: memoryview) -> bool:
        """Whether the kernel may see a packet of the hub; what is cut short may not."""
        if len(packet) < 20:
            return False
        if packet[0] == 0x45:  # IPv4 without options
            protocol, at, addresses = packet[9], 20, (bytes(packet[12:16]), bytes(packet[16:20]))
            if int.from_bytes(packet[6:8], "big") & _FRAGMENT:
                return False
        elif packet[0] >> 4 == 6 and len(packet) >= 40:
            protocol, at, addresses = packet[6], 40, (bytes(packet[8:24]), bytes(packet[24:40]))
        else:
            return False
        if addresses not in self._pairs or len(packet) < at + 8:
            return False
        target_port = bytes(packet[at + 2 : at + 4])
        if protocol == _TCP:
            return target_port == self._proxy_port or target_port in self.tcp_ports
        if protocol == _UDP:
            return target_port in self.udp_ports
        is_ipv4 = at == 20
        if protocol == (_ICMP if is_ipv4 else _ICMPV6):
            return packet[at] in (_ICMP_TYPES if is_ipv4 else _ICMPV6_TYPES)
        return False


def _octets(address: str) -> bytes:
    return ipaddress.ip_address(address).packed
