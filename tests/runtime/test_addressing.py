"""Which routing table, mark and rules follow from a configuration; B53 and B70 act on it in tests/e2e."""

from __future__ import annotations

import ipaddress

import pytest

from wgpy.config import InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError, DeviceError
from wgpy.keys import PublicKey
from wgpy.runtime import addressing
from wgpy.runtime.addressing import address_link, with_mark
from wgpy.tun.netlink import Rule


def config(*prefixes: str, **more: object) -> InterfaceConfig:
    return InterfaceConfig(peers=[PeerConfig(PublicKey(bytes(32)), allowed_ips=prefixes)], **more)  # type: ignore[arg-type]


class Kernel:
    """Remembers what rtnetlink was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.refuses = ""

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, verb: str) -> object:
        def ask(*arguments: object, **more: object) -> None:
            if verb == self.refuses:
                raise DeviceError(1, f"{verb} refused")
            self.asked.append((verb, *arguments, *more.values()))

        return ask


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(addressing, "Netlink", lambda: made)
    monkeypatch.setattr(addressing, "_SOURCE_VALID_MARK", type("Path", (), {"write_text": lambda self, text: None})())
    return made


def test_only_a_default_route_needs_a_mark() -> None:
    assert with_mark(config("10.0.0.0/8")).fwmark == 0
    assert with_mark(config("0.0.0.0/0")).fwmark == 51820
    assert with_mark(config("::/0")).fwmark == 51820
    assert with_mark(config("::/0", fwmark=7)).fwmark == 7
    assert with_mark(config("0.0.0.0/0", table="off")).fwmark == 0
    assert with_mark(config("0.0.0.0/0", table="42")).fwmark == 0


def test_addresses_then_up_then_routes(kernel: Kernel) -> None:
    with address_link(5, config("10.0.0.0/8", "fd00::/8", addresses=["10.0.0.1/24"])):
        assert kernel.asked == [
            ("add_address", 5, ipaddress.ip_interface("10.0.0.1/24")),
            ("set_link", 5, True),
            ("add_route", 5, ipaddress.ip_network("10.0.0.0/8"), 254),
            ("add_route", 5, ipaddress.ip_network("fd00::/8"), 254),
        ]


def test_b53_a_default_route_has_a_table_of_its_own_and_rules_that_go_at_the_end(kernel: Kernel) -> None:
    rules = [Rule(4, 51820, unless_mark=51820), Rule(4, 254, suppress_prefixlength=0)]
    with address_link(5, with_mark(config("0.0.0.0/0"))):
        assert ("add_route", 5, ipaddress.ip_network("0.0.0.0/0"), 51820) in kernel.asked
        assert [asked[1] for asked in kernel.asked if asked[0] == "add_rule"] == rules
    gone = [asked[1] for asked in kernel.asked if asked[0] == "delete_rule"]
    assert sorted(map(str, gone)) == sorted(map(str, rules))


def test_no_routes_where_the_table_is_off(kernel: Kernel) -> None:
    with address_link(5, config("10.0.0.0/8", table="off")):
        assert [asked[0] for asked in kernel.asked] == ["set_link"]


@pytest.mark.parametrize(("table", "number"), [("main", 254), ("default", 253), ("local", 255), ("1234", 1234)])
def test_tables_by_name_and_by_number(kernel: Kernel, table: str, number: int) -> None:
    with address_link(5, config("10.0.0.0/8", table=table)):
        assert kernel.asked[-1][-1] == number


@pytest.mark.parametrize("table", ["mine", "0", "-1", "4294967296", "\u0661"])
def test_a_table_that_is_none_is_named(kernel: Kernel, table: str) -> None:
    with pytest.raises(ConfigError, match="no such routing table") as raised:
        address_link(5, config(table=table))
    assert raised.value.field == "Table"


def test_what_fails_half_way_takes_its_rules_away_again(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def add_rule(rule: Rule) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise DeviceError(1, "add_rule refused")
        kernel.asked.append(("add_rule", rule))

    kernel.add_rule = add_rule  # type: ignore[method-assign]
    with pytest.raises(DeviceError):
        address_link(5, with_mark(config("0.0.0.0/0")))
    assert [asked[0] for asked in kernel.asked][-2:] == ["add_rule", "delete_rule"]


def test_a_rule_that_cannot_be_removed_is_logged_and_the_rest_goes_on(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    undo = address_link(5, with_mark(config("0.0.0.0/0", "::/0")))
    kernel.refuses = "delete_rule"
    undo.close()
    assert len(caplog.records) == 4
