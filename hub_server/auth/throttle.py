"""How often something may be tried. Counts in memory, bounded; time is handed in, of a clock that nobody sets."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address


def source_of(remote: str) -> str:
    """Who counts as one: an IPv4 address, or the /64 of an IPv6 address, which one customer has to himself."""
    try:
        address = ip_address(remote.partition("%")[0])
    except ValueError:
        return remote[:64]
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Network((address, 64), strict=False))
    return str(address)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """A token bucket for each key: `burst` at once, refilled at `rate` a second. Idle keys are forgotten."""

    def __init__(self, *, rate: float, burst: int, keys: int = 20_000) -> None:
        """Take what a key may do."""
        self._rate, self._burst, self._keys = rate, burst, keys
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_for(self, key: str, now: float) -> float:
        """Take one; 0 if there was one, else the seconds until there is."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._burst, now)
            if len(self._buckets) > self._keys:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
            bucket.tokens = min(self._burst, bucket.tokens + max(0.0, now - bucket.at) * self._rate)
            bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) / self._rate


class Failures:
    """Failures of a key: after some in a row, each more doubles the wait until the next try."""

    def __init__(self, *, free: int, longest: float, keys: int = 20_000) -> None:
        """Take how many are free and the longest wait; the least recent of more than `keys` are forgotten."""
        self._free, self._longest, self._keys = free, longest, keys
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()  # key -> (in a row, the last at)

    def wait_for(self, key: str, now: float) -> float:
        """Seconds until the key may try again."""
        count, last = self._failed.get(key, (0, 0.0))
        if count < self._free:
            return 0.0
        return max(0.0, last + min(self._longest, 2.0 ** min(count - self._free + 1, 30)) - now)

    def failed(self, key: str, now: float) -> None:
        """Count one."""
        count, last = self._failed.pop(key, (0, 0.0))
        if now - last > 2 * self._longest:
            count = 0
        self._failed[key] = (count + 1, now)
        if len(self._failed) > self._keys:
            self._failed.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget."""
        self._failed.pop(key, None)
