"""Whether two edges use one key at the same time.

Each start of an edge has a boot id of its own, which it says inside the tunnel; one that is over never says it again.
Two copies of a key push each other out, and their boot ids return in turn. Places prove nothing: an edge with two
uplinks changes them all the time, and whoever is on the path can forward its packets from where they like without any
key. Source: product.md section 8, A57.
"""

from __future__ import annotations

from collections.abc import Sequence

WINDOW = 120.0  # seconds that count
RETURNS = 2  # times that somebody must have come back


def is_cloned(boots: Sequence[tuple[float, str]], now: float) -> bool:
    """Whether the hellos (time, boot id) of the last two minutes return to boot ids that were left, at least twice."""
    left: set[str] = set()
    current: str | None = None
    returns = 0
    for at, boot in boots:
        if at < now - WINDOW or boot == current:
            continue
        if current is not None:
            left.add(current)
        if boot in left:
            returns += 1
        current = boot
    return returns >= RETURNS
