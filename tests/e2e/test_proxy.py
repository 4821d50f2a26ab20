"""`wgpy proxy`, `nc`, `ping` and `fetch` with real programs: curl, ssh, systemd's notification.

left (outer, 192.0.2.1) ═══════ cable ═══════ right (192.0.2.2)
  └─ wgpy proxy: 10.77.0.1, fd00:77::1,         └─ a WireGuard daemon, 10.77.0.2 and fd00:77::2,
     no interface, as an ordinary process          with web, echo and name servers and sshd behind it
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, RIGHT
from tests.e2e.lab import Process, eventually
from tests.e2e.test_exec import Office, as_nobody, open_office, serve

WGPY = (sys.executable, "-m", "wgpy")
WEB = "http://intranet.test:8000/"


@pytest.fixture
def office(wire: Wire) -> Office:
    return open_office(wire)


class Proxy:
    """A proxy at work in the namespace `left`, and its doors."""

    def __init__(
        self, office: Office, *arguments: str, env: dict[str, str] | None = None, config: Path | None = None
    ) -> None:
        self.office = office
        path = config or office.config(allowed="10.77.0.0/24, fd00:77::/64")
        self.process: Process = office.wire.left.spawn(*WGPY, "proxy", str(path), *arguments, env=env)
        eventually("the doors are open", self._is_open)

    def _is_open(self) -> bool:
        assert self.process.is_running, self.process.output
        return bool(re.search(r"^(socks5|http|local|remote|udp) ", self.process.output, re.MULTILINE))

    def at(self, label: str) -> str:
        """ADDRESS:PORT of a door."""
        found = re.search(rf"^{label} (\S+)", self.process.output, re.MULTILINE)
        assert found, self.process.output
        return found.group(1)

    def port(self, label: str) -> str:
        return self.at(label).rpartition(":")[2]

    def curl(self, *arguments: str, check: bool = True) -> str:
        return self.office.wire.left.run("curl", "-sS", "--max-time", "30", *arguments, check=check)


def test_curl_through_socks5_and_http(office: Office) -> None:
    proxy = Proxy(office, "--socks5", "0", "--http", "0")
    assert proxy.at("socks5").startswith("127.0.0.1:")
    for door in (
        ("--proxy", f"socks5h://{proxy.at('socks5')}"),
        ("--proxy", f"http://{proxy.at('http')}"),
        ("--proxy", f"http://{proxy.at('http')}", "--proxytunnel"),
    ):
        assert f"to {LEFT.inner4}" in proxy.curl(*door, "-4", WEB) or f"to {LEFT.inner6}" in proxy.curl(*door, WEB)
        assert proxy.curl(*door, f"http://{RIGHT.inner4}:8000/") == f"hello from {RIGHT.inner4} to {LEFT.inner4}\n"
        assert proxy.curl(*door, "-g", f"http://[{RIGHT.inner6}]:8000/").startswith(f"hello from {RIGHT.inner6} to")
    assert "asked for intranet.test" in office.dns.output


def test_names_are_asked_for_in_the_tunnel_and_nowhere_else(office: Office) -> None:
    """The capture on the cable shows WireGuard only; a name of the host's /etc/hosts is not known."""
    capture = office.wire.lab.capture(office.wire.left, "to-right", "")
    proxy = Proxy(office, "--socks5", "0", "--http", "0")
    socks = f"socks5h://{proxy.at('socks5')}"
    assert proxy.curl("--proxy", socks, WEB).startswith("hello")
    for name in ("localhost", "unknown.test"):
        assert "(4)" in proxy.curl("--proxy", socks, f"http://{name}:8000/", check=False), "host unreachable"
        assert "no such name" in proxy.curl("--proxy", f"http://{proxy.at('http')}", f"http://{name}:8000/")
    capture.stop()
    assert capture.count("udp.port == 51820") > 0
    assert capture.count("not udp.port == 51820 and not arp and not icmpv6") == 0


