"""The unmodified `wg` and `wg-quick` drive the daemon (B31 to B34, B59, B61, B63 to B67, B70, B71)."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, RIGHT, WIREGUARD_PY, DaemonEnd, Keys, connect
from tests.e2e.lab import Lab, Namespace, eventually, unique


@pytest.fixture
def end(lab: Lab) -> DaemonEnd:
    return DaemonEnd(lab, lab.namespace("only"))


@pytest.fixture
def pair(wire: Wire) -> tuple[DaemonEnd, DaemonEnd]:
    ours, theirs = wire.start("left"), wire.start("right")
    connect(ours, theirs)
    assert ours.ping(RIGHT.inner4)
    return ours, theirs


def file_of(end: DaemonEnd, text: str) -> str:
    path = end.lab.folder / unique("conf-")
    path.write_text(text)
    return str(path)


# --- every field -----------------------------------------------------------------------------------------------------


def test_every_field_reads_back_as_it_was_set(end: DaemonEnd) -> None:
    peer, psk = Keys.make(end.lab), end.lab.host("wg", "genpsk").strip()
    end.configure(port=4711)
    end.set("fwmark", "0x1f")
    end.add_peer(peer.public, "10.1.0.0/16", "fd01::/64", endpoint="[2001:db8::9]:77", psk=psk, keepalive=21)
    assert end.show("public-key").strip() == end.keys.public
    assert end.show("private-key").strip() == end.keys.private
    assert end.show("listen-port").strip() == "4711"
    assert end.show("fwmark").strip() == "0x1f"
    assert end.by_peer("preshared-keys") == {peer.public: [psk]}
    assert end.by_peer("endpoints") == {peer.public: ["[2001:db8::9]:77"]}
    assert end.by_peer("allowed-ips") == {peer.public: ["10.1.0.0/16", "fd01::/64"]}
    assert end.by_peer("persistent-keepalive") == {peer.public: ["21"]}
    assert end.by_peer("latest-handshakes") == {peer.public: ["0"]}
    assert len(end.show("dump").splitlines()) == 2
    end.set("fwmark", "off", "peer", peer.public, "persistent-keepalive", "off", "preshared-key", "/dev/null")
    assert end.show("fwmark").strip() == "off"
    assert end.by_peer("persistent-keepalive") == {peer.public: ["off"]}
    assert end.by_peer("preshared-keys") == {peer.public: ["(none)"]}
    end.set("peer", peer.public, "remove")
    assert end.show("peers") == ""


def test_b63_a_cleared_private_key_silences_the_interface(pair: tuple[DaemonEnd, DaemonEnd]) -> None:
    ours, theirs = pair
    ours.set("private-key", "/dev/null")
    assert ours.show("private-key").strip() == "(none)"
    assert not ours.ping(RIGHT.inner4, limit=1)
    assert not theirs.ping(LEFT.inner4, limit=1)
    ours.set("private-key", ours.secret_file(ours.keys.private))
    assert ours.ping(RIGHT.inner4)


def test_b64_a_private_key_is_clamped(end: DaemonEnd) -> None:
    unclamped = "/" + end.keys.private[1:]
    end.set("private-key", end.secret_file(unclamped))
    assert end.show("private-key").startswith("+")
    assert end.show("public-key").strip() == end.lab.host("wg", "pubkey", text_in=unclamped).strip()


def test_b65_our_own_key_is_no_peer(end: DaemonEnd) -> None:
    end.configure()
    other, third = Keys.make(end.lab), Keys.make(end.lab)
    end.set("peer", end.keys.public, "peer", other.public, "peer", third.public)
    assert set(end.by_peer("endpoints")) == {other.public, third.public}
    end.set("private-key", end.secret_file(other.private))
    assert set(end.by_peer("endpoints")) == {third.public}


def test_b66_prefixes_are_normalised_and_move(end: DaemonEnd) -> None:
    end.configure()
    a, b = Keys.make(end.lab), Keys.make(end.lab)
    end.add_peer(a.public, "192.0.2.77/24", "0.0.0.0/0", "10.0.0.0/8")
    end.add_peer(b.public, "::/0", "10.0.0.0/16", "192.0.2.0/25")
    assert set(end.by_peer("allowed-ips")[a.public]) == {"192.0.2.0/24", "0.0.0.0/0", "10.0.0.0/8"}
    end.set("peer", b.public, "allowed-ips", "10.0.0.0/8")
    assert set(end.by_peer("allowed-ips")[a.public]) == {"192.0.2.0/24", "0.0.0.0/0"}
    assert end.by_peer("allowed-ips")[b.public] == ["10.0.0.0/8"]
    end.set("peer", b.public, "remove")
    end.set("peer", a.public, "allowed-ips", "10.0.0.0/8")
    assert end.by_peer("allowed-ips")[a.public] == ["10.0.0.0/8"]


def test_b67_low_order_public_keys_are_shown_and_never_spoken_to(wire: Wire) -> None:
    ours = wire.start("left")
    ours.configure()
    points = [
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=",
        "X5yVvKNQjCSx0LFVnIPvWwREXMRYHI6G2CJO3dCfEVc=",
        "7P///////////////////////////////////////38=",
        "7f///////////////////////////////////////38=",
        "7v///////////////////////////////////////38=",
    ]
    for number, point in enumerate(points):
        ours.add_peer(point, f"10.77.1.{number}/32", endpoint=RIGHT.endpoint(4), keepalive=1)
    assert set(ours.by_peer("endpoints")) == set(points)
    capture = wire.lab.capture(wire.left, "to-right", "udp")
    ours.up("10.77.0.1/16")
    for number in range(len(points)):
        ours.ping(f"10.77.1.{number}", limit=1)
    with wire.left.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"the end of the capture", (RIGHT.outer4, 9))
    capture.wait_for("udp.dstport == 9")
    capture.stop()
    assert capture.count("udp.srcport == 51820") == 0


# --- live changes ----------------------------------------------------------------------------------------------------


def test_b31_the_port_and_the_mark_change_and_sessions_stay(pair: tuple[DaemonEnd, DaemonEnd]) -> None:
    ours, theirs = pair
    handshakes = ours.handshakes_logged()
    ours.set("listen-port", "5353")
    assert ours.ping(RIGHT.inner4)
    assert theirs.endpoint_of(ours) == LEFT.endpoint(4, 5353)
    ours.set("fwmark", "77")
    assert ours.ping(RIGHT.inner4)
    theirs.set("listen-port", "5454")
    assert theirs.ping(LEFT.inner4)
    assert ours.endpoint_of(theirs) == RIGHT.endpoint(4, 5454)
    assert ours.handshakes_logged() == handshakes


def test_b31_a_port_in_use_is_refused_and_the_old_one_stays(pair: tuple[DaemonEnd, DaemonEnd], wire: Wire) -> None:
    ours, _ = pair
    with wire.left.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 6000))
        output = ours.set("listen-port", "6000", check=False)
    assert "Address already in use" in output
    assert ours.show("listen-port").strip() == "51820"
    assert ours.ping(RIGHT.inner4)


def test_b61_new_keys_on_both_sides_and_the_first_ping_succeeds(pair: tuple[DaemonEnd, DaemonEnd]) -> None:
    ours, theirs = pair
    old = ours.keys, theirs.keys
    for end, own in ((ours, LEFT), (theirs, RIGHT)):
        end.keys = Keys.make(end.lab)
        end.set("private-key", end.secret_file(end.keys.private))
        assert own
    ours.set("peer", old[1].public, "remove")
    theirs.set("peer", old[0].public, "remove")
    ours.add_peer(theirs.keys.public, *RIGHT.inner, endpoint=RIGHT.endpoint(4))
    theirs.add_peer(ours.keys.public, *LEFT.inner)
    assert ours.ping(RIGHT.inner4, limit=5)


# --- files -----------------------------------------------------------------------------------------------------------


def test_b71_showconf_setconf_and_syncconf_are_idempotent_and_keep_sessions(pair: tuple[DaemonEnd, DaemonEnd]) -> None:
    ours, _ = pair
    handshakes = ours.handshakes_logged()
    shown = ours.wg("showconf", ours.interface)
    path = file_of(ours, shown)
    for _ in range(2):
        ours.wg("syncconf", ours.interface, path)
        assert ours.wg("showconf", ours.interface) == shown
    assert ours.ping(RIGHT.inner4)
    assert ours.handshakes_logged() == handshakes
    ours.wg("setconf", ours.interface, path)
    assert ours.wg("showconf", ours.interface) == shown
    assert ours.ping(RIGHT.inner4)
    extra = Keys.make(ours.lab)
    ours.wg("addconf", ours.interface, file_of(ours, f"[Peer]\nPublicKey = {extra.public}\nAllowedIPs = 10.9.0.0/16\n"))
    assert extra.public in ours.show("peers")
    ours.wg("syncconf", ours.interface, path)
    assert extra.public not in ours.show("peers")
    assert ours.ping(RIGHT.inner4)


def test_b59_many_prefixes_in_one_request(end: DaemonEnd) -> None:
    peer = Keys.make(end.lab)
    prefixes = [f"10.{a}.{b}.{c}/32" for a in range(2) for b in range(255) for c in range(256)]
    head = f"[Interface]\nPrivateKey = {end.keys.private}\n[Peer]\nPublicKey = {peer.public}\nAllowedIPs = "
    assert len(prefixes) == 130_560
    path = file_of(end, head + ", ".join(prefixes) + "\n")
    for _ in range(2):
        end.wg("setconf", end.interface, path)
        assert end.by_peer("allowed-ips") == {peer.public: prefixes}
    assert end.process.status("VmHWM") < 300_000
    end.wg("setconf", end.interface, file_of(end, head + "192.0.2.0/24\n"))
    assert end.by_peer("allowed-ips") == {peer.public: ["192.0.2.0/24"]}


def test_b59_thirty_peers_read_back_unchanged(end: DaemonEnd) -> None:
    text = f"[Interface]\nListenPort = 999\nPrivateKey = {end.keys.private}\n"
    for number in range(30):
        text += f"\n[Peer]\nPublicKey = {Keys.make(end.lab).public}\nAllowedIPs = " + ", ".join(
            f"10.{number}.{one}.0/24" for one in range(52)
        )
        text += f"\nEndpoint = 192.0.2.{number + 1}:51820\nPersistentKeepalive = {number + 1}\n"
    end.wg("setconf", end.interface, file_of(end, text))
    shown = end.wg("showconf", end.interface)
    assert {line for line in shown.splitlines() if line} == {line for line in text.splitlines() if line}
    end.wg("setconf", end.interface, file_of(end, shown))
    assert end.wg("showconf", end.interface) == shown


# --- B34: the socket itself ------------------------------------------------------------------------------------------


def ask(end: DaemonEnd, request: bytes, pieces: int = 0) -> bytes:
    """One request and its answer; in pieces of so many octets."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(end.socket))
        for start in range(0, len(request), pieces or len(request)):
            client.sendall(request[start : start + (pieces or len(request))])
        answer = b""
        while not answer.endswith(b"\n\n"):
            octets = client.recv(65536)
            if not octets:
                break
            answer += octets
    return answer


