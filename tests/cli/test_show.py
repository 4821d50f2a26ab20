"""`wgpy show`: what it prints of a state, and how it asks for one; R12, B63 as far as it is printed, B40."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wgpy.cli import main, show
from wgpy.config import Endpoint, Prefix
from wgpy.errors import ConfigError, DeviceError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.uapi import DeviceState, PeerState, format_state

KEY, PSK = PrivateKey(b"\x11" * 32), PresharedKey(b"\x22" * 32)
NOW = 1_750_000_000.0
FULL = PeerState(
    PublicKey(b"\x33" * 32), PSK, Endpoint("192.0.2.1", 51820), NOW - 3725, 1 << 20, 1500, 25,
    (Prefix.parse("10.0.0.0/8"), Prefix.parse("::/0")),
)  # fmt: skip
EMPTY = PeerState(PublicKey(b"\x44" * 32), PresharedKey(bytes(32)), None, 0.0, 0, 0, 0, ())
STATE = DeviceState(KEY, 51820, 0xCA6C, (EMPTY, FULL))


def test_for_people_as_wg_prints_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show.time, "time", lambda: NOW)
    assert list(show._lines("wg0", STATE, None, 0.0)) == [
        "interface: wg0",
        f"  public key: {KEY.public_key}",
        "  private key: (hidden)",
        "  listening port: 51820",
        "  fwmark: 0xca6c",
        "",
        f"peer: {FULL.public_key}",
        "  preshared key: (hidden)",
        "  endpoint: 192.0.2.1:51820",
        "  allowed ips: 10.0.0.0/8, ::/0",
        "  latest handshake: 1 hour, 2 minutes, 5 seconds ago",
        "  transfer: 1.46 KiB received, 1.00 MiB sent",
        "  persistent keepalive: every 25 seconds",
        "",
        f"peer: {EMPTY.public_key}",
        "  allowed ips: (none)",
    ]


def test_with_watch_there_are_rates() -> None:
    import dataclasses

    earlier = dataclasses.replace(STATE, peers=(EMPTY, dataclasses.replace(FULL, rx_bytes=0, tx_bytes=0)))
    lines = list(show._lines("wg0", STATE, (10.0, earlier), 12.0))
    assert "  rate: 0.01 Mbit/s received, 4.19 Mbit/s sent" in lines


def test_for_programs_as_json_without_secrets() -> None:
    document = show._as_json("wg0", STATE)
    assert document["public_key"] == str(KEY.public_key)
    assert [peer["latest_handshake"] for peer in document["peers"]] == [None, NOW - 3725]
    assert [peer["has_preshared_key"] for peer in document["peers"]] == [False, True]
    assert document["peers"][1]["allowed_ips"] == ["10.0.0.0/8", "::/0"]
    text = json.dumps(document)
    for secret in (bytes(KEY), bytes(PSK)):
        assert secret.hex() not in text
        assert base64.b64encode(secret).decode() not in text
    assert show._as_json("wg0", DeviceState(None, 0, 0, ()))["public_key"] is None


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1 << 30, "1.00 GiB"),
        (3 << 40, "3.00 TiB"),
        (5 << 50, "5120.00 TiB"),
    ],
)
def test_octets_for_people(octets: int, text: str) -> None:
    assert show._octets(octets) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Now"),
        (1, "1 second ago"),
        (61, "1 minute, 1 second ago"),
        (2 * 86400, "2 days ago"),
        (365 * 86400, "1 year ago"),
    ],
)
def test_ages_for_people(seconds: float, text: str) -> None:
    assert show._ago(seconds) == text


@contextmanager
def daemon(directory: Path, name: str, answer: bytes) -> Iterator[list[bytes]]:
    """Answers one question."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(directory / f"{name}.sock"))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                asked.append(client.recv(100))
                client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        thread.join(10)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(show, "_SOCKETS", tmp_path)
    return tmp_path


def test_it_asks_the_daemon(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(directory, "wg0", b"".join(format_state(STATE))) as asked:
        assert main(["show", "--json"]) == 0
    assert asked == [b"get=1\n\n"]
    (document,) = json.loads(capsys.readouterr().out)
    assert document == json.loads(json.dumps(show._as_json("wg0", STATE)))


def test_a_daemon_that_fails_or_stops_in_the_middle(directory: Path) -> None:
    with daemon(directory, "wg0", b"errno=5\n\n"), pytest.raises(ConfigError, match="errno=5"):
        show.ask("wg0")
    with daemon(directory, "wg1", b"listen_port=1\n"), pytest.raises(ConfigError, match="nothing"):
        show.ask("wg1")


def test_an_interface_that_is_not_there_names_those_that_are(directory: Path) -> None:
    with pytest.raises(DeviceError, match=r"no userspace interface wg9 \(there are: none is running\)"):
        show.ask("wg9")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(directory / "wg1.sock"))
        with pytest.raises(DeviceError, match=r"there are: wg1\)"):
            show.ask("wg9")


def test_nothing_is_running(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show"]) == 0
    assert capsys.readouterr().out == "no userspace interface is running\n"