def test_refusals_say_why(office: Office) -> None:
    proxy = Proxy(office, "--socks5", "0", "--http", "0")
    socks = ("--proxy", f"socks5h://{proxy.at('socks5')}", "-o", "/dev/null", "-w", "%{errormsg}")
    assert "(5)" in proxy.curl(*socks, f"http://{RIGHT.inner4}:1/", check=False), "refused"
    assert "(3)" in proxy.curl(*socks, "http://198.51.100.1/", check=False), "network unreachable"
    http = ("--proxy", f"http://{proxy.at('http')}", "-o", "/dev/null", "-w", "%{http_code}")
    assert proxy.curl(*http, f"http://{RIGHT.inner4}:1/") == "502"


def test_large_transfers(office: Office) -> None:
    """Fifty megabytes each way through SOCKS5."""
    path = office.wire.lab.folder / "large"
    path.write_bytes(os.urandom(1 << 20) * 50)
    proxy = Proxy(office, "--socks5", "0")
    door = ("--proxy", f"socks5h://{proxy.at('socks5')}")
    assert proxy.curl(*door, "--data-binary", f"@{path}", WEB) == f"{50 << 20} octets\n"
    office.wire.right.spawn(
        *(sys.executable, "-m", "http.server", "8001", "--bind", RIGHT.inner4, "--directory", str(path.parent))
    )
    eventually("it listens", lambda: office.wire.right.succeeds("curl", "-sf", f"http://{RIGHT.inner4}:8001/"))
    received = path.with_name("received")
    proxy.curl(*door, "-o", str(received), f"http://{RIGHT.inner4}:8001/large")
    assert hashlib.sha256(received.read_bytes()).digest() == hashlib.sha256(path.read_bytes()).digest()


def test_user_and_password(office: Office) -> None:
    proxy = Proxy(office, "--socks5", "0", "--http", "0", "--user", "me", env={"WGPY_PROXY_PASSWORD": "s3cret"})
    for scheme, label in (("socks5h", "socks5"), ("http", "http")):
        address = proxy.at(label)
        assert proxy.curl("--proxy", f"{scheme}://me:s3cret@{address}", WEB).startswith("hello")
        for wrong in (f"{scheme}://me:wrong@{address}", f"{scheme}://{address}"):
            assert "hello" not in proxy.curl("--proxy", wrong, WEB, check=False)
    assert "s3cret" not in proxy.process.output