@pytest.mark.parametrize(
    ("request_text", "expected"),
    [
        (b"set=1\nlisten_port=70000\n\n", b"errno=-22\n\n"),
        (b"set=1\nprivate_key=00\n\n", b"errno=-22\n\n"),
        (b"set=1\nnonsense=1\n\n", b"errno=-22\n\n"),
        (b"set=1\nallowed_ip=10.0.0.0/8\n\n", b"errno=-22\n\n"),
        (b"set=1\nfwmark=5\npublic_key=" + b"11" * 32 + b"\nendpoint=nohost\n\n", b"errno=-22\n\n"),
        (b"set=1\n\n", b"errno=0\n\n"),
    ],
)
def test_b34_errors_are_answered_and_change_nothing(end: DaemonEnd, request_text: bytes, expected: bytes) -> None:
    before = ask(end, b"get=1\n\n")
    for pieces in (0, 1, 7):
        assert ask(end, request_text, pieces) == expected
    assert ask(end, b"get=1\n\n", 3) == before


def test_b34_slow_rude_and_many_clients_do_not_stop_the_tunnel(pair: tuple[DaemonEnd, DaemonEnd]) -> None:
    ours, _ = pair
    lingering = []
    for rude in (b"set=1\n", b"get=1", b"get=1\n\n" * 2000, b"x" * 65536, b"x" * 65537 + b"\n", b""):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(1)
        client.connect(str(ours.socket))
        # It never reads its answers, or is sent away.
        with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
            client.sendall(rude)
        lingering.append(client)
    for _ in range(300):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(ours.socket))
    assert ours.ping(RIGHT.inner4)
    assert ours.show("listen-port").strip() == "51820"
    pipelined = ask(ours, b"set=1\nfwmark=0\n\nget=1\n\n")
    assert pipelined.startswith(b"errno=0\n\n")
    for client in lingering:
        client.close()


