"""`wireguard-py` as a daemon: start, sockets, environment, ends, and following its interface (B37 to B46, B58, B62)."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, RIGHT, SOCKETS, WIREGUARD_PY, DaemonEnd, Keys, connect
from tests.e2e.lab import AT_ONCE, Lab, Namespace, eventually, unique


@pytest.fixture
def namespace(lab: Lab) -> Namespace:
    return lab.namespace("only")


def start(namespace: Namespace, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the daemon's command line to its end."""
    return subprocess.run(
        namespace.argv(*WIREGUARD_PY, *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **env},
    )


def remove(lab: Lab, namespace: Namespace, name: str) -> None:
    """End a daemon in the background, whatever the test did."""
    lab.cleanup(lambda: (SOCKETS / f"{name}.sock").unlink(missing_ok=True))
    lab.cleanup(lambda: namespace.succeeds("ip", "link", "del", name))


def is_gone(namespace: Namespace, name: str) -> bool:
    return not (SOCKETS / f"{name}.sock").exists() and not namespace.succeeds("ip", "link", "show", name)


# --- starting --------------------------------------------------------------------------------------------------------


def test_help_and_version(namespace: Namespace) -> None:
    helped, version = start(namespace, "--help"), start(namespace, "--version")
    assert helped.returncode == version.returncode == 0
    assert "examples:" in helped.stdout
    assert "WG_TUN_FD" in helped.stdout
    assert version.stdout.startswith("wireguard-py ")


