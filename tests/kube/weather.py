"""A cable with weather between two sandboxes: a TUN device at each end, and this process carries the packets.

Every packet, TCP and UDP alike, waits and may be lost or overtaken, as on a real path; the kernel of this machine
offers no netem. Addresses stay what they are: nothing is relayed or translated.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import threading
import time
from dataclasses import dataclass

from tests.kube.sandbox import Sandbox

_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_LARGEST = 65535
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to packets, each way."""

    delay: float = 0.0
    loss: float = 0.0
    late: float = 0.0
    """Share of packets that are held back by up to `jitter` seconds more, so that others overtake them."""
    jitter: float = 0.005


CLEAR = Weather()
# 40 ms round trip, 1 % loss, 1 % reordering, both ways: the lossy link of the acceptance tests.
ROUGH = Weather(delay=0.02, loss=0.01, late=0.01)


def _open_tun(sandbox: Sandbox, name: str, address: str) -> int:
    def make() -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
        return fd

    fd = sandbox.inside(make)
    sandbox.run("ip", "address", "add", address, "dev", name)
    sandbox.run("ip", "link", "set", name, "mtu", "1500", "up")
    return fd


class WeatherCable:
    """Carries packets between two sandboxes until it is closed; `weather` may be changed at any time."""

    def __init__(self, left: Sandbox, right: Sandbox, addresses: tuple[str, str], weather: Weather) -> None:
        self.weather = weather
        self.names = (f"rough-{right.label}"[:15], f"rough-{left.label}"[:15])
        pairs = zip((left, right), self.names, addresses, strict=True)
        self._ends = [_open_tun(sandbox, name, address) for sandbox, name, address in pairs]
        self._chance = random.Random(1)
        self._waker, self._wake = os.pipe()
        self.carried = self.lost = 0
        self._thread = threading.Thread(target=self._carry, name="weather", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Pull it out."""
        os.write(self._wake, b"x")
        self._thread.join()
        for fd in (*self._ends, self._waker, self._wake):
            os.close(fd)

    def _carry(self) -> None:
        left, right = self._ends
        numbers = itertools.count()
        waiting: list[tuple[float, int, int, bytes]] = []
        while True:
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, _, target, packet = heapq.heappop(waiting)
                try:
                    os.write(target, packet)
                    self.carried += 1
                except OSError:
                    self.lost += 1  # the queue of the device is full, as queues may be
            limit = max(0.0, waiting[0][0] - now) if waiting else None
            readable, _, _ = select.select([left, right, self._waker], [], [], limit)
            if self._waker in readable:
                return
            now = time.monotonic()
            for source in readable:
                target = right if source == left else left
                for _ in range(_AT_ONCE):
                    try:
                        packet = os.read(source, _LARGEST)
                    except OSError:
                        break
                    weather = self.weather
                    if self._chance.random() < weather.loss:
                        self.lost += 1
                        continue
                    late = self._chance.random() * weather.jitter if self._chance.random() < weather.late else 0.0
                    heapq.heappush(waiting, (now + weather.delay + late, next(numbers), target, packet))
