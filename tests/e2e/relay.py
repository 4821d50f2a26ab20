"""A UDP relay that loses, delays, repeats and reorders: bad weather where the kernel offers none (no netem).

python -m tests.e2e.relay LISTEN_PORT TARGET_HOST TARGET_PORT '{"loss": 0.01, "delay": 0.02, ...}'

loss        probability that a datagram is lost
repeats     probability that it arrives twice
delay       seconds, each way
late        probability that a datagram is held back, by up to `jitter` seconds more
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import select
import socket
import sys
import time

_AT_ONCE = 256
_BUFFER = 4 * 2**20
# <asm-generic/socket.h>: above net.core.rmem_max, for root. What this relay loses is for its options to say.
_SO_RCVBUFFORCE = 33


def main(port: str, host: str, target_port: str, weather: str) -> None:
    chance, what = random.Random(1), json.loads(weather)
    loss, repeats, delay = what.get("loss", 0), what.get("repeats", 0), what.get("delay", 0)
    late, jitter = what.get("late", 0), what.get("jitter", 0)
    inner, outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    inner.bind(("127.0.0.1", int(port)))
    outer.connect((host, int(target_port)))
    for one in (inner, outer):
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    numbers = itertools.count()
    waiting: list[tuple[float, int, bool, bytes]] = []
    client: tuple[str, int] | None = None
    print("relaying", flush=True)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, is_outward, datagram = heapq.heappop(waiting)
            try:
                if is_outward:
                    outer.send(datagram)
                elif client is not None:
                    inner.sendto(datagram, client)
            except OSError:
                pass
        readable, _, _ = select.select([inner, outer], [], [], max(0, waiting[0][0] - now) if waiting else None)
        now = time.monotonic()
        for one in readable:
            for _ in range(_AT_ONCE):
                try:
                    datagram, address = one.recvfrom(65535)
                except OSError:
                    break
                if one is inner:
                    client = address
                if chance.random() < loss:
                    continue
                for _ in range(2 if chance.random() < repeats else 1):
                    extra = chance.random() * jitter if chance.random() < late else 0
                    heapq.heappush(waiting, (now + delay + extra, next(numbers), one is inner, datagram))


if __name__ == "__main__":
    main(*sys.argv[1:])
