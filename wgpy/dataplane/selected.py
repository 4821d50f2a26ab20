"""Which of the two row modules works here: numpy's where it is installed. Chosen once, at import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wgpy.dataplane.slab import Arena, Buffer, Slab
    from wgpy.wire.virtio import Offload

__all__ = ["Rows", "rows"]


class Rows(Protocol):
    """What `rows` and `rows_numpy` both offer."""

    def write_counters(self, slabs: Sequence[Slab], first_counter: int) -> None:
        """See `rows.write_counters`."""

    def write_index(self, slabs: Sequence[Slab], receiver_index: int) -> None:
        """See `rows.write_index`."""

    def read_counters(self, slabs: Sequence[Slab]) -> list[int]:
        """See `rows.read_counters`."""
        ...

    def count_same_heads(self, arena: Arena, start: int, stride: int, count: int) -> int:
        """See `rows.count_same_heads`."""
        ...

    def is_one_flow(self, slab: Slab) -> bool:
        """See `rows.is_one_flow`."""
        ...

    def clear_padding(self, slab: Slab, length: int) -> None:
        """See `rows.clear_padding`."""

    def write_payloads(self, slab: Slab, header_length: int, payload: int, octets: Buffer) -> None:
        """See `rows.write_payloads`."""

    def write_segments(
        self,
        slabs: Sequence[Slab],
        offload: Offload,
        sums: Sequence[int],
        last_flags: Sequence[int],
        *,
        counts_ids: bool,
    ) -> None:
        """See `rows.write_segments`."""

    def find_runs(self, slabs: Sequence[Slab], offload: Offload) -> list[list[tuple[int, bool]]]:
        """See `rows.find_runs`."""
        ...


def _select() -> Rows:
    try:
        from wgpy.dataplane import rows_numpy
    except ImportError:
        from wgpy.dataplane import rows as rows_plain

        return rows_plain
    return rows_numpy


rows: Rows = _select()
