"""The INI form: read as `wg-quick` and `wg` read it, written back without loss. B73 (parser) is in tests/fuzz."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.forms import Maker, meaning_of, normal, open_judge
from tests.config.strategies import KEY, OTHER, PRIVATE, configurations
from wgpy.config import InterfaceConfig, PeerConfig, check
from wgpy.errors import ConfigError


@given(configurations)
@settings(max_examples=150)
def test_ini_says_the_same(config: InterfaceConfig) -> None:
    text = config.to_ini()
    assert InterfaceConfig.from_ini(text) == config
    assert InterfaceConfig.from_ini(text).to_ini() == text


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
PostUp = iptables  -A FORWARD -i %i -j ACCEPT # why
; nonsense would be an error

[Peer] # the office
PublicKey = {KEY}
AllowedIPs = 10.0.0.2, 10.1.0.0/16
AllowedIPs = ::/0
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = off
""".replace("; nonsense would be an error\n", "")
    config = InterfaceConfig.from_ini(text)
    assert config.to_ini() == text
    assert config.listen_port == 51820
    assert [str(address) for address in config.addresses] == ["10.0.0.1/24", "fd00::1/64", "10.0.1.1/24"]
    assert (config.dns, config.dns_search) == (("10.0.0.53",), ("home.example",))
    assert config.post_up == ("iptables  -A FORWARD -i %i -j ACCEPT",)
    (peer,) = config.peers
    assert [str(prefix) for prefix in peer.allowed_ips] == ["10.0.0.2/32", "10.1.0.0/16", "::/0"]
    assert peer.persistent_keepalive == 0


VALUES = {
    "ListenPort": [("0", 0), ("65535", 65535), ("domain", 53), ("https", 443), ("0051", 51)],
    "FwMark": [
        ("0", 0), ("off", 0), ("OFF", 0), ("0xca6c", 0xCA6C), ("0xFFFFFFFF", 2**32 - 1), ("4294967295", 2**32 - 1),
    ],
    "MTU": [("68", 68), ("500", 500), ("65535", 65535), ("", None)],
    "Table": [("auto", "auto"), ("off", "off"), ("1234", "1234"), ("", "auto")],
    "SaveConfig": [("true", True), ("True", True), ("FALSE", False)],
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
    ("[Interface]\nMTU = 67", "MTU", 2, 7),
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
    ("[Other]\nA = 1", "", 1, 1),
]


@pytest.mark.parametrize(("text", "field", "line", "column"), BAD)
def test_what_is_wrong_is_named_with_its_place(text: str, field: str, line: int, column: int) -> None:
    with pytest.raises(ConfigError) as raised:
        InterfaceConfig.from_ini(text)
    assert (raised.value.field, raised.value.line, raised.value.column) == (field, line, column)
    assert any((one.line, one.column, one.field) == (line, column, field) for one in check(text) if one.is_error)


def test_a_new_key_behind_one_that_goes_is_kept() -> None:
    config = InterfaceConfig.from_ini("[Interface]\nPostUp = x\n")
    assert dataclasses.replace(config, post_up=[], listen_port=1).to_ini() == "[Interface]\nListenPort = 1\n"


def test_signs_before_a_prefix_change_what_was_said_before() -> None:
    config = InterfaceConfig.from_ini(
        f"[Peer]\nPublicKey={KEY}\nAllowedIPs=10.0.0.0/8,+10.1.0.0/16\nAllowedIPs=-10.0.0.0/8,-10.9.0.0/16\n"
    )
    assert [str(prefix) for prefix in config.peers[0].allowed_ips] == ["10.1.0.0/16"]


def read(octets: bytes) -> InterfaceConfig | None:
    try:
        return InterfaceConfig.from_ini(octets)
    except ConfigError:
        return None


@pytest.mark.needs("root", "tools")
def test_files_are_taken_and_understood_as_by_the_real_tools(tmp_path: Path) -> None:
    """Generated files; WGPY_FORMS=20000 makes more of them than the usual ones."""
    taken = refused = stricter = 0
    with open_judge(tmp_path) as judge:
        for seed in range(int(os.environ.get("WGPY_FORMS", "300"))):
            sample = Maker(seed).make()
            truth = judge.ask(sample.octets)
            ours = read(sample.octets)
            if ours is None:
                assert truth is None or sample.stricter, (seed, sample.octets)
                refused, stricter = refused + 1, stricter + bool(sample.stricter)
                continue
            assert not sample.stricter, (seed, sample.octets)
            assert truth is not None, (seed, sample.octets)
            assert meaning_of(ours) == normal(truth), (seed, sample.octets)
            assert ours.to_ini().encode(errors="surrogateescape") == sample.octets, seed
            taken += 1
    assert min(taken, refused, stricter) > 0


@pytest.mark.needs("root", "tools")
def test_what_is_written_back_says_to_the_real_tools_what_it_shall_say(tmp_path: Path) -> None:
    with open_judge(tmp_path) as judge:
        for seed in range(200):
            before, other = (read(Maker(seed + more).make().octets) for more in (0, 1))
            if before is None or other is None:
                continue
            peers = [*before.peers[1:], *(peer for peer in other.peers if peer.public_key not in
                                          {one.public_key for one in before.peers})]  # fmt: skip
            wanted = dataclasses.replace(
                before, private_key=other.private_key, addresses=other.addresses, dns=other.dns, mtu=other.mtu,
                post_up=other.post_up, listen_port=other.listen_port, peers=peers,
            )  # fmt: skip
            told = judge.ask(wanted.to_ini().encode(errors="surrogateescape"))
            assert told is not None, (seed, wanted.to_ini())
            assert normal(told) == meaning_of(wanted), (seed, wanted.to_ini())


