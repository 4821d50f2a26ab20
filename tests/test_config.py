"""Configurations: values checked once, INI without loss, JSON both ways, by the rules of protocol notes 3.7.

B59 (many prefixes, as far as parsing goes), B66, B73 (config parser in tests/fuzz).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.strategies import numeric_endpoints, ports, prefixes, preshared_keys, private_keys, public_keys
from wgpy.config import Endpoint, InterfaceConfig, PeerConfig, Prefix, check
from wgpy.errors import ConfigError
from wgpy.keys import PrivateKey

KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
OTHER = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

words = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)
names = st.lists(words.map(lambda word: word.strip("-")), min_size=1, max_size=3).map(".".join)
endpoints = numeric_endpoints | st.builds(Endpoint, names, ports)
commands = st.text("abc #;|&%i='\"$", min_size=1, max_size=20).map(str.strip).filter(bool)
interfaces = st.integers(0, 32).flatmap(
    lambda length: st.integers(0, 2**32 - 1).map(lambda n: ipaddress.IPv4Interface((n, length)))
) | st.integers(0, 128).flatmap(
    lambda length: st.integers(0, 2**128 - 1).map(lambda n: ipaddress.IPv6Interface((n, length)))
)
servers = st.ip_addresses().map(str)

peers = st.builds(
    PeerConfig,
    public_keys,
    allowed_ips=st.lists(prefixes, max_size=3),
    endpoint=st.none() | endpoints,
    preshared_key=st.none() | preshared_keys,
    persistent_keepalive=st.integers(0, 65535),
)
configurations = st.builds(
    InterfaceConfig,
    st.none() | private_keys,
    listen_port=st.integers(0, 65535),
    fwmark=st.integers(0, 2**32 - 1),
    peers=st.lists(peers, max_size=3, unique_by=lambda peer: peer.public_key),
    addresses=st.lists(interfaces, max_size=2),
    dns=st.lists(servers, max_size=2),
    dns_search=st.lists(names, max_size=2),
    mtu=st.none() | st.integers(576, 65535),
    table=st.sampled_from(["auto", "off", "main", "51820"]),
    pre_up=st.lists(commands, max_size=1),
    post_up=st.lists(commands, max_size=2),
    pre_down=st.lists(commands, max_size=1),
    post_down=st.lists(commands, max_size=1),
    save_config=st.booleans(),
)


@given(configurations)
@settings(max_examples=150)
def test_ini_says_the_same(config: InterfaceConfig) -> None:
    text = config.to_ini()
    assert InterfaceConfig.from_ini(text) == config
    assert InterfaceConfig.from_ini(text).to_ini() == text


@given(configurations)
def test_json_says_the_same(config: InterfaceConfig) -> None:
    text = config.to_json()
    assert InterfaceConfig.from_json(text) == config
    assert InterfaceConfig.from_json(text).to_json() == text


@given(configurations, configurations, st.lists(st.sampled_from(["# note", "", "   # why "]), max_size=4), st.data())
@settings(max_examples=100)
def test_an_edited_file_says_what_it_should_and_keeps_its_comments(
    before: InterfaceConfig, after: InterfaceConfig, notes: list[str], data: st.DataObject
) -> None:
    """Peers of both, in the order of the file, and new ones behind them; comments of what stays stay."""
    lines = before.to_ini().splitlines()
    first_peer = lines.index("[Peer]") if "[Peer]" in lines else len(lines)
    for note in notes:
        lines.insert(data.draw(st.integers(1, max(1, first_peer - 1))), note)
    read = InterfaceConfig.from_ini("\n".join(lines) + "\n")
    assert read == before
    kept = [peer for peer in before.peers if data.draw(st.booleans())]
    wanted = dataclasses.replace(
        read,
        private_key=after.private_key,
        listen_port=after.listen_port,
        addresses=after.addresses,
        post_up=after.post_up,
        dns=after.dns,
        peers=[*kept, *(peer for peer in after.peers if peer.public_key not in {one.public_key for one in kept})],
    )
    edited = wanted.to_ini()
    assert in_order(InterfaceConfig.from_ini(edited)) == in_order(wanted)
    found = [line.strip() for line in edited.splitlines() if line.strip().startswith("#")]
    assert sorted(found) == sorted(note.strip() for note in notes if "#" in note)


def in_order(config: InterfaceConfig) -> InterfaceConfig:
    """Peers keep their places in the file, whatever order they are given in."""
    return dataclasses.replace(config, peers=sorted(config.peers, key=lambda peer: bytes(peer.public_key)))


def test_a_file_comes_back_octet_by_octet() -> None:
    text = f"""
    # the house
