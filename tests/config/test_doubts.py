"""What `wgpy check` says."""

from __future__ import annotations

import traceback

import pytest

from tests.config.strategies import KEY, OTHER, PRIVATE
from wgpy.config import InterfaceConfig, check
from wgpy.errors import ConfigError
from wgpy.keys import PrivateKey


def test_check_goes_on_where_reading_would_stop() -> None:
    """A file without any heading, a key of a peer in [Interface], one peer twice behind one with a wrong key."""
    assert [one.line for one in check("Key = value")] == [1]
    assert check("")[0].field == "PrivateKey"
    assert [one.field for one in check(f"[Interface]\nPublicKey = {KEY[1:]}\n")] == ["PublicKey"]
    found = check(f"[Peer]\nPublicKey = x\n[Peer]\nPublicKey = {KEY}\n[Peer]\nPublicKey = {KEY}\n")
    assert [(one.line, one.field) for one in found] == [(2, "Peer[1].PublicKey")]


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
    "small mtu": (f"[Interface]\nPrivateKey={PRIVATE}\nMTU=500\n[Peer]\nPublicKey=%s\nAllowedIPs=::/0", "MTU"),
    "name server outside": (
        f"[Interface]\nPrivateKey={PRIVATE}\nDNS=10.0.0.53, 1.1.1.1\n[Peer]\nPublicKey=%s\nAllowedIPs=10.0.0.0/8",
        "DNS",
    ),
    "host bits": (f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nPublicKey=%s\nAllowedIPs=10.0.0.1/8,::/0", "AllowedIPs"),
    "brackets": (
        f"[Interface]\nPrivateKey={PRIVATE}\nListenPort=1\n[Peer]\nPublicKey=%s\nAllowedIPs=::/0\nEndpoint=fd00::1:1",
        "Endpoint",
    ),
    "two sections": (
        f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nPublicKey=%s\n[Peer]\nPublicKey=%s\nAllowedIPs=::/0",
        "PublicKey",
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


def test_wrong_encodings_are_told_once() -> None:
    """A byte order mark and CRLF, as editors on Windows write them; UTF-16, as they also do."""
    text = f"[Interface]\r\nPrivateKey = {PRIVATE}\r\nListenPort=1\r\n[Peer]\r\nPublicKey={KEY}\r\nAllowedIPs=::/0\r\n"
    assert check(text) == []
    (mark,) = check("\ufeff" + text)
    assert (mark.is_error, mark.line, "byte order mark" in mark.message) == (True, 1, True)
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        (wide,) = check(text.encode(encoding))[:1]
        assert (wide.is_error, "UTF-16" in wide.message) == (True, True)
        assert sum(one.is_error for one in check(text.encode(encoding))) == 1
    (carriage,) = [one for one in check(text.replace("\r\n", "\r")) if one.is_error]
    assert "CR" in carriage.message


def test_amnezia_is_called_by_its_name_once() -> None:
    keys = "Jc = 4\nJmin = 40\nS1 = 10\nH1 = 5\n"
    found = check(f"[Interface]\nPrivateKey = {PRIVATE}\n{keys}[Peer]\nPublicKey = {KEY}\nAllowedIPs = ::/0\n")
    assert [(one.is_error, one.line) for one in found] == [(True, 3)]
    assert "AmneziaWG" in found[0].message
    assert "Jc, Jmin, S1, H1" in found[0].message


def test_a_blank_that_is_none_is_named() -> None:
    (found,) = check(
        f"[Interface]\nPrivateKey = {PRIVATE}\nListenPort =\u00a051820\n[Peer]\nPublicKey={KEY}\nAllowedIPs=::/0\n"
    )
    assert (found.line, found.column) == (3, 13)
    assert "NO-BREAK SPACE" in found.message


def test_a_mistyped_key_is_guessed() -> None:
    (found,) = check(f"[Interface]\nPrivateKey = {PRIVATE}\n[Peer]\nPublicKey={KEY}\nAllowedIP=::/0\n")
    assert "is it AllowedIPs?" in found.message


# What people paste, mistype and cut: a key is in each of these, and in no message.
SLIPS = [
    "PrivateKey <key>", "PrivateKey: <key>", "PrivateKey=<key>==", "PrivateKey = <key", "<key>", "key=<key>", "[<key>]",
    "[<key>", "PresharedKey <key>", "ListenPort = <key>", "FwMark = <key>", "Address = <key>", "DNS = :<key>",
    "MTU = <key>", "Table = a <key>", "SaveConfig = <key>", "PrivateKey = '<key>'", "Privatekey\u00a0= <key>",
    "PrivateKey-<key>", "<key> = PrivateKey", "PrivateKey = <key> <key>",
    "[Peer]\nPublicKey = <key>x", "[Peer]\nAllowedIPs = <key>", "[Peer]\nEndpoint = <key>:x",
    "[Peer]\nEndpoint = <key>",
    "[Peer]\nPersistentKeepalive = <key>", "[Peer]\nPresharedKey: <key>", "[Peer]\nAllowedIPs = 10.0.0.0/<key>",
]  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("key", [PRIVATE, bytes(PrivateKey(PRIVATE)).hex(), PRIVATE[:-1], PRIVATE.lower()])
def test_no_message_shows_a_key(slip: str, key: str) -> None:
    text = "[Interface]\n" + slip.replace("<key>", key).replace("<key", key[:-3])
    found = check(text)
    assert any(one.is_error for one in found)
    shown = " ".join(f"{one.field} {one.message}" for one in found).lower()
    pieces = {key.lower()[at : at + 16] for at in range(len(key) - 16)}
    assert not [piece for piece in pieces if piece in shown]
    with pytest.raises(ConfigError) as raised:
        InterfaceConfig.from_ini(text)
    whole = "".join(traceback.format_exception(raised.value)).lower() + repr(raised.value).lower()
    assert not [piece for piece in pieces if piece in whole]