def lines(text: str) -> list[str]:
    return text.split("\n")


OFFICE = f"""\
# caf\udce9 of the house\r
[Interface]\r
PrivateKey = {PRIVATE}\r
Address = 10.0.0.1/24 # four\r
Address = fd00::1/64 # six\r
PreUp = \r
PostUp = one # first\r
PostUp = two\r
\r
# Anna\r
[Peer]\r
PublicKey = {KEY}\r
# at home
\tAllowedIPs\t=\t10.0.0.2/32 # phone\r
AllowedIPs = 10.0.0.3/32 # laptop\r
#Endpoint = 192.0.2.1:1\r
\r
# Berta, on the road\r
\r
[Peer]\r
PublicKey = {OTHER}\r
AllowedIPs = 10.0.0.4/32"""


def changed(**values: object) -> list[str]:
    config = InterfaceConfig.from_ini(OFFICE.encode(errors="surrogateescape"))
    assert config.to_ini() == OFFICE
    return lines(dataclasses.replace(config, **values).to_ini())


def difference(after: list[str]) -> tuple[list[str], list[str]]:
    """Lines that went, and lines that came."""
    before = lines(OFFICE)
    return [line for line in before if line not in after], [line for line in after if line not in before]


def test_a_line_that_goes_leaves_its_comment() -> None:
    after = changed(addresses=["10.0.0.1/24"], post_up=["two"])
    assert difference(after) == (
        ["Address = fd00::1/64 # six\r", "PostUp = one # first\r"],
        ["# six\r", "# first\r"],
    )


def test_a_value_is_added_to_the_last_line_of_a_list_and_the_others_stay() -> None:
    after = changed(addresses=["10.0.0.1/24", "fd00::1/64", "10.9.9.9/8"])
    assert difference(after) == (["Address = fd00::1/64 # six\r"], ["Address = fd00::1/64, 10.9.9.9/8 # six\r"])


def test_a_new_key_has_the_line_ends_of_the_file() -> None:
    assert difference(changed(listen_port=5)) == ([], ["ListenPort = 5\r"])


def test_a_peer_goes_with_its_announcement_and_leaves_that_of_the_next() -> None:
    anna, berta = InterfaceConfig.from_ini(OFFICE).peers
    whole = lines(OFFICE)
    assert changed(peers=[berta]) == [*whole[:9], *whole[17:]]
    assert changed(peers=[anna]) == whole[:16]
    assert changed(peers=[]) == whole[:9]


def test_a_comment_directly_below_a_peer_that_goes_stays() -> None:
    text = f"[Peer]\nPublicKey={KEY}\n# B\n[Peer]\nPublicKey={OTHER}\n"
    config = InterfaceConfig.from_ini(text)
    assert dataclasses.replace(config, peers=config.peers[1:]).to_ini() == f"# B\n[Peer]\nPublicKey={OTHER}\n"


def test_the_head_of_a_file_stays() -> None:
    text = f"# mine\n\n[Peer]\nPublicKey={KEY}\n\n[Interface]\n"
    config = InterfaceConfig.from_ini(text)
    assert dataclasses.replace(config, peers=[]).to_ini() == "# mine\n\n[Interface]\n"


def test_a_peer_behind_a_last_line_without_end() -> None:
    (anna, berta), other = InterfaceConfig.from_ini(OFFICE).peers, PeerConfig(PRIVATE)
    after = changed(peers=[anna, berta, other])
    assert after[: len(lines(OFFICE))] == [*lines(OFFICE)[:-1], lines(OFFICE)[-1] + "\r"]
    assert after[len(lines(OFFICE)) :] == ["\r", "[Peer]\r", f"PublicKey = {PRIVATE}\r", ""]


def test_one_peer_in_two_sections_is_what_wg_makes_of_it() -> None:
    text = (
        f"[Peer]\nPublicKey={KEY}\nAllowedIPs=10.0.0.1\nEndpoint=192.0.2.1:1 # a\nPersistentKeepalive=5\n"
        f"[Peer]\nPublicKey={KEY}\nAllowedIPs=10.0.0.2\nEndpoint=192.0.2.2:2 # b\n"
    )
    config = InterfaceConfig.from_ini(text)
    (peer,) = config.peers
    assert [str(prefix) for prefix in peer.allowed_ips] == ["10.0.0.2/32"]
    assert (str(peer.endpoint), peer.persistent_keepalive) == ("192.0.2.2:2", 5)
    moved = dataclasses.replace(peer, endpoint=None, allowed_ips=["10.0.0.3/32"], persistent_keepalive=0)
    edited = dataclasses.replace(config, peers=[moved]).to_ini()
    assert InterfaceConfig.from_ini(edited).peers == (moved,)
    assert edited == (
        f"[Peer]\nPublicKey={KEY}\nAllowedIPs=10.0.0.1\n# a\n[Peer]\nPublicKey={KEY}\nAllowedIPs=10.0.0.3/32\n# b\n"
    )
    assert dataclasses.replace(config, peers=[]).to_ini().strip() == ""


def test_keys_of_wg_quick_need_a_heading_that_it_knows() -> None:
    """`wg` squeezes white space out of a heading, wg-quick does not."""
    assert InterfaceConfig.from_ini("[ Interface ]\nListenPort = 1\n").listen_port == 1
    with pytest.raises(ConfigError, match="heading"):
        InterfaceConfig.from_ini("[ Interface ]\nAddress = 10.0.0.1/24\n")
    config = dataclasses.replace(InterfaceConfig.from_ini("[ Interface ]\nListenPort = 1\n"), mtu=1400)
    assert config.to_ini() == "[ Interface ]\nListenPort = 1\n\n[Interface]\nMTU = 1400\n"