[interface]
PRIVATEKEY = {PRIVATE}   # never show this
 listenport=51820
Address = 10.0.0.1/24 , fd00::1/64
Address = 10.0.1.1/24
DNS = 10.0.0.53, home.example
PostUp = iptables -A FORWARD -i %i -j ACCEPT # kept
; nonsense would be an error

[Peer] # the office
PublicKey = {KEY}
AllowedIPs = 10.0.0.2, 10.1.0.0/16,
AllowedIPs = ::/0
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = off
""".replace("; nonsense would be an error\n", "")
    config = InterfaceConfig.from_ini(text)
    assert config.to_ini() == text
    assert config.listen_port == 51820
    assert [str(address) for address in config.addresses] == ["10.0.0.1/24", "fd00::1/64", "10.0.1.1/24"]
    assert (config.dns, config.dns_search) == (("10.0.0.53",), ("home.example",))
    assert config.post_up == ("iptables -A FORWARD -i %i -j ACCEPT # kept",)
    (peer,) = config.peers
    assert [str(prefix) for prefix in peer.allowed_ips] == ["10.0.0.2/32", "10.1.0.0/16", "::/0"]
    assert peer.persistent_keepalive == 0


VALUES = {
    "ListenPort": [("0", 0), ("65535", 65535), ("domain", 53), ("https", 443), ("0051", 51)],
    "FwMark": [
        ("0", 0), ("off", 0), ("OFF", 0), ("0xca6c", 0xCA6C), ("0XFFFFFFFF", 2**32 - 1), ("4294967295", 2**32 - 1),
    ],
    "MTU": [("576", 576), ("65535", 65535)],
    "Table": [("auto", "auto"), ("off", "off"), ("1234", "1234")],
    "SaveConfig": [("true", True), ("false", False)],
}  # fmt: skip
ATTRIBUTES = {
    "ListenPort": "listen_port", "FwMark": "fwmark", "MTU": "mtu", "Table": "table", "SaveConfig": "save_config",
}  # fmt: skip


@pytest.mark.parametrize(("key", "text", "value"), [(k, t, v) for k, pairs in VALUES.items() for t, v in pairs])
def test_a_value_of_the_interface_is(key: str, text: str, value: object) -> None:
    config = InterfaceConfig.from_ini(f"[Interface]\n{key.upper()} = {text}\n")
    assert getattr(config, ATTRIBUTES[key]) == value


BAD = [
    ("[Interface]\nListenPort = 65536", "ListenPort", 2, 14),
    ("[Interface]\nListenPort = -1", "ListenPort", 2, 14),
    ("[Interface]\nListenPort = \u0661", "ListenPort", 2, 14),
    ("[Interface]\nListenPort =", "ListenPort", 2, 13),
    ("[Interface]\nFwMark = 0x1ffffffff", "FwMark", 2, 10),
    ("[Interface]\nFwMark = 0x", "FwMark", 2, 10),
    ("[Interface]\nMTU = 575", "MTU", 2, 7),
    ("[Interface]\nSaveConfig = yes", "SaveConfig", 2, 14),
    ("[Interface]\nAddress = 10.0.0.1/255.0.0.0", "Address", 2, 11),
    ("[Interface]\nAddress = here", "Address", 2, 11),
    (f"[Interface]\nPrivateKey = {PRIVATE[:-2]}=", "PrivateKey", 2, 14),
    ("[Interface]\nPublicKey = x", "PublicKey", 2, 13),
    ("[Interface]\nNovel = x", "Novel", 2, 9),
    ("[Peer]\nAllowedIPs = 10.0.0.0/8", "Peer[1]", 1, 1),
    (f"[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.0.0.0/33", "Peer[1].AllowedIPs", 3, 14),
    (f"[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.0.0.0/8/8", "Peer[1].AllowedIPs", 3, 14),
    (f"[Peer]\nPublicKey = {KEY}\nEndpoint = a", "Peer[1].Endpoint", 3, 12),
    (f"[Peer]\nPublicKey = {KEY}\nEndpoint = a:0", "Peer[1].Endpoint", 3, 12),
    (f"[Peer]\nPublicKey = {KEY}\nPersistentKeepalive = 65536", "Peer[1].PersistentKeepalive", 3, 23),
    (f"[Peer]\nPublicKey = {KEY}\nDNS = 1.1.1.1", "Peer[1].DNS", 3, 7),
    (f"[Peer]\nPublicKey = {KEY}\n[Peer]\nPublicKey = {KEY}", "PublicKey", 3, 1),
    ("[Other]\nA = 1", "", 1, 1),
]


@pytest.mark.parametrize(("text", "field", "line", "column"), BAD)
def test_what_is_wrong_is_named_with_its_place(text: str, field: str, line: int, column: int) -> None:
    with pytest.raises(ConfigError) as raised:
        InterfaceConfig.from_ini(text)
    assert (raised.value.field, raised.value.line, raised.value.column) == (field, line, column)
    assert any((one.line, one.column, one.field) == (line, column, field) for one in check(text) if one.is_error)


def test_check_goes_on_where_reading_would_stop() -> None:
    """A file without any heading, a key of a peer in [Interface], a second peer behind one with a wrong key."""
    assert [one.line for one in check("Key = value")] == [1]
    assert check("")[0].field == "PrivateKey"
    assert [one.field for one in check(f"[Interface]\nPublicKey = {KEY[1:]}\n")] == ["PublicKey"]
    found = check(f"[Peer]\nPublicKey = x\n[Peer]\nPublicKey = {KEY}\n[Peer]\nPublicKey = {KEY}\n")
    assert [(one.line, one.field) for one in found] == [(2, "Peer[1].PublicKey"), (5, "PublicKey")]


def test_a_new_key_behind_one_that_goes_is_kept() -> None:
    config = InterfaceConfig.from_ini("[Interface]\nPostUp = x\n")
    assert dataclasses.replace(config, post_up=[], listen_port=1).to_ini() == "[Interface]\nListenPort = 1\n"


def test_signs_before_a_prefix_change_what_was_said_before() -> None:
    config = InterfaceConfig.from_ini(
        f"[Peer]\nPublicKey={KEY}\nAllowedIPs=10.0.0.0/8,+10.1.0.0/16\nAllowedIPs=-10.0.0.0/8,-10.9.0.0/16\n"
    )
    assert [str(prefix) for prefix in config.peers[0].allowed_ips] == ["10.1.0.0/16"]


def test_b59_a_file_of_many_prefixes_is_read() -> None:
    prefixes_ = [f"{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}.0/24" for n in range(130_560)]
    lines = "".join(f"AllowedIPs = {','.join(prefixes_[n : n + 64])}\n" for n in range(0, len(prefixes_), 64))
    (peer,) = InterfaceConfig.from_ini(f"[Peer]\nPublicKey = {KEY}\n{lines}").peers
    assert list(map(str, peer.allowed_ips)) == prefixes_


@given(prefixes, prefixes)
def test_prefixes_agree_with_the_standard_library(one: Prefix, other: Prefix) -> None:
    here, there = ipaddress.ip_network(str(one)), ipaddress.ip_network(str(other))
    assert Prefix.parse(str(here)) == one
    assert one.holds(other) == (here.version == there.version and there.subnet_of(here))


@given(interfaces)
def test_b66_host_bits_are_cleared(address: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> None:
    assert str(Prefix.parse(str(address))) == str(address.network)
    alone = Prefix.parse(str(address.ip))
    assert alone.length == address.max_prefixlen
    with pytest.raises(ConfigError):
        Prefix.parse(str(address.ip), needs_length=True)


@given(endpoints)
def test_an_endpoint_is_read_as_it_is_written(endpoint: Endpoint) -> None:
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert hash(Endpoint.parse(str(endpoint))) == hash(endpoint)
    assert endpoint.is_name == (endpoint.packed == b"")
    if not endpoint.is_name:
        assert endpoint.packed[-2:] == endpoint.port.to_bytes(2)
        assert endpoint.packed[:-2] == ipaddress.ip_address(endpoint.host).packed


def test_an_ipv4_mapped_endpoint_becomes_ipv4_and_such_a_prefix_stays() -> None:
    """Protocol notes 1.10."""
    assert str(Endpoint.parse("[::ffff:192.0.2.1]:5")) == "192.0.2.1:5"
    assert Prefix.parse("::ffff:192.0.2.1/128").version == 6


def test_an_endpoint_cannot_be_changed() -> None:
    endpoint = Endpoint("192.0.2.1", 1)
    with pytest.raises(AttributeError):
        endpoint.port = 2


@pytest.mark.parametrize(
    "text",
    ["a", "a:", ":1", "[a]:1", "::1:1", "[::1]1", "1.2.3:1", "1.2.3.4.5:1", "a b:1", "a:1 ", "a:x", "192.0.2.1%eth0:1"],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Endpoint.parse(text)


BAD_JSON = [
    ("[]", ""),
    ("{", ""),
    ('{"listen_port": "1"}', "listen_port"),
    ('{"listen_port": true}', "listen_port"),
    ('{"listen_port": 65536}', "ListenPort"),
    ('{"novel": 1}', "novel"),
    ('{"peers": {}}', "peers"),
    ('{"peers": [{}]}', "peers[1]"),
    ('{"peers": [1]}', "peers[1]"),
    ('{"dns": "1.1.1.1"}', "dns"),
    ('{"dns": ["x"]}', "DNS"),
    (f'{{"peers": [{{"public_key": "{KEY}", "allowed_ips": ["x"]}}]}}', "peers[1].AllowedIPs"),
]


@pytest.mark.parametrize(("text", "field"), BAD_JSON)
def test_json_that_is_wrong_is_named_with_its_place(text: str, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        InterfaceConfig.from_json(text)
    assert raised.value.field == field


def test_every_field_is_in_the_json() -> None:
    document = json.loads(InterfaceConfig(PRIVATE, peers=[PeerConfig(KEY)]).to_json())
    fields = {field.name for field in dataclasses.fields(InterfaceConfig)} - {"_document"}
    assert set(document) == fields
    assert set(document["peers"][0]) == {field.name for field in dataclasses.fields(PeerConfig)}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda: PeerConfig(KEY, persistent_keepalive=65536), "PersistentKeepalive"),
        (lambda: PeerConfig(KEY, persistent_keepalive=True), "PersistentKeepalive"),
        (lambda: PeerConfig(KEY, allowed_ips="10.0.0.0/8"), "AllowedIPs"),
        (lambda: InterfaceConfig(fwmark=-1), "FwMark"),
        (lambda: InterfaceConfig(mtu=10), "MTU"),
        (lambda: InterfaceConfig(peers=[PeerConfig(KEY), PeerConfig(KEY)]), "Peer[2].PublicKey"),
        (lambda: InterfaceConfig(dns=["name"]), "DNS"),
        (lambda: Endpoint("a", 65536), "Endpoint"),
        (lambda: Endpoint("fe80::1%", 1), "Endpoint"),
    ],
)
def test_a_value_is_checked_when_it_is_made(wrong: object, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        wrong()  # type: ignore[operator]
    assert raised.value.field == field


OURSELVES = PrivateKey(PRIVATE).public_key
DOUBTS = {
    "private key": ("[Interface]\n[Peer]\nPublicKey=%s\nAllowedIPs=::/0", "PrivateKey"),
    "nobody": (f"[Interface]\nPrivateKey={PRIVATE}", "Peer"),
    "mtu": (f"[Interface]\nPrivateKey={PRIVATE}\nMTU=1500\n[Peer]\nPublicKey=%s\nAllowedIPs=::/0", "MTU"),
    "mtu of IPv6": (
        f"[Interface]\nPrivateKey={PRIVATE}\nMTU=1000\nAddress=fd00::1/64\n[Peer]\nPublicKey=%s\nAllowedIPs=::/0",
        "MTU",
    ),
    "ourselves": (f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nPublicKey={OURSELVES}\nAllowedIPs=::/0", "PublicKey"),
    "no prefixes": (f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nPublicKey=%s", "AllowedIPs"),
    "nat": (
        f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nPublicKey=%s\nAllowedIPs=::/0\nEndpoint=192.0.2.1:1",
        "PersistentKeepalive",
    ),
    "same prefix": (
        f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nPublicKey=%s\nAllowedIPs=10.0.0.0/8\n"
        f"[Peer]\nPublicKey={OTHER}\nAllowedIPs=10.0.0.0/8",
        "AllowedIPs",
    ),
    "overlap": (
        f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nPublicKey=%s\nAllowedIPs=10.0.0.0/8\n"
        f"[Peer]\nPublicKey={OTHER}\nAllowedIPs=10.1.0.0/16",
        "AllowedIPs",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "field"), DOUBTS.values(), ids=DOUBTS)
def test_check_doubts(text: str, field: str) -> None:
    found = check(text.replace("%s", KEY))
    assert [(one.is_error, one.field) for one in found] == [(False, field)]


def test_check_finds_everything_at_once_in_order() -> None:
    found = check(f"[Interface]\nListenPort = x\nnonsense\n[Peer]\nPublicKey = {KEY}\nEndpoint = x\n[What]\n")
    assert [(one.line, one.is_error) for one in found] == [(2, True), (3, True), (6, True), (7, True)]


def test_check_has_nothing_to_say_about_a_good_file() -> None:
    assert check(f"[Interface]\nPrivateKey={PRIVATE}\nListenPort=1\n[Peer]\nPublicKey={KEY}\nAllowedIPs=::/0\n") == []
