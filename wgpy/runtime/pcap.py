"""The packets inside a tunnel, into a file for Wireshark and tcpdump: classic pcap, nanoseconds, raw IP.

Source: draft-ietf-opsawg-pcap; LINKTYPE_RAW of tcpdump.org/linktypes.html.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, Final

from wgpy.runtime import world

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wgpy.dataplane.slab import Slab

__all__ = ["PcapWriter"]

_MAGIC_NANOSECONDS: Final = 0xA1B23C4D
_LINKTYPE_RAW: Final = 101
_WHOLE: Final = 262144
_HEADER: Final = struct.Struct("<IHHiIII")
_RECORD: Final = struct.Struct("<IIII")


class PcapWriter:
    """Writes slabs as they come and go."""

    def __init__(self, file: BinaryIO, *, snaplen: int | None = None) -> None:
        """Begin the file.

        Args:
            file: open for writing; left open.
            snaplen: octets kept of each packet, None for all.
        """
        self._file = file
        self._snaplen = snaplen or _WHOLE
        file.write(_HEADER.pack(_MAGIC_NANOSECONDS, 2, 4, 0, 0, self._snaplen, _LINKTYPE_RAW))

    def write(self, slabs: Sequence[Slab]) -> None:
        """Write every packet of the slabs, without padding."""
        seconds, fraction = divmod(world.wall_clock(), 1)
        nanoseconds = int(fraction * 1e9)
        for slab in slabs:
            for row in slab:
                length = _true_length(row)
                kept = min(length, self._snaplen)
                self._file.write(_RECORD.pack(int(seconds), nanoseconds, kept, length))
                self._file.write(row[:kept])


def _true_length(row: memoryview) -> int:
    return row[2] << 8 | row[3] if row[0] >> 4 == 4 else (row[4] << 8 | row[5]) + 40
