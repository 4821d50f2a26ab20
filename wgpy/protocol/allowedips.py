"""AllowedIPs: longest-prefix match, one owner per prefix (whitepaper section 2, cryptokey routing).

One hash table per prefix length, asked from the longest length to the shortest, and a small cache of answers in front,
by the address as it stands in the packet. A trie in Python costs one object per bit; real tables use few lengths, so
this is faster and smaller, and every answer can be checked by eye.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wgpy.config import Prefix

__all__ = ["AllowedIPs"]

Owner = TypeVar("Owner")

# A stack that talks to more addresses than this within one table change pays the full lookup again: about a
# microsecond.
_CACHE_SIZE: Final = 4096


class AllowedIPs(Generic[Owner]):
    """Prefixes of both families to their owners."""

    __slots__ = ("_cache", "_of_owner", "_v4", "_v6")

    def __init__(self) -> None:
        """Start empty."""
        # Prefix length to {network bits: owner}, longest length first.
        self._v4: dict[int, dict[int, Owner]] = {}
        self._v6: dict[int, dict[int, Owner]] = {}
        # Prefixes of each owner in order of insertion: `wg show` prints them so.
        self._of_owner: dict[Owner, dict[Prefix, None]] = {}
        self._cache: dict[bytes, Owner | None] = {}

    def insert(self, prefix: Prefix, owner: Owner) -> None:
        """Give the prefix to `owner`, and take it from whoever had it."""
        tables = self._v4 if prefix.version == 4 else self._v6
        table = tables.get(prefix.length)
        if table is None:
            table = tables[prefix.length] = {}
            ordered = sorted(tables.items(), reverse=True)
            tables.clear()
            tables.update(ordered)
        bits = prefix.network >> _host_bits(prefix)
        before = table.get(bits)
        if before is not None and before is not owner:
            del self._of_owner[before][prefix]
        table[bits] = owner
        self._of_owner.setdefault(owner, {})[prefix] = None
        if self._cache:
            self._cache.clear()

    def remove(self, prefix: Prefix, owner: Owner) -> None:
        """Take the prefix from `owner`; nothing happens when it is not theirs."""
        owned = self._of_owner.get(owner)
        if owned is None or prefix not in owned:
            return
        del owned[prefix]
        self._delete(prefix)

    def remove_owner(self, owner: Owner) -> None:
        """Take every prefix from `owner`."""
        for prefix in self._of_owner.pop(owner, ()):
            self._delete(prefix)

    def of(self, owner: Owner) -> Iterable[Prefix]:
        """The prefixes of `owner` in order of insertion."""
        return self._of_owner.get(owner, {}).keys()

    def lookup(self, address: bytes) -> Owner | None:
        """The owner of the longest prefix that holds the address.

        Args:
            address: 4 or 16 octets, as in the packet.
        """
        try:
            return self._cache[address]
        except KeyError:
            pass
        if len(address) == 4:
            tables, width = self._v4, 32
        else:
            tables, width = self._v6, 128
        number = int.from_bytes(address)
        found = None
        for length, table in tables.items():
            found = table.get(number >> (width - length))
            if found is not None:
                break
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        self._cache[address] = found
        return found

    def __len__(self) -> int:
        """How many prefixes are held."""
        return sum(len(table) for tables in (self._v4, self._v6) for table in tables.values())

    def _delete(self, prefix: Prefix) -> None:
        tables = self._v4 if prefix.version == 4 else self._v6
        table = tables[prefix.length]
        del table[prefix.network >> _host_bits(prefix)]
        if not table:
            del tables[prefix.length]
        if self._cache:
            self._cache.clear()


def _host_bits(prefix: Prefix) -> int:
    return (32 if prefix.version == 4 else 128) - prefix.length
