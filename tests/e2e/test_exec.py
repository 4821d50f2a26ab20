"""`wgpy exec`: a program whose only way out is the tunnel.

left (outer, 192.0.2.1) ═══════ cable ═══════ right (192.0.2.2)
  └─ wgpy exec, in namespaces of its own        └─ a WireGuard daemon, 10.77.0.2 and fd00:77::2,
     wg0: 10.77.0.1, fd00:77::1                    with a web server and a name server behind it
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, RIGHT, DaemonEnd, Keys
from tests.e2e.lab import Lab, Namespace, Process, eventually
from tests.machine import REPOSITORY

WGPY = (sys.executable, "-m", "wgpy")
WEB = "http://intranet.test:8000/"


def serve(namespace: Namespace, *argv: str) -> Process:
    """Start one of tests/e2e/servers.py."""
    return namespace.spawn(sys.executable, "-m", "tests.e2e.servers", *argv, env={"PYTHONPATH": str(REPOSITORY)})


def write_config(lab: Lab, keys: Keys, peer: Keys, *, allowed: str, dns: str = RIGHT.inner4, more: str = "") -> Path:
    path = lab.folder / "office.conf"
    path.touch(0o600)
    path.write_text(
        f"[Interface]\nPrivateKey = {keys.private}\nAddress = {LEFT.inner4}/24, {LEFT.inner6}/64\n"
        + (f"DNS = {dns}\n" if dns else "")
        + f"{more}\n[Peer]\nPublicKey = {peer.public}\nAllowedIPs = {allowed}\nEndpoint = {RIGHT.endpoint(4)}\n"
    )
    return path


@dataclass
class Office:
    """A far end with servers, and the configuration to reach it."""

    wire: Wire
    far: DaemonEnd
    keys: Keys
    dns: Process

    def config(self, *, allowed: str = "0.0.0.0/0, ::/0", dns: str = RIGHT.inner4, more: str = "") -> Path:
        return write_config(self.wire.lab, self.keys, self.far.keys, allowed=allowed, dns=dns, more=more)

    def exec(self, config: Path, *argv: str, text_in: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.wire.left.argv(*WGPY, "exec", str(config), "--", *argv),
            input=text_in,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def shell(self, config: Path, script: str) -> subprocess.CompletedProcess[str]:
        return self.exec(config, "sh", "-c", script)


def open_office(wire: Wire, implementation: str = "wgpy") -> Office:
    far = wire.start("right", implementation)
    keys = Keys.make(wire.lab)
    far.configure()
    far.add_peer(keys.public, *LEFT.inner)
    far.up(f"{RIGHT.inner4}/24", f"{RIGHT.inner6}/64")
    serve(wire.right, "web", RIGHT.inner4, "8000")
    serve(wire.right, "web", RIGHT.inner6, "8000")
    dns = serve(
        wire.right,
        *("dns", RIGHT.inner4, f"intranet.test={RIGHT.inner4}", f"intranet.test={RIGHT.inner6}"),
    )
    for address in (RIGHT.inner4, f"[{RIGHT.inner6}]"):
        eventually("the web server listens", lambda a=address: wire.right.succeeds("curl", "-sgf", f"http://{a}:8000/"))
    return Office(wire, far, keys, dns)


@pytest.fixture
def office(wire: Wire) -> Office:
    return open_office(wire)


@pytest.mark.parametrize(
    "implementation",
    ["wgpy", pytest.param("wireguard-go", marks=pytest.mark.needs("go"))],
)
def test_a_program_reaches_what_is_behind_the_tunnel_by_name(wire: Wire, implementation: str) -> None:
    office = open_office(wire, implementation)
    config = office.config()
    for family, address, ours in (("-4", RIGHT.inner4, LEFT.inner4), ("-6", RIGHT.inner6, LEFT.inner6)):
        done = office.exec(config, "curl", "-sS", family, "--max-time", "20", WEB)
        assert (done.stdout, done.stderr) == (f"hello from {address} to {ours}\n", "")
        assert done.returncode == 0
    assert "asked for intranet.test" in office.dns.output


def test_there_is_no_other_way_out(office: Office) -> None:
    """Addresses that AllowedIPs does not name are unreachable at once; nothing passes the cable but WireGuard."""
    lab, left = office.wire.lab, office.wire.left
    serve(office.wire.right, "web", RIGHT.outer4, "8000")
    eventually("it listens", lambda: office.wire.right.succeeds("curl", "-sf", f"http://{RIGHT.outer4}:8000/"))
    capture = lab.capture(left, "to-right", "")
    script = f"""
        curl -sS --max-time 5 http://{RIGHT.outer4}:8000/ ; echo outer $?
        curl -sS --max-time 20 {WEB} ; echo inner $?
        curl -sS --max-time 5 http://unknown.test/ ; echo unknown $?
        ip -brief link
    """
    done = office.shell(office.config(allowed="10.77.0.0/24"), script)
    assert "outer 7\n" in done.stdout
    assert "inner 0\n" in done.stdout
    assert "unknown 6\n" in done.stdout
    links = re.findall(r"^(\w+) +(?:UNKNOWN|UP|DOWN)", done.stdout, re.MULTILINE)
    assert sorted(links) == ["lo", "wg0"]
    capture.stop()
    assert capture.count("udp.port == 51820") > 0
    # What the two kernels say to each other about the cable itself is no leak.
    assert capture.count("not udp.port == 51820 and not arp and not icmpv6") == 0


def test_without_name_servers_no_name_is_resolved(office: Office) -> None:
    config = office.config(dns="")
    done = office.exec(config, "curl", "-sS", "--max-time", "20", WEB)
    assert done.returncode == 6
    assert "nameserver" not in office.exec(config, "cat", "/etc/resolv.conf").stdout


def test_daemons_of_the_host_are_not_asked_for_names(office: Office) -> None:
    """A resolver daemon on a Unix socket would look names up outside: lookups use files and DNS only."""
    done = office.shell(office.config(), "grep ^hosts: /etc/nsswitch.conf; cat /etc/resolv.conf")
    assert "hosts: files dns\n" in done.stdout
    assert re.findall(r"^nameserver (.*)", done.stdout, re.MULTILINE) == [RIGHT.inner4]


def test_the_host_notices_nothing(office: Office) -> None:
    left = office.wire.left

    def state() -> str:
        return left.ip("address") + left.ip("route") + left.ip("rule") + left.run("mount")

    before = state()
    inside = office.wire.lab.folder / "inside"
    process = left.spawn(*WGPY, "exec", str(office.config()), "--", "sh", "-c", f"touch {inside}; exec sleep 60")
    eventually("it runs", inside.exists)
    assert state() == before
    process.signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert state() == before


def test_a_tunnel_that_is_killed_takes_the_program_along_and_leaves_no_way_out(office: Office) -> None:
    """What the program had started itself lives on, and has no network."""
    left, result = office.wire.left, office.wire.lab.folder / "result"
    ready = office.wire.lab.folder / "ready"
    serve(office.wire.right, "web", RIGHT.outer4, "8000")
    script = f"""
        touch {ready}
        while ip link show wg0 >/dev/null 2>&1; do sleep 0.05; done
        curl -sS --max-time 5 http://{RIGHT.outer4}:8000/
        echo $? > {result}.new; mv {result}.new {result}
    """
    program = office.wire.lab.folder / "program"
    outer = f"echo $$ > {program}; sh -c {shlex.quote(script)} & wait"
    process = left.spawn(*WGPY, "exec", str(office.config()), "--", "sh", "-c", outer)
    eventually("it runs", ready.exists)
    process.signal(signal.SIGKILL)
    stat = Path("/proc", program.read_text().strip(), "stat")
    # Gone, or a zombie where nobody collects orphans.
    eventually("the program is dead", lambda: not stat.exists() or ") Z " in stat.read_text())
    eventually("the program has tried", result.exists)
    assert result.read_text() == "7\n"


def test_exit_codes_and_standard_streams_are_passed_on(office: Office) -> None:
    config = office.config()
    assert office.shell(config, "exit 42").returncode == 42
    assert office.shell(config, "kill -KILL $$").returncode == 137
    done = office.exec(config, "tr", "a-z", "A-Z", text_in="through\n")
    assert (done.stdout, done.stderr, done.returncode) == ("THROUGH\n", "", 0)
    missing = office.exec(config, "no-such-program")
    assert missing.returncode == 127
    assert missing.stderr == "wgpy exec: no-such-program: No such file or directory\n"
    assert office.exec(config, "/etc/passwd").returncode == 126


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT", "SIGQUIT"])
def test_signals_are_passed_on(office: Office, name: str) -> None:
    ready = office.wire.lab.folder / "ready"
    script = f"trap 'echo caught {name}; exit 7' {name[3:]}; touch {ready}; while :; do sleep 0.05; done"
    process = office.wire.left.spawn(*WGPY, "exec", str(office.config()), "--", "sh", "-c", script)
    eventually("it runs", ready.exists)
    process.signal(getattr(signal, name))
    assert process.wait() == 7
    assert process.output == f"caught {name}\n"


def test_ctrl_c_at_a_terminal_reaches_the_program_once(office: Office) -> None:
    """The terminal signals the whole process group: what is passed on must not come on top of that."""
    ready, count = office.wire.lab.folder / "ready", office.wire.lab.folder / "count"
    script = (
        f"trap 'echo x >> {count}' INT; touch {ready}; until [ -e {count} ]; do sleep 0.05; done; sleep 0.3; exit 9"
    )
    terminal, line = pty.openpty()
    try:
        process = subprocess.Popen(
            ["setsid", "--ctty", *office.wire.left.argv(*WGPY, "exec", str(office.config()), "--", "sh", "-c", script)],
            stdin=line,
            stdout=line,
            stderr=line,
        )
        eventually("it runs", ready.exists)
        os.write(terminal, b"\x03")
        assert process.wait(60) == 9
    finally:
        os.close(terminal)
        os.close(line)
    assert count.read_text() == "x\n"


def test_a_program_that_pings(office: Office) -> None:
    done = office.exec(office.config(), "ping", "-c", "2", "-i", "0.1", "-W", "10", RIGHT.inner4)
    assert " 2 received" in done.stdout


def test_an_mtu_and_large_transfers(office: Office) -> None:
    config = office.config(more="MTU = 1300")
    assert "mtu 1300" in office.exec(config, "ip", "link", "show", "wg0").stdout
    done = office.shell(config, f"head -c 5000000 /dev/zero | curl -sS --data-binary @- {WEB}")
    assert done.stdout == "5000000 octets\n"


UNPRIVILEGED = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/python /mnt/site /mnt/code
mount --bind {python} /mnt/python
mount --bind {site} /mnt/site
mount --bind {code} /mnt/code
mknod /mnt/tun c 10 200
chmod {mode} /mnt/tun
mount --bind /mnt/tun /dev/net/tun
install -m 600 -o 65534 -g 65534 {config} /mnt/office.conf
cd /
exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \\
    env PYTHONPATH=/mnt/code:/mnt/site LD_LIBRARY_PATH=/mnt/python/lib HOME=/ \\
    /mnt/python/bin/{name} -m wgpy {command}
"""