def test_loopback_only_unless_asked(office: Office) -> None:
    config = str(office.config(allowed="10.77.0.0/24"))
    done = subprocess.run(
        office.wire.left.argv(*WGPY, "proxy", config, "--socks5", "0.0.0.0:1080"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--user" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    proxy = Proxy(office, "--socks5", f"{LEFT.outer4}:1080", "--user", "me")
    password = re.search(r"the password of me is (\S+)", proxy.process.output)
    assert password, "without a password one is made up"
    out = office.wire.right.run("curl", "-sS", "--proxy", f"socks5h://me:{password[1]}@{LEFT.outer4}:1080", WEB)
    assert out.startswith("hello")


def test_forwards_in_both_directions(office: Office) -> None:
    left, right = office.wire.left, office.wire.right
    serve(left, "web", "127.0.0.1", "8000")
    serve(right, "echo", RIGHT.inner4, "7007")
    proxy = Proxy(
        office,
        *("-L", "0:intranet.test:8000", "-R", "8080:127.0.0.1:8000", "--udp", f"0:{RIGHT.inner4}:7007"),
    )
    assert proxy.curl(f"http://{proxy.at('local')}/").startswith("hello")
    eventually("the far end finds us", lambda: right.succeeds("ping", "-c1", "-W1", LEFT.inner4))
    for address in (LEFT.inner4, f"[{LEFT.inner6}]"):
        out = right.run("curl", "-sSg", "--max-time", "30", f"http://{address}:8080/")
        assert out == "hello from 127.0.0.1 to 127.0.0.1\n"
    with left.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        for payload in (b"datagram", bytes(4000)):
            client.sendto(payload, ("127.0.0.1", int(proxy.port("udp"))))
            assert client.recv(65535) == payload


def test_half_close_survives(office: Office) -> None:
    """The echo server answers only after it has seen our end."""
    serve(office.wire.right, "echo", RIGHT.inner4, "7007")
    proxy = Proxy(office, "-L", f"0:{RIGHT.inner4}:7007")
    with office.wire.left.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(60)
        client.connect(("127.0.0.1", int(proxy.port("local"))))
        client.sendall(b"x" * 1_000_000)
        client.shutdown(socket.SHUT_WR)
        assert len(b"".join(iter(lambda: client.recv(65536), b""))) == 1_000_000


def test_ready_metrics_and_an_orderly_end(office: Office) -> None:
    proxy = Proxy(office, "--socks5", "0", "--ready", "127.0.0.1:8081", "--metrics", "127.0.0.1:8082")
    eventually("it is ready", lambda: proxy.curl("http://127.0.0.1:8081/ready", check=False) == "ready\n")
    assert proxy.curl("--proxy", f"socks5h://{proxy.at('socks5')}", WEB).startswith("hello")
    metrics = proxy.curl("http://127.0.0.1:8082/metrics")
    assert "wgpy_ready 1\n" in metrics
    assert "wgpy_proxy_accepted_total 1\n" in metrics
    assert float(re.search(r"^wgpy_peer_received_bytes_total\{.*\} (\S+)", metrics, re.MULTILINE)[1]) > 0  # type: ignore[index]
    proxy.process.signal(signal.SIGTERM)
    assert proxy.process.wait() == 0


def test_sigterm_lets_a_transfer_finish(office: Office) -> None:
    path = office.wire.lab.folder / "large"
    path.write_bytes(bytes(3 << 20))
    proxy = Proxy(office, "--socks5", "0", "--metrics", "127.0.0.1:8082", "--grace", "60")
    upload = office.wire.left.spawn(
        *("curl", "-sS", "--limit-rate", "1500k", "--data-binary", f"@{path}"),
        *("--proxy", f"socks5h://{proxy.at('socks5')}", WEB),
    )
    eventually("it is on its way", lambda: "wgpy_proxy_connections 1" in proxy.curl("http://127.0.0.1:8082/metrics"))
    proxy.process.signal(signal.SIGTERM)
    assert upload.wait() == 0
    assert upload.output == f"{3 << 20} octets\n"
    assert proxy.process.wait() == 0


def test_a_second_signal_does_not_wait(office: Office) -> None:
    serve(office.wire.right, "echo", RIGHT.inner4, "7007")
    proxy = Proxy(office, "-L", f"0:{RIGHT.inner4}:7007", "--grace", "600", "--metrics", "127.0.0.1:8082")
    with office.wire.left.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.connect(("127.0.0.1", int(proxy.port("local"))))
        eventually("it is open", lambda: "wgpy_proxy_connections 1" in proxy.curl("http://127.0.0.1:8082/metrics"))
        proxy.process.signal(signal.SIGINT)
        eventually("it drains", lambda: not office.wire.left.succeeds("curl", "-s", f"http://{proxy.at('local')}/"))
        proxy.process.signal(signal.SIGINT)
        assert proxy.process.wait() == 1


def test_systemd_is_told(office: Office) -> None:
    path = office.wire.lab.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        proxy = Proxy(office, "--socks5", "0", env={"NOTIFY_SOCKET": str(path)})
        assert manager.recv(1000).startswith(b"READY=1\nSTATUS=socks5 127.0.0.1:")
        proxy.process.signal(signal.SIGTERM)
        assert manager.recv(1000).startswith(b"STOPPING=1\n")
        assert proxy.process.wait() == 0


def test_nobody_needs_no_privilege_and_no_tun_device(office: Office) -> None:
    done = as_nobody(office, office.config(allowed="10.77.0.0/24"), "fetch", "/mnt/office.conf", WEB, tun_mode="600")
    assert (done.returncode, done.stdout) == (0, f"hello from {RIGHT.inner4} to {LEFT.inner4}\n")


@pytest.mark.needs("go")
def test_against_wireguard_go(wire: Wire) -> None:
    proxy = Proxy(open_office(wire, "wireguard-go"), "--socks5", "0")
    assert proxy.curl("--proxy", f"socks5h://{proxy.at('socks5')}", WEB).startswith("hello")


# --- nc, ping, fetch -------------------------------------------------------------------------------------------------


def wgpy(office: Office, *argv: str, text_in: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        office.wire.left.argv(*WGPY, *argv), input=text_in, capture_output=True, timeout=60, check=False
    )


def test_nc_joins_standard_streams(office: Office) -> None:
    serve(office.wire.right, "echo", RIGHT.inner4, "7007")
    config = str(office.config(allowed="10.77.0.0/24"))
    eventually("it listens", lambda: wgpy(office, "nc", "-z", config, RIGHT.inner4, "7007").returncode == 0)
    done = wgpy(office, "nc", config, "intranet.test", "7007", text_in=bytes(range(256)) * 8000)
    assert done.stdout == bytes(range(256)) * 8000
    assert done.returncode == 0
    refused = wgpy(office, "nc", config, "intranet.test", "1")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr.startswith(b"wgpy: intranet.test port 1: ")
    assert len(refused.stderr.splitlines()) == 1
    assert wgpy(office, "nc", config, "unknown.test", "1").returncode == 1


def test_ping_says_whether_the_tunnel_works(office: Office) -> None:
    config = str(office.config(allowed="10.77.0.0/24"))
    done = wgpy(office, "ping", "-c", "2", "-i", "0.1", config, RIGHT.inner4)
    assert done.returncode == 0
    assert re.search(rb"2 sent, 2 received, 0% lost", done.stdout)
    assert len(re.findall(rb"time=\d+\.\d+ ms", done.stdout)) == 2
    nobody = wgpy(office, "ping", "-c", "1", "-W", "0.2", config, "10.77.0.99")
    assert nobody.returncode == 1
    assert b"no answer" in nobody.stdout
    elsewhere = wgpy(office, "ping", "-c", "1", config, "198.51.100.1")
    assert elsewhere.returncode == 1
    assert b"unreachable" in elsewhere.stdout


def test_fetch_gets_a_url(office: Office) -> None:
    config = str(office.config(allowed="10.77.0.0/24"))
    done = wgpy(office, "fetch", config, WEB)
    assert (done.returncode, done.stdout) == (0, f"hello from {RIGHT.inner4} to {LEFT.inner4}\n".encode())
    headed = wgpy(office, "fetch", "-i", config, WEB)
    assert headed.stdout.startswith(b"HTTP/1.1 200 OK\n")
    for url in ("http://unknown.test/", f"http://{RIGHT.inner4}:1/"):
        failed = wgpy(office, "fetch", config, url)
        assert failed.returncode == 1
        assert len(failed.stderr.splitlines()) == 1


def test_ssh_by_proxy_command(office: Office) -> None:
    """A real sshd behind the tunnel, reached by `ssh -o ProxyCommand='wgpy nc ...'`, with a large answer."""
    folder = office.wire.lab.folder
    lab = office.wire.lab
    for name in ("host", "user"):
        lab.host("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = office.wire.right.spawn(
        *("/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "2222", "-h", str(folder / "host")),
        *("-o", f"ListenAddress={RIGHT.inner4}", "-o", f"AuthorizedKeysFile={folder / 'authorized'}"),
        *("-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none", "-o", "PermitRootLogin=yes"),
    )
    eventually("sshd listens", lambda: "Server listening" in sshd.output)
    config = office.config(allowed="10.77.0.0/24")
    command = shlex.join([*WGPY, "nc", str(config), "%h", "%p"])
    done = subprocess.run(
        office.wire.left.argv(
            *("ssh", "-F", "/dev/null", "-i", str(folder / "user"), "-p", "2222", "-o", f"ProxyCommand={command}"),
            *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "BatchMode=yes"),
            *("root@intranet.test", "echo $SSH_CONNECTION; head -c 3000000 /dev/zero | wc -c; cat; exit 3"),
        ),
        input="through\n",
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[0] == LEFT.inner4
    assert lines[1:] == ["3000000", "through"]


def test_conf_may_come_from_the_environment(office: Office) -> None:
    config = str(office.config(allowed="10.77.0.0/24"))
    done = subprocess.run(
        office.wire.left.argv("env", f"WGPY_CONF={config}", *WGPY, "fetch", WEB),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("hello")
