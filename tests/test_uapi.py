"""The control protocol against a generator of valid and invalid requests, and its answers; protocol notes 3.2 to 3.5.

B34 (what the parser can show of it), B64, B66, R12, R13.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.strategies import numeric_endpoints, prefixes, preshared_keys, private_keys, public_keys
from wgpy.config import Endpoint, Prefix
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.uapi import (
    MAX_LINE,
    MAX_REQUEST,
    BadRequest,
    DeviceState,
    DeviceUpdate,
    GetRequest,
    PeerState,
    PeerUpdate,
    Request,
    RequestReader,
    format_errno,
    format_state,
    parse_state,
)

KEY = "c49b7b3f" * 8


def read(octets: bytes) -> list[Request]:
    return RequestReader().feed(octets)


def one(text: str) -> Request:
    (request,) = read(text.encode())
    return request


# --- valid requests, generated with what they mean -------------------------------------------------------------------


@dataclass
class Line:
    """One line, and what it does to the update that is expected."""

    text: str
    changes: dict[str, object]


def lines(strategy: st.SearchStrategy[object], form: str, field: str) -> st.SearchStrategy[Line]:
    return strategy.map(lambda value: Line(form.format(value), {field: value}))


def hexadecimal(key: object) -> str:
    return bytes(key).hex()  # type: ignore[call-overload]


device_lines = st.one_of(
    private_keys.map(lambda key: Line(f"private_key={hexadecimal(key)}", {"private_key": key})),
    st.just(Line("private_key=" + "0" * 64, {"private_key": None, "clear_private_key": True})),
    lines(st.integers(0, 65535), "listen_port={}", "listen_port"),
    lines(st.integers(0, 2**32 - 1), "fwmark={}", "fwmark"),
    st.just(Line("replace_peers=true", {"replace_peers": True})),
)
peer_lines = st.one_of(
    st.just(Line("update_only=true", {"update_only": True})),
    st.just(Line("remove=true", {"remove": True})),
    st.just(Line("replace_allowed_ips=true", {"replace_allowed_ips": True})),
    st.just(Line("protocol_version=1", {})),
    preshared_keys.map(lambda key: Line(f"preshared_key={hexadecimal(key)}", {"preshared_key": key})),
    lines(numeric_endpoints, "endpoint={}", "endpoint"),
    lines(st.integers(0, 65535), "persistent_keepalive_interval={}", "persistent_keepalive"),
    prefixes.map(lambda prefix: Line(f"allowed_ip={prefix}", {"allowed_ips": (True, prefix)})),
    prefixes.map(lambda prefix: Line(f"allowed_ip=-{prefix}", {"allowed_ips": (False, prefix)})),
)


@st.composite
def set_requests(draw: st.DrawFn) -> tuple[list[str], DeviceUpdate]:
    """The lines of a request, and the update that they say; what is said twice counts as it was said last."""
    text, device = ["set=1"], DeviceUpdate()
    for line in draw(st.lists(device_lines, max_size=4)):
        text.append(line.text)
        if "private_key" in line.changes:
            device = replace(device, clear_private_key=False)
        device = replace(device, **line.changes)
    peers = []
    for key in draw(st.lists(public_keys, max_size=3)):
        text.append(f"public_key={hexadecimal(key)}")
        peer = PeerUpdate(key, allowed_ips=[])
        for line in draw(st.lists(peer_lines, max_size=6)):
            text.append(line.text)
            changes = dict(line.changes)
            if "allowed_ips" in changes:
                changes["allowed_ips"] = [*peer.allowed_ips, changes["allowed_ips"]]
            peer = replace(peer, **changes)
        peers.append(peer)
    return text, replace(device, peers=peers)


@given(set_requests())
@settings(max_examples=150)
def test_a_valid_request_says_what_its_lines_say(generated: tuple[list[str], DeviceUpdate]) -> None:
    text, update = generated
    assert one("\n".join(text) + "\n\n") == update


@given(st.lists(set_requests() | st.just((["get=1"], GetRequest())), min_size=1, max_size=4), st.data())
def test_requests_may_be_cut_anywhere_and_sent_ahead(
    generated: list[tuple[list[str], Request]], data: st.DataObject
) -> None:
    """Pipelined requests are all answered, in order."""
    octets = "".join("\n".join(text) + "\n\n" for text, _ in generated).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
    reader, found = RequestReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        found += reader.feed(octets[start:end])
    assert found == [request for _, request in generated]
    assert reader.is_idle


# --- invalid ones: one wrong line anywhere, and nothing of the request counts ----------------------------------------

BAD_NUMBERS = ["", " 1", "1 ", "+1", "-1", "1_0", "0x1", "1.0", "\u0661", "1" * 21, "65536", "1\r", "\x001"]
BAD_KEYS = ["", "0", KEY[:-1], KEY + "0", KEY[:-2] + "0g", " " + KEY[1:], KEY[:30] + "  " + KEY[32:], "0x" + KEY[2:]]
BAD_PREFIXES = [
    "", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/ 8", "10.0.0.0/+8", "10.0.0.0/255.0.0.0",
    "10.0.0.0/0.0.0.255", "10.0.0/8", "10.0.0.0/8/8", "::/129", "::/", "fe80::1%eth0/64", "+10.0.0.0/8",
    "--10.0.0.0/8", "host/8", "010.0.0.1/8", "10.0.0.0/0008", "10.0.0.0/\u0661",
]  # fmt: skip
BAD_ENDPOINTS = [
    "", "192.0.2.1", "192.0.2.1:", ":51820", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:+1", "192.0.2.1: 1",
    "vpn.example.org:51820", "2001:db8::1:51820", "[2001:db8::1]", "[192.0.2.1]:1", "[::1:1", "192.0.2.1:1 ",
]  # fmt: skip
BAD_DEVICE = [
    *(f"listen_port={value}" for value in BAD_NUMBERS),
    *(f"fwmark={value}" for value in [*BAD_NUMBERS[:-4], "4294967296"]),
    *(f"private_key={value}" for value in BAD_KEYS),
    *(f"replace_peers={value}" for value in ("", "false", "True", "1", "true ")),
    "endpoint=192.0.2.1:1", "allowed_ip=10.0.0.0/8", "unknown=1", "LISTEN_PORT=1", " listen_port=1", "=1", "=",
]  # fmt: skip
BAD_PEER = [
    *(f"public_key={value}" for value in BAD_KEYS),
    *(f"preshared_key={value}" for value in BAD_KEYS),
    *(f"persistent_keepalive_interval={value}" for value in [*BAD_NUMBERS, "off"]),
    *(f"allowed_ip={value}" for value in BAD_PREFIXES),
    *(f"endpoint={value}" for value in BAD_ENDPOINTS),
    *(f"{key}={value}" for key in ("update_only", "remove", "replace_allowed_ips") for value in ("", "false", "1")),
    *(f"protocol_version={value}" for value in ("", "0", "2", "1 ", "01")),
    "listen_port=1", "fwmark=0", "private_key=" + KEY, "replace_peers=true", "unknown=1",
]  # fmt: skip


def refused(octets: bytes, number: int, *, is_set: bool = True) -> None:
    """The request is refused, and the connection goes on with the next one."""
    bad, after = read(octets + b"get=1\n\n")
    assert isinstance(bad, BadRequest)
    assert (bad.errno, bad.is_set, bad.closes, bad.is_silent) == (number, is_set, False, False)
    assert after == GetRequest()


@pytest.mark.parametrize("line", BAD_DEVICE)
def test_a_wrong_device_line_is_einval(line: str) -> None:
    refused(f"set=1\nlisten_port=5\n{line}\nfwmark=3\n\n".encode(), errno.EINVAL)


@pytest.mark.parametrize("line", BAD_PEER)
def test_a_wrong_peer_line_is_einval(line: str) -> None:
    refused(f"set=1\npublic_key={KEY}\n{line}\nupdate_only=true\n\n".encode(), errno.EINVAL)


@pytest.mark.parametrize("line", ["nonsense", "listen_port", "set", "get", "[Peer]"])
def test_a_line_without_equals_is_eproto(line: str) -> None:
    refused(f"set=1\n{line}\n\n".encode(), errno.EPROTO)


@given(set_requests(), st.sampled_from([*BAD_PEER[-5:-1], "nonsense", "x=1"]), st.data())
def test_b34_one_wrong_line_in_any_place_and_nothing_counts(
    generated: tuple[list[str], DeviceUpdate], line: str, data: st.DataObject
) -> None:
    """Atomicity: there is no update at all."""
    text, _ = generated
    at = data.draw(st.integers(1, len(text)))
    is_peer = any(earlier.startswith("public_key=") for earlier in text[1:at])
    if line in BAD_PEER and not is_peer:
        return
    (bad,) = read("\n".join([*text[:at], line, *text[at:]]).encode() + b"\n\n")
    assert isinstance(bad, BadRequest)
    assert bad.errno == (errno.EPROTO if line == "nonsense" else errno.EINVAL)


def test_a_name_as_endpoint_or_a_zone_that_is_none() -> None:
    refused(f"set=1\npublic_key={KEY}\nendpoint=localhost:1\n\n".encode(), errno.EINVAL)
    update = one(f"set=1\npublic_key={KEY}\nendpoint=[fe80::1%eth0]:1\n\n")
    assert isinstance(update, DeviceUpdate)
    assert str(update.peers[0].endpoint) == "[fe80::1%eth0]:1"


def test_b66_host_bits_are_cleared_silently() -> None:
    update = one(f"set=1\npublic_key={KEY}\nallowed_ip=192.0.2.77/24\nallowed_ip=2001:db8::1/32\n\n")
    assert isinstance(update, DeviceUpdate)
    assert [str(prefix) for _, prefix in update.peers[0].allowed_ips] == ["192.0.2.0/24", "2001:db8::/32"]


def test_b64_a_private_key_is_clamped_when_it_is_read() -> None:
    update = one("set=1\nprivate_key=" + "ff" * 32 + "\n\n")
    assert isinstance(update, DeviceUpdate)
    assert bytes(update.private_key or b"") == b"\xf8" + b"\xff" * 30 + b"\x7f"


# --- limits and ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", b"get=0\n", b"set=2\n", b"GET=1\n", b" get=1\n", b"get=1\r\n", b"\n"])
def test_an_unknown_first_line_closes_without_an_answer(first: bytes) -> None:
    reader = RequestReader()
    requests = reader.feed(first or b"hello\n")
    assert requests == [BadRequest(errno.EINVAL, False, requests[0].reason, closes=True, is_silent=True)]
    assert reader.feed(b"get=1\n\n") == [], "nothing is read after it"


@pytest.mark.parametrize("octets", [b"get=1\nx", b"get=1\nlisten_port=1\n\n", b"get=1\n \n"])
def test_after_get_the_next_octet_must_end_it(octets: bytes) -> None:
    (bad,) = read(octets)
    assert isinstance(bad, BadRequest)
    assert (bad.errno, bad.is_set, bad.closes, bad.is_silent) == (errno.EINVAL, False, True, False)


def test_b34_a_line_may_have_65536_octets_and_no_more() -> None:
    def line(length: int) -> bytes:
        return b"set=1\n" + b"x" * (length - 2) + b"=1\n\n"

    refused(line(MAX_LINE), errno.EINVAL)
    for octets in (line(MAX_LINE + 1), b"set=1\n" + b"x" * (MAX_LINE + 1)):
        (bad,) = read(octets)
        assert isinstance(bad, BadRequest)
        assert (bad.errno, bad.is_set, bad.closes) == (errno.EIO, True, True)


def test_a_request_may_have_64_mib_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_REQUEST == 64 * 2**20
    monkeypatch.setattr("wgpy.uapi.MAX_REQUEST", 5000)
    body = f"public_key={KEY}\n" + "allowed_ip=10.0.0.0/8\n" * 300
    (bad,) = read(b"set=1\n" + body.encode())
    assert isinstance(bad, BadRequest)
    assert (bad.errno, bad.closes) == (errno.EIO, True)


def test_half_a_request_is_none() -> None:
    """End of file before the empty line: nothing is applied, no answer is due."""
    reader = RequestReader()
    assert reader.feed(b"set=1\nlisten_port=1\n") == []
    assert not reader.is_idle


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"set=1\n", b"get=1\n", b"\n", b"=", b"allowed_ip="])))
@settings(max_examples=200)
def test_b73_any_octets_give_requests_and_no_exception(pieces: list[bytes]) -> None:
    reader = RequestReader()
    for piece in pieces:
        for request in reader.feed(piece):
            assert isinstance(request, GetRequest | DeviceUpdate | BadRequest)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_the_sign_of_errno_depends_on_the_question() -> None:
    """Protocol notes 3.5: `wg` negates what it reads after a set, and takes digits only after a get."""
    assert format_errno(22, is_set=True) == b"errno=-22\n\n"
    assert format_errno(22, is_set=False) == b"errno=22\n\n"
    assert format_errno(0, is_set=True) == format_errno(0, is_set=False) == b"errno=0\n\n"


def test_the_lines_of_get_in_their_order() -> None:
    key, psk = PrivateKey(b"\x11" * 32), PresharedKey(b"\x22" * 32)
    peers = [
        PeerState(
            key.public_key, psk, Endpoint("2001:db8::1", 1), 1_700_000_000.25, 5, 6, 25,
            [Prefix.parse("10.0.0.0/8"), Prefix.parse("::/0")],
        ),
        PeerState(PublicKey(b"\x33" * 32), PresharedKey(bytes(32)), None, 0.0, 0, 0, 0, []),
    ]  # fmt: skip
    answer = b"".join(format_state(DeviceState(key, 51820, 7, peers))).decode()
    assert answer == (
        f"private_key={bytes(key).hex()}\nlisten_port=51820\nfwmark=7\n"
        f"public_key={bytes(key.public_key).hex()}\npreshared_key={'22' * 32}\nprotocol_version=1\n"
        "endpoint=[2001:db8::1]:1\nlast_handshake_time_sec=1700000000\nlast_handshake_time_nsec=250000000\n"
        "tx_bytes=5\nrx_bytes=6\npersistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=::/0\n"
        f"public_key={'33' * 32}\npreshared_key={'00' * 32}\nprotocol_version=1\n"
        "last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n"
        "persistent_keepalive_interval=0\nerrno=0\n\n"
    )
    assert b"".join(format_state(DeviceState(None, 0, 0, []))) == b"errno=0\n\n", "what is off is not shown"


states = st.builds(
    DeviceState,
    st.none() | private_keys.filter(lambda key: any(bytes(key))),
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
    st.lists(
        st.builds(
            PeerState,
            public_keys,
            preshared_keys,
            st.none() | numeric_endpoints,
            st.integers(0, 2**31).map(float),
            st.integers(0, 2**63),
            st.integers(0, 2**63),
            st.integers(0, 65535),
            st.lists(prefixes, max_size=4),
        ),
        max_size=3,
    ),
)


@given(states)
def test_what_is_shown_can_be_read(state: DeviceState) -> None:
    assert parse_state(b"".join(format_state(state))) == state


def test_what_others_show_beyond_that_is_passed_over() -> None:
    state = parse_state(f"new_key=1\npublic_key={KEY}\nnovel=2\nallowed_ip=10.0.0.0/8\nerrno=0\n\n".encode())
    assert (state.listen_port, len(state.peers), state.peers[0].rx_bytes) == (0, 1, 0)


@pytest.mark.parametrize(
    "answer",
    [b"", b"errno=1\n\n", b"listen_port=1\n", b"listen_port=x\nerrno=0\n\n", b"public_key=zz\nerrno=0\n\n", b"\xff\n"],
)
def test_an_answer_that_is_none_is_a_config_error(answer: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_state(answer)
