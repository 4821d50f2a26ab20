"""A flood of initiations with right mac1 from many addresses, a process of its own; prints what it did as JSON.

    python -m tests.e2e.flooder PUBLIC_KEY HOST PORT RATE SECONDS [SOURCES]

It sends from 198.18.0.1 and the following, or 2001:db8:f::1 and the following, which must be its own; as
`ip route add local 198.18.0.0/16 dev lo` and `ip route add local 2001:db8:f::/48 dev lo` make them. What comes back is
counted by message type.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import json
import os
import socket
import struct
import sys
import time

_MESSAGES = 2048
_TICK = 0.002
_IPV6_FREEBIND = 78


def initiations(public_key: str) -> list[bytes]:
    """Messages that pass the first check and fail the second one, which costs a Diffie-Hellman."""
    key = hashlib.blake2s(b"mac1----" + base64.b64decode(public_key)).digest()
    bodies = [b"\1\0\0\0" + os.urandom(112) for _ in range(_MESSAGES)]
    return [body + hashlib.blake2s(body, key=key, digest_size=16).digest() + bytes(16) for body in bodies]


def sources(version: int, count: int) -> list[list[tuple[int, int, bytes]]]:
    """Control data that names each source address."""
    if version == 4:
        first = int(ipaddress.ip_address("198.18.0.1"))
        return [
            [(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, (first + n).to_bytes(4), bytes(4)))] for n in range(count)
        ]
    first = int(ipaddress.ip_address("2001:db8:f::1"))
    # A /64 for each: it is what a site has.
    return [
        [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, (first + (n << 64)).to_bytes(16) + bytes(4))] for n in range(count)
    ]


def drain(one: socket.socket, replies: dict[int, int]) -> None:
    """Count what has come back."""
    with contextlib.suppress(BlockingIOError):
        while True:
            kind = one.recv(64)[0]
            replies[kind] = replies.get(kind, 0) + 1


def flood(public_key: str, host: str, port: int, rate: float, seconds: float, count: int) -> dict[str, object]:
    """Send so many a second, evenly, and count what comes back."""
    version = ipaddress.ip_address(host).version
    messages, ways = initiations(public_key), sources(version, count)
    replies: dict[int, int] = {}
    sent = failed = 0
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        if version == 6:
            # A local route is no address yet, for IPv6.
            one.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < seconds:
            for _ in range(int(rate * passed) - sent - failed):
                try:
                    one.sendmsg([messages[sent % _MESSAGES]], ways[sent % count], 0, (host, port))
                    sent += 1
                except OSError:
                    failed += 1
            drain(one, replies)
            time.sleep(_TICK)
        time.sleep(0.2)
        drain(one, replies)
    return {"sent": sent, "failed": failed, "seconds": seconds, "replies": {str(k): n for k, n in replies.items()}}


if __name__ == "__main__":
    key, host, port, rate, seconds, *more = sys.argv[1:]
    print(json.dumps(flood(key, host, int(port), float(rate), float(seconds), int(more[0]) if more else 500)))
