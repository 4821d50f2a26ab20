"""How often something may be tried. Counts in memory, bounded; time is handed in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


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
    """Failed sign-ins: after five in a row for an address or an account, each more doubles the wait, to 15 minutes."""

    FREE, LONGEST = 5, 900.0

    def __init__(self, keys: int = 20_000) -> None:
        """Start with nobody having failed."""
        self._keys = keys
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()  # key -> (in a row, the last at)

    def wait_for(self, key: str, now: float) -> float:
        """Seconds until the key may try again."""
        count, last = self._failed.get(key, (0, 0.0))
        if count < self.FREE:
            return 0.0
        return max(0.0, last + min(self.LONGEST, 2.0 ** (count - self.FREE + 1)) - now)

    def failed(self, key: str, now: float) -> None:
        """Count one."""
        count, last = self._failed.pop(key, (0, 0.0))
        if now - last > self.LONGEST:
            count = 0
        self._failed[key] = (count + 1, now)
        if len(self._failed) > self._keys:
            self._failed.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget."""
        self._failed.pop(key, None)
