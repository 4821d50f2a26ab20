"""Whether one key seems to be used from two places in turn.

An edge that roams leaves a place and does not come back at once; a restarted one has a new boot id and never an old one
again. Two copies of a key push each other out: endpoints and boot ids return. Source: product.md section 8, A57.
"""

from __future__ import annotations

from collections.abc import Sequence

WINDOW = 120.0  # seconds that count
RETURNS = 2  # times that somebody must have come back


def is_cloned(visits: Sequence[tuple[float, str]], now: float) -> bool:
    """Whether the visits (time, place) of the last two minutes return to places that were left, at least twice."""
    left: set[str] = set()
    current: str | None = None
    returns = 0
    for at, place in visits:
        if at < now - WINDOW or place == current:
            continue
        if current is not None:
            left.add(current)
        if place in left:
            returns += 1
        current = place
    return returns >= RETURNS
