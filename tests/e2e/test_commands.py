"""`wgpy`: each command as a person would run it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, RIGHT, SOCKETS, DaemonEnd, Keys, connect
from tests.e2e.lab import Lab, Namespace, eventually, unique

WGPY = (sys.executable, "-m", "wgpy")


def run(namespace: Namespace, *argv: str, text_in: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        namespace.argv(*WGPY, *argv), input=text_in or "", capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def namespace(lab: Lab) -> Namespace:
    return lab.namespace("only")


@pytest.fixture
def pair(wire: Wire) -> tuple[DaemonEnd, DaemonEnd]:
    ours, theirs = wire.start("left"), wire.start("right")
    connect(ours, theirs, psk=wire.lab.host("wg", "genpsk").strip())
    assert ours.ping(RIGHT.inner4)
    return ours, theirs


def test_keys_agree_with_wg(lab: Lab, namespace: Namespace) -> None:
    private = run(namespace, "genkey").stdout
    assert run(namespace, "pubkey", text_in=private).stdout == lab.host("wg", "pubkey", text_in=private)
    theirs = lab.host("wg", "genkey")
    assert run(namespace, "pubkey", text_in=theirs).stdout == lab.host("wg", "pubkey", text_in=theirs)
    assert re.fullmatch(r"[A-Za-z0-9+/]{43}=\n", run(namespace, "genpsk").stdout)
    wrong = run(namespace, "pubkey", text_in=private[:-3])
    assert wrong.returncode == 1
    assert private[:20] not in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["genkey", "genpsk", "pubkey", "up", "down", "show", "check", "capture", "keylog"])
def test_every_help_text_has_an_example(namespace: Namespace, command: str) -> None:
    helped = run(namespace, command, "--help")
    assert helped.returncode == 0
    assert re.search(rf"examples:\n  .*wgpy {command}", helped.stdout)


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["show", "a", "b"], ["up"], ["show", "--what"]])
def test_wrong_usage_is_one_line(namespace: Namespace, argv: list[str]) -> None:
    done = run(namespace, *argv)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1


def config(lab: Lab, keys: Keys, peer: Keys, more: str = "", allowed: str = RIGHT.inner4) -> Path:
    path = lab.folder / f"{unique('wg')}.conf"
    path.touch(0o600)
    path.write_text(
        f"[Interface]\nPrivateKey = {keys.private}\nAddress = {LEFT.inner4}/24\n{more}\n"
        f"[Peer]\nPublicKey = {peer.public}\nAllowedIPs = {allowed}\nEndpoint = {RIGHT.endpoint(4)}\n"
        "PersistentKeepalive = 25\n"
    )
    lab.cleanup(lambda: (SOCKETS / f"{path.stem}.sock").unlink(missing_ok=True))
    return path


@pytest.mark.parametrize("allowed", [f"{RIGHT.inner4}/32", "0.0.0.0/0, ::/0"], ids=["one", "default"])
def test_up_and_down(wire: Wire, allowed: str) -> None:
    theirs = wire.start("right")
    theirs.configure()
    keys = Keys.make(wire.lab)
    theirs.add_peer(keys.public, *LEFT.inner)
    theirs.up(f"{RIGHT.inner4}/24")
    path = config(wire.lab, keys, theirs.keys, allowed=allowed)
    before = wire.left.ip("rule") + wire.left.ip("-6", "rule")
    done = run(wire.left, "up", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{path.stem} is up" in done.stdout
    wire.left.run("ping", "-c", "1", "-W", "10", RIGHT.inner4)
    again = run(wire.left, "up", str(path))
    assert again.returncode == 1
    assert "in use" in again.stderr or "exists" in again.stderr
    down = run(wire.left, "down", str(path))
    assert (down.returncode, down.stderr) == (0, "")
    assert not wire.left.succeeds("ip", "link", "show", path.stem)
    eventually("the rules go", lambda: wire.left.ip("rule") + wire.left.ip("-6", "rule") == before)
    assert run(wire.left, "down", str(path)).returncode == 1


def test_up_says_what_it_leaves_out_and_who_can_read_the_file(lab: Lab, namespace: Namespace) -> None:
    path = config(lab, Keys.make(lab), Keys.make(lab), "DNS = 192.0.2.53\nPostUp = touch /nowhere")
    path.chmod(0o644)
    done = run(namespace, "up", str(path))
    assert done.returncode == 0
    assert "DNS, PostUp not acted upon" in done.stderr
    assert "chmod 600" in done.stderr
    assert run(namespace, "down", str(path)).returncode == 0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[Interface]\nPrivateKey = short\n", "line 2, column 14"),
        ("[Interface]\n", "PrivateKey"),
        ("[Nonsense]\n", "line 1"),
    ],
)
def test_up_refuses_a_wrong_file_in_one_line(lab: Lab, namespace: Namespace, text: str, word: str) -> None:
    path = lab.folder / f"{unique('wg')}.conf"
    path.touch(0o600)
    path.write_text(text)
    done = run(namespace, "up", str(path))
    assert done.returncode == 1
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not namespace.succeeds("ip", "link", "show", path.stem)


def test_show_says_what_wg_show_says(pair: tuple[DaemonEnd, DaemonEnd]) -> None:
    ours, theirs = pair
    shown = run(ours.namespace, "show", ours.interface).stdout
    expected = ours.wg("show", ours.interface)

    def steady(text: str) -> list[str]:
        return [line for line in text.splitlines() if "handshake" not in line]

    assert steady(shown) == steady(expected)
    assert "private key: (hidden)" in shown
    (state,) = json.loads(run(ours.namespace, "show", ours.interface, "--json").stdout)
    assert state["public_key"] == ours.keys.public
    (peer,) = state["peers"]
    assert peer["public_key"] == theirs.keys.public
    assert peer["has_preshared_key"] is True
    assert peer["endpoint"] == RIGHT.endpoint(4)
    assert (peer["rx_bytes"], peer["tx_bytes"]) == ours.transfer(theirs)
    assert ours.keys.private not in json.dumps(state)
    missing = run(ours.namespace, "show", "not-there")
    assert missing.returncode == 1
    assert ours.interface in missing.stderr, "it says which there are"


def test_show_watch_shows_rates_until_it_is_interrupted(pair: tuple[DaemonEnd, DaemonEnd]) -> None:
    ours, _ = pair
    process = ours.namespace.spawn(*WGPY, "show", ours.interface, "--watch", "--interval", "0.1")
    eventually("rates are shown", lambda: "Mbit/s received" in process.output)
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert "Traceback" not in process.output


def test_check_gives_line_and_column_and_doubts(lab: Lab, namespace: Namespace) -> None:
    keys, peer, other = Keys.make(lab), Keys.make(lab), Keys.make(lab)
    path = lab.folder / "wrong.conf"
    path.write_text(
        f"[Interface]\nPrivateKey = {keys.private}\nMTU = 1500\nListenPort = 99999\n"
        f"[Peer]\nPublicKey = {peer.public}\nAllowedIPs = 10.0.0.0/8, 10.0.0.0/33\nEndpoint = 192.0.2.1:51820\n"
        f"[Peer]\nPublicKey = {other.public}\nAllowedIPs = 10.1.0.0/16\nEndpoint = 192.0.2.1:51820\n"
    )
    done = run(namespace, "check", str(path))
    assert done.returncode == 1
    assert ":4:14: error: " in done.stdout
    assert re.search(r":7:\d+: error: .*10\.0\.0\.0/33", done.stdout)
    path.write_text(path.read_text().replace("99999", "0").replace(", 10.0.0.0/33", ""))
    doubts = run(namespace, "check", "--json", str(path))
    assert doubts.returncode == 0
    found = {one["field"]: one for one in json.loads(doubts.stdout)}
    assert {one["severity"] for one in found.values()} == {"warning"}
    assert {"MTU", "AllowedIPs", "PersistentKeepalive"} <= set(found)
    assert found["AllowedIPs"]["line"] == 11
    fine = config(lab, keys, peer)
    assert run(namespace, "check", str(fine)).stdout.endswith("no problems found\n")


def test_capture_is_read_by_tshark(pair: tuple[DaemonEnd, DaemonEnd]) -> None:
    ours, _ = pair
    path = ours.lab.folder / "inner.pcapng"
    process = ours.namespace.spawn(*WGPY, "capture", ours.interface, str(path))
    eventually("it captures", path.exists)

    def packets() -> list[str]:
        assert ours.ping(RIGHT.inner4)
        shown = ours.lab.host("tshark", "-r", str(path), "-T", "fields", "-e", "icmp.type", "-e", "ip.src", check=False)
        return shown.splitlines()

    eventually("both directions are there", lambda: {f"8\t{LEFT.inner4}", f"0\t{RIGHT.inner4}"} <= set(packets()))
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    assert "packets written, 0 lost" in process.output
    assert path.stat().st_mode & 0o077 == 0