@pytest.mark.parametrize(
    ("arguments", "env", "word"),
    [
        ([], {}, "IFACE"),
        (["-x", "wg0"], {}, "-x"),
        (["sixteen-letters-x"], {}, "15"),
        (["a/b"], {}, "slash"),
        (["wgx"], {"WG_TUN_FD": "seven"}, "WG_TUN_FD"),
        (["wgx"], {"WG_TUN_FD": "0"}, "TUN"),
        (["wgx"], {"WG_UAPI_FD": "0"}, "WG_UAPI_FD"),
        (["--workers", "0", "wgx"], {}, "1 to 128"),
        (["--workers", "many", "wgx"], {}, "1 to 128"),
        (["--workers", "2", "wgx"], {"WG_TUN_FD": "0"}, "one queue"),
        (["wgx"], {"WG_KEYLOG_FILE": "/nowhere/keys"}, "WG_KEYLOG_FILE"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_1(
    namespace: Namespace, arguments: list[str], env: dict[str, str], word: str
) -> None:
    done = start(namespace, *arguments, **env)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert word in done.stderr
    assert not namespace.succeeds("ip", "link", "show", "wgx")
    assert not (SOCKETS / "wgx.sock").exists()


def test_when_the_command_returns_the_interface_answers(lab: Lab, namespace: Namespace) -> None:
    name = unique("wg")
    remove(lab, namespace, name)
    done = start(namespace, name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert namespace.run("wg", "show", name).startswith(f"interface: {name}")
    path = SOCKETS / f"{name}.sock"
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o022 == 0
    assert "DOWN" in namespace.ip("-o", "link", "show", name)
    assert "mtu 1420" in namespace.ip("-o", "link", "show", name)
    path.unlink()
    eventually("the daemon ends when its socket is removed", lambda: is_gone(namespace, name))


def test_foreground_by_the_environment(lab: Lab, namespace: Namespace) -> None:
    name = unique("wg")
    remove(lab, namespace, name)
    process = namespace.spawn(*WIREGUARD_PY, name, env={"WG_PROCESS_FOREGROUND": "1"})
    eventually("it answers", lambda: namespace.succeeds("wg", "show", name))
    assert process.is_running


def test_log_levels(lab: Lab, namespace: Namespace) -> None:
    for level, is_loud in (("verbose", True), ("error", False), ("silent", False)):
        end = DaemonEnd(lab, namespace, env={"LOG_LEVEL": level, "WG_KEYLOG_FILE": ""})
        end.up()
        end.process.signal(signal.SIGTERM)
        assert end.process.wait() == 0
        assert bool(end.process.output) == is_loud
        assert not is_loud or f"({end.interface})" in end.process.output


def test_an_open_tun_device_and_control_socket_are_taken_over(lab: Lab, namespace: Namespace, tmp_path: Path) -> None:
    name = unique("wg")
    path = tmp_path / "control.sock"
    program = (
        "import fcntl, os, socket, struct, sys\n"
        "tun = os.open('/dev/net/tun', os.O_RDWR)\n"
        f"fcntl.ioctl(tun, 0x400454CA, struct.pack('16sH22x', b'{name}', 0x5001))\n"
        "control = socket.socket(socket.AF_UNIX)\n"
        f"control.bind('{path}'); control.listen()\n"
        "for fd in (tun, control.fileno()): os.set_inheritable(fd, True)\n"
        "os.environ.update(WG_TUN_FD=str(tun), WG_UAPI_FD=str(control.fileno()))\n"
        f"os.execv(sys.argv[1], sys.argv[1:] + ['-f', '{name}'])\n"
    )
    process = namespace.spawn(WIREGUARD_PY[0], "-c", program, *WIREGUARD_PY)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        eventually("the control socket is there", path.exists)
        client.connect(str(path))
        client.sendall(b"get=1\n\n")
        assert client.recv(4096).endswith(b"errno=0\n\n")
    assert namespace.succeeds("ip", "link", "show", name)
    assert process.is_running
    namespace.ip("link", "del", name)
    assert process.wait() == 0


def test_the_keylog_is_private_and_announced(lab: Lab, namespace: Namespace) -> None:
    end = DaemonEnd(lab, namespace)
    assert stat.S_IMODE(end.keylog.stat().st_mode) == 0o600
    assert end.process.output.count("handshake secrets") == 1


# --- B46: stale and foreign sockets ----------------------------------------------------------------------------------


def test_b46_the_socket_of_a_killed_daemon_is_replaced(lab: Lab, namespace: Namespace) -> None:
    first = DaemonEnd(lab, namespace)
    first.process.signal(signal.SIGKILL)
    first.process.wait()
    assert first.socket.exists()
    second = DaemonEnd(lab, namespace, interface=first.interface)
    assert second.process.is_running


def test_b46_a_second_daemon_of_a_name_is_refused(lab: Lab, namespace: Namespace) -> None:
    first = DaemonEnd(lab, namespace)
    for place in (namespace, lab.namespace("other")):
        done = start(place, "-f", first.interface)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
    assert namespace.succeeds("wg", "show", first.interface)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_b46_what_is_no_socket_is_left_alone(lab: Lab, namespace: Namespace, kind: str) -> None:
    name = unique("wg")
    path = SOCKETS / f"{name}.sock"
    SOCKETS.mkdir(exist_ok=True)
    if kind == "file":
        path.write_text("precious")
        lab.cleanup(path.unlink)
    else:
        path.mkdir()
        lab.cleanup(path.rmdir)
    done = start(namespace, "-f", name)
    assert done.returncode == 1
    assert path.exists()
    assert "no socket" in done.stderr


def test_b46_wg_show_of_a_name_that_is_not_there_fails(namespace: Namespace) -> None:
    assert not namespace.succeeds("wg", "show", unique("wg"))


# --- B38, B43, B44: ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_b38_a_signal_ends_it_cleanly(lab: Lab, namespace: Namespace, number: int) -> None:
    end = DaemonEnd(lab, namespace)
    end.process.signal(number)
    assert end.process.wait() == 0
    assert is_gone(namespace, end.interface)


def test_b38_a_removed_socket_ends_it(lab: Lab, namespace: Namespace) -> None:
    end = DaemonEnd(lab, namespace)
    end.socket.unlink()
    assert end.process.wait() == 0
    assert is_gone(namespace, end.interface)


def test_b38_a_socket_that_was_replaced_is_not_removed(lab: Lab, namespace: Namespace) -> None:
    end = DaemonEnd(lab, namespace)
    end.socket.unlink()
    end.socket.write_text("somebody else's")
    assert end.process.wait() == 0
    assert end.socket.read_text() == "somebody else's"


@pytest.mark.parametrize("is_moved", [False, True], ids=["here", "elsewhere"])
def test_b43_a_deleted_interface_ends_it(lab: Lab, namespace: Namespace, is_moved: bool) -> None:
    end = DaemonEnd(lab, namespace)
    end.configure()
    if is_moved:
        end.move_to(lab.namespace("inside"))
    end.inside.ip("link", "del", end.interface)
    assert end.process.wait() == 0
    again = DaemonEnd(lab, namespace, interface=end.interface)
    again.configure()


def test_b44_a_deleted_namespace_ends_it(lab: Lab, namespace: Namespace) -> None:
    end = DaemonEnd(lab, namespace)
    inside = lab.namespace("inside")
    end.move_to(inside)
    time.sleep(1.5)  # so that it has looked into the namespace at least once
    inside.delete()
    assert end.process.wait() == 0


def test_b43_twenty_rounds_leave_nothing_behind(lab: Lab, namespace: Namespace) -> None:
    name = unique("wg")
    remove(lab, namespace, name)
    for _ in range(20):
        assert start(namespace, name).returncode == 0
        namespace.ip("link", "del", name)
        eventually("the socket goes", lambda: not (SOCKETS / f"{name}.sock").exists())


# --- following the interface -----------------------------------------------------------------------------------------


def test_b41_b42_daemons_born_in_one_namespace_work_in_others(lab: Lab, namespace: Namespace) -> None:
    """B41, B42: devices go elsewhere, sockets stay; PSK, both families, read back by `wg showconf`."""
    ours, theirs = DaemonEnd(lab, namespace), DaemonEnd(lab, namespace)
    ours.move_to(lab.namespace("left"))
    theirs.move_to(lab.namespace("right"))
    psk = lab.host("wg", "genpsk").strip()
    ours.configure(port=1001)
    theirs.configure(port=1002)
    ours.add_peer(theirs.keys.public, *RIGHT.inner, endpoint="127.0.0.1:1002", psk=psk)
    theirs.add_peer(ours.keys.public, *LEFT.inner, endpoint="[::1]:1001", psk=psk)
    ours.up(f"{LEFT.inner4}/24", f"{LEFT.inner6}/64")
    theirs.up(f"{RIGHT.inner4}/24", f"{RIGHT.inner6}/64")
    assert ours.ping(RIGHT.inner4)
    assert ours.ping(RIGHT.inner6)
    assert theirs.ping(LEFT.inner4)
    assert f"PublicKey = {theirs.keys.public}" in ours.wg("showconf", ours.interface)


def test_b41_moved_at_once_forty_times(lab: Lab, namespace: Namespace) -> None:
    """B41: the very next command takes the device away from a daemon that has hardly started."""
    inside = lab.namespace("inside")
    for _ in range(40):
        name = unique("wg")
        remove(lab, inside, name)
        assert start(namespace, name).returncode == 0
        namespace.ip("link", "set", name, "netns", inside.name)
        inside.ip("link", "set", name, "up")
        assert inside.succeeds("wg", "show", name)
        inside.ip("link", "del", name)
        eventually("it ends", lambda gone=name: not (SOCKETS / f"{gone}.sock").exists())


def test_b39_the_mtu_is_followed(wire: Wire) -> None:
    ours, theirs = wire.start("left"), wire.start("right")
    connect(ours, theirs)
    assert ours.ping(RIGHT.inner4, size=1300)
    for mtu in (1280, 1420, 1000):
        for end in (ours, theirs):
            end.inside.ip("link", "set", end.interface, "mtu", str(mtu))
        eventually("pings of the full size", lambda size=mtu - 28: ours.ping(RIGHT.inner4, size=size))
    capture = wire.lab.capture(wire.left, "to-right", "udp port 51820")
    # 1000 is no multiple of 16: a full packet gets no padding when the MTU is known.
    assert ours.ping(RIGHT.inner4, size=1000 - 28)
    capture.wait_for("wg.type == 4", 2)
    capture.stop()
    assert capture.count(f"udp.length == {8 + 32 + 1000}") == 2


def test_b45_down_and_up(wire: Wire) -> None:
    """B45: down forgets sessions and what waits; after up the first ping arrives."""
    ours, theirs = wire.start("left"), wire.start("right")
    connect(ours, theirs)
    assert ours.ping(RIGHT.inner4)
    before = ours.handshakes_logged()
    ours.down()
    eventually("it knows", lambda: "is down" in ours.process.output)
    assert not theirs.ping(LEFT.inner4, limit=1)
    ours.run("ip", "link", "set", ours.interface, "up")
    assert ours.ping(RIGHT.inner4, limit=5)
    assert ours.handshakes_logged() == before + 1
    ours.down()
    eventually("it knows", lambda: ours.process.output.count("is down") == 2)
    ours.set("peer", theirs.keys.public, "persistent-keepalive", "25")
    ours.run("ip", "link", "set", ours.interface, "up")
    eventually("a persistent keepalive starts at once", lambda: ours.handshakes_logged() == before + 2)


def echo_requests(namespace: Namespace) -> int:
    """How many the kernel has sent in this namespace."""
    found = dict(re.findall(r"^IcmpMsg: (.*)\nIcmpMsg: (.*)$", namespace.run("cat", "/proc/net/snmp"), re.MULTILINE))
    counts = {
        name: int(value)
        for names, values in found.items()
        for name, value in zip(names.split(), values.split(), strict=True)
    }
    return counts.get("OutType8", 0)


def test_b45_the_first_packet_is_not_lost_to_old_news(wire: Wire) -> None:
    """A packet may be quicker than the news that the link is up, and older news still say that it is down."""
    ours, theirs = wire.start("left"), wire.start("right")
    connect(ours, theirs)
    for turn in range(6):
        ours.down()
        eventually("it knows", lambda turn=turn: ours.process.output.count("is down") == turn + 1)
        ours.process.signal(signal.SIGSTOP)
        # Two pieces of news: another MTU while it is down, and up.
        ours.run("ip", "link", "set", ours.interface, "mtu", str(1300 + turn), "up")
        before = echo_requests(ours.inside)
        ping = ours.inside.spawn("ping", "-n", "-c", "1", "-W", str(AT_ONCE), RIGHT.inner4)
        eventually("the packet waits", lambda before=before: echo_requests(ours.inside) > before)
        time.sleep(0.05)  # the other end refuses a second initiation within 20 ms
        ours.process.signal(signal.SIGCONT)
        assert ping.wait() == 0, ping.output


def test_a_renamed_interface_goes_on(wire: Wire) -> None:
    ours, theirs = wire.start("left"), wire.start("right")
    connect(ours, theirs)
    assert ours.ping(RIGHT.inner4)
    other = unique("wg")
    ours.inside.ip("link", "set", ours.interface, "name", other)
    assert theirs.ping(LEFT.inner4)
    assert ours.process.is_running


def test_b37_without_ipv6_it_works_over_ipv4(wire: Wire) -> None:
    wire.left.sysctl("net.ipv6.conf.all.disable_ipv6=1")
    ours, theirs = wire.start("left"), wire.start("right")
    ours.configure()
    theirs.configure()
    ours.add_peer(theirs.keys.public, f"{RIGHT.inner4}/32", endpoint=RIGHT.endpoint(4))
    theirs.add_peer(ours.keys.public, f"{LEFT.inner4}/32")
    ours.up(f"{LEFT.inner4}/24")
    theirs.up(f"{RIGHT.inner4}/24")
    assert ours.ping(RIGHT.inner4)


def test_b58_nothing_padded_or_repeated_reaches_the_interface(wire: Wire) -> None:
    ours, theirs = wire.start("left"), wire.start("right")
    connect(ours, theirs)
    statistics = Path(f"/sys/class/net/{ours.interface}/statistics/rx_bytes")
    before = int(ours.run("cat", str(statistics)))
    assert ours.ping(RIGHT.inner4, count=10)
    assert theirs.ping(LEFT.inner4, count=10)
    assert 840 <= int(ours.run("cat", str(statistics))) - before < 2500


def test_b62_unreachable_is_said_and_not_waited_for(wire: Wire) -> None:
    ours = wire.start("left")
    ours.configure()
    nobody = Keys.make(wire.lab)
    ours.add_peer(nobody.public, "10.77.0.9/32", "fd00:77::9/128")
    ours.up(f"{LEFT.inner4}/24", f"{LEFT.inner6}/64")
    for target in ("10.77.0.9", "10.77.0.8", "fd00:77::9", "fd00:77::8"):
        output = ours.ping_output(target)
        assert "nreachable" in output, output


def test_b68_first_contact(wire: Wire) -> None:
    """B68: the packet that begins the handshake arrives with the others, and both ends count alike."""
    ours, theirs = wire.start("left"), wire.start("right")
    connect(ours, theirs)
    assert ours.ping(RIGHT.inner4, count=10, limit=5)
    assert ours.latest_handshake(theirs)
    assert theirs.latest_handshake(ours)
    assert ours.transfer(theirs) == (92 + 10 * 128, 148 + 10 * 128)
    assert theirs.transfer(ours) == (148 + 10 * 128, 92 + 10 * 128)