CONFINED = ("exec", "/mnt/office.conf", "--")


def as_nobody(office: Office, config: Path, *command: str, tun_mode: str = "666") -> subprocess.CompletedProcess[str]:
    """Run a command of `wgpy` as nobody, without a single capability; the configuration is /mnt/office.conf."""
    script = UNPRIVILEGED.format(
        python=sys.base_prefix,
        site=sysconfig.get_path("purelib"),
        code=REPOSITORY,
        config=config,
        name=f"python3.{sys.version_info.minor}",
        command=shlex.join(command),
        mode=tun_mode,
    )
    return subprocess.run(
        office.wire.left.argv("unshare", "--mount", "sh", "-c", script),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_nobody_needs_no_privilege(office: Office) -> None:
    script = f"id -u; grep CapEff /proc/self/status; curl -sS --max-time 20 {WEB}; ping -c1 -W10 {RIGHT.inner4}"
    done = as_nobody(office, office.config(), *CONFINED, "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("65534\nCapEff:\t0000000000000000\nhello from ")
    assert " 1 received" in done.stdout


def test_nobody_may_nest_it(office: Office) -> None:
    python = f"/mnt/python/bin/python3.{sys.version_info.minor}"
    done = as_nobody(office, office.config(), *CONFINED, python, "-m", "wgpy", *CONFINED, "id", "-u")
    assert (done.returncode, done.stdout, done.stderr) == (0, "65534\n", "")


def test_nobody_is_told_when_the_tun_device_is_closed(office: Office) -> None:
    done = as_nobody(office, office.config(), *CONFINED, "true", tun_mode="600")
    assert done.returncode == 125
    assert "chmod 666 /dev/net/tun" in done.stderr


def test_a_clear_message_where_user_namespaces_are_off(office: Office) -> None:
    """The switch is set in a user namespace around the command: the machine keeps its own."""
    inner = shlex.join([*WGPY, "exec", str(office.config()), "--", "true"])
    done = subprocess.run(
        office.wire.left.argv(
            *("unshare", "--user", "--map-root-user", "--mount", "--net"),
            *("sh", "-c", f"echo 0 > /proc/sys/user/max_user_namespaces; exec {inner}"),
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 125
    assert done.stderr == (
        "wgpy exec: user namespaces are switched off here: `sysctl user.max_user_namespaces=10000` as root, "
        "or use `wgpy proxy`\n"
    )


def test_a_taken_port_is_one_line_and_starts_nothing(office: Office) -> None:
    touched = office.wire.lab.folder / "touched"
    office.wire.start("left").configure(port=4500)
    done = office.exec(office.config(more="ListenPort = 4500"), "touch", str(touched))
    assert done.returncode == 125
    assert "4500 is taken" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not touched.exists()
