"""Longest-prefix match against a linear scan, both families, lengths 0 to full; B24, B66, S10."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.property.strategies import prefixes
from wgpy.config import Prefix
from wgpy.protocol.allowedips import _CACHE_SIZE, AllowedIPs

owners = st.sampled_from("abcd")


def octets_of(version: int, number: int) -> bytes:
    return number.to_bytes(4 if version == 4 else 16)


def addresses_near(prefix: Prefix) -> list[bytes]:
    """The first and the last address of a prefix, and those beside it."""
    bits = 32 if prefix.version == 4 else 128
    size = 1 << (bits - prefix.length)
    numbers = (prefix.network - 1, prefix.network, prefix.network + size - 1, prefix.network + size)
    return [octets_of(prefix.version, number % (1 << bits)) for number in numbers]


class Table(RuleBasedStateMachine):
    """Every verb, against a list that is searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.table: AllowedIPs[str] = AllowedIPs()
        self.model: dict[Prefix, str] = {}

    def expected(self, address: bytes) -> str | None:
        version, number = (4, int.from_bytes(address)) if len(address) == 4 else (6, int.from_bytes(address))
        bits = 8 * len(address)
        holding = [
            prefix
            for prefix in self.model
            if prefix.version == version
            and number >> (bits - prefix.length) == prefix.network >> (bits - prefix.length)
        ]
        return self.model[max(holding, key=lambda prefix: prefix.length)] if holding else None

    @rule(prefix=prefixes, owner=owners)
    def insert(self, prefix: Prefix, owner: str) -> None:
        self.table.insert(prefix, owner)
        if self.model.get(prefix) != owner:
            self.model.pop(prefix, None)
            self.model[prefix] = owner

    @rule(prefix=prefixes, owner=owners)
    def remove(self, prefix: Prefix, owner: str) -> None:
        self.table.remove(prefix, owner)
        if self.model.get(prefix) == owner:
            del self.model[prefix]

    @rule(data=st.data(), owner=owners)
    def remove_one_of_theirs_or_not(self, data: st.DataObject, owner: str) -> None:
        if self.model:
            self.remove(data.draw(st.sampled_from(sorted(self.model))), owner)

    @rule(owner=owners)
    def remove_owner(self, owner: str) -> None:
        self.table.remove_owner(owner)
        self.model = {prefix: other for prefix, other in self.model.items() if other != owner}

    @rule(prefix=prefixes)
    def look_up(self, prefix: Prefix) -> None:
        for address in addresses_near(prefix):
            assert self.table.lookup(address) == self.expected(address)
            assert self.table.lookup(address) == self.expected(address), "from the cache"

    @invariant()
    def holds_the_same(self) -> None:
        assert len(self.table) == len(self.model)
        for owner in "abcd":
            assert list(self.table.of(owner)) == [prefix for prefix, other in self.model.items() if other == owner]
        for prefix in list(self.model)[-4:]:
            for address in addresses_near(prefix):
                assert self.table.lookup(address) == self.expected(address)


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.integers(0, 32), st.integers(0, 128), st.integers(0, 2**128 - 1))
def test_every_length_of_both_families(short: int, long: int, number: int) -> None:
    table: AllowedIPs[str] = AllowedIPs()
    for version, bits, length in ((4, 32, short), (6, 128, long)):
        value = number & ((1 << bits) - 1)
        prefix = Prefix(version, value >> (bits - length) << (bits - length), length)
        table.insert(prefix, f"v{version}")
        assert table.lookup(octets_of(version, value)) == f"v{version}"
        if length:
            outside = value ^ 1 << (bits - length)
            assert table.lookup(octets_of(version, outside)) is None


def test_b66_default_routes_may_belong_to_different_peers() -> None:
    table: AllowedIPs[str] = AllowedIPs()
    table.insert(Prefix.parse("0.0.0.0/0"), "four")
    table.insert(Prefix.parse("::/0"), "six")
    assert (table.lookup(bytes(4)), table.lookup(bytes(16))) == ("four", "six")


def test_the_cache_is_bounded() -> None:
    table: AllowedIPs[str] = AllowedIPs()
    table.insert(Prefix.parse("0.0.0.0/0"), "a")
    for number in range(3 * _CACHE_SIZE):
        assert table.lookup(number.to_bytes(4)) == "a"
    assert len(table._cache) <= _CACHE_SIZE
