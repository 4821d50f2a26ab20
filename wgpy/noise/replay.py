"""Sliding window over the counters received on one keypair.

One Python integer is the bitmap: bit 0 stands for the highest counter accepted, bit n for the one n below. Counters
that grow without a gap, as almost every batch brings them, are taken in one step.

Source: RFC 6479 for the size; WireGuard whitepaper, section 5.4.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wgpy.constants import COUNTER_BITS_TOTAL, COUNTER_WINDOW, REJECT_AFTER_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["ReplayWindow"]

_MASK: Final = (1 << (COUNTER_WINDOW + 1)) - 1


class ReplayWindow:
    """Which counters were seen. Ask only for datagrams whose tag has been verified (trap T26).

    Attributes:
        highest: the highest counter accepted, -1 before the first.
    """

    __slots__ = ("_seen", "highest")

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.highest = -1
        self._seen = 0

    def accept(self, counter: int) -> bool:
        """Whether the counter is new and not too old; if so it is seen from now on."""
        if counter >= REJECT_AFTER_MESSAGES:
            return False
        ahead = counter - self.highest
        if ahead > 0:
            # At most one window is shifted, however far the jump (lesson S3).
            self._seen = (self._seen << min(ahead, COUNTER_BITS_TOTAL) | 1) & _MASK
            self.highest = counter
            return True
        if -ahead > COUNTER_WINDOW:
            return False
        bit = 1 << -ahead
        if self._seen & bit:
            return False
        self._seen |= bit
        return True

    def accept_rows(self, counters: Sequence[int], failed: Collection[int]) -> list[int]:
        """Take the counters of a batch in order of arrival.

        Args:
            counters: one per row.
            failed: rows whose tag is wrong; their counters say nothing and are not looked at.

        Returns:
            The rows that are refused, as replays, as too old or as beyond REJECT_AFTER_MESSAGES.
        """
        count = len(counters)
        if not failed and count > 1:
            first, last = counters[0], counters[-1]
            # Growing by one from row to row: a sum and both ends would not prove it, the comparison does, in C.
            if (
                first > self.highest
                and last - first == count - 1
                and last < REJECT_AFTER_MESSAGES
                and list(counters) == list(range(first, last + 1))
            ):
                ahead = last - self.highest
                self._seen = (self._seen << min(ahead, COUNTER_BITS_TOTAL) | (1 << count) - 1) & _MASK
                self.highest = last
                return []
        return [row for row, counter in enumerate(counters) if row not in failed and not self.accept(counter)]