# --- B70: wg-quick ---------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(lab: Lab, tmp_path: Path) -> dict[str, str]:
    """The environment in which wg-quick starts our daemon."""
    script = tmp_path / "wireguard-py"
    script.write_text(f"#!{sys.executable}\n{WIREGUARD_PY[2].replace('; ', chr(10))}\n")
    script.chmod(0o755)
    return {
        "WG_QUICK_USERSPACE_IMPLEMENTATION": str(script),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "LOG_LEVEL": "silent",
    }


def conf(lab: Lab, folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.conf"
    path.touch(0o600)
    path.write_text(text)
    return path


def test_b70_wg_quick_up_save_and_down(wire: Wire, quick: dict[str, str], tmp_path: Path) -> None:
    theirs = wire.start("right")
    theirs.configure()
    keys, name, left = Keys.make(wire.lab), unique("wg"), wire.left
    theirs.add_peer(keys.public, *LEFT.inner)
    theirs.up(f"{RIGHT.inner4}/24")
    path = conf(
        wire.lab,
        tmp_path,
        name,
        f"[Interface]\nPrivateKey = {keys.private}\nAddress = {LEFT.inner4}/32\nSaveConfig = true\n"
        f"PostUp = touch {tmp_path}/%i-up # a comment\nPostDown = touch {tmp_path}/%i-down\n"
        f"[Peer]\nPublicKey = {theirs.keys.public}\nAllowedIPs = {RIGHT.inner4}/32\nEndpoint = {RIGHT.endpoint(4)}\n",
    )
    wire.lab.cleanup(lambda: left.succeeds("ip", "link", "del", name))
    left.run("wg-quick", "up", str(path), env=quick)
    assert (tmp_path / f"{name}-up").exists()
    assert f"{LEFT.inner4}" in left.ip("-o", "address", "show", name)
    assert "mtu 1420" in left.ip("-o", "link", "show", name)
    assert name in left.ip("route", "get", RIGHT.inner4)
    left.run("ping", "-c", "1", "-W", "10", RIGHT.inner4)
    left.run("wg-quick", "save", str(path), env=quick)
    assert keys.private in path.read_text()
    assert keys.private in left.run("wg-quick", "strip", str(path), env=quick)
    left.run("wg-quick", "down", str(path), env=quick)
    assert (tmp_path / f"{name}-down").exists()
    eventually("nothing is left", lambda: not left.succeeds("wg", "show", name))
    assert not left.succeeds("ip", "link", "show", name)


def rules(namespace: Namespace) -> str:
    return namespace.ip("rule") + namespace.ip("-6", "rule")


@pytest.mark.parametrize("version", [4, 6])
def test_b70_b53_a_default_route_through_wg_quick(
    wire: Wire, quick: dict[str, str], tmp_path: Path, version: int
) -> None:
    theirs = wire.start("right")
    theirs.configure()
    keys, name, left = Keys.make(wire.lab), unique("wg"), wire.left
    theirs.add_peer(keys.public, *LEFT.inner)
    theirs.up(f"{RIGHT.inner4}/24", f"{RIGHT.inner6}/64")
    path = conf(
        wire.lab,
        tmp_path,
        name,
        f"[Interface]\nPrivateKey = {keys.private}\nAddress = {LEFT.inner4}/32, {LEFT.inner6}/128\n"
        f"[Peer]\nPublicKey = {theirs.keys.public}\nAllowedIPs = 0.0.0.0/0, ::/0\n"
        f"Endpoint = {RIGHT.endpoint(version)}\n",
    )
    wire.lab.cleanup(lambda: left.succeeds("ip", "link", "del", name))
    before = rules(left)
    left.run("wg-quick", "up", str(path), env=quick)
    left.run("ping", "-c", "1", "-W", "10", RIGHT.inner4)
    left.run("ping", "-c", "1", "-W", "10", RIGHT.inner6)
    left.run("wg-quick", "down", str(path), env=quick)
    assert rules(left) == before
