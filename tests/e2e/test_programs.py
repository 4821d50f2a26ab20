"""Programs that know nothing of wgpy, at both ends of a tunnel whose near end is its own TCP/IP stack.

left (outer, 192.0.2.1) ═══════ cable ═══════ right (192.0.2.2)
  └─ wgpy proxy or exec: 10.77.0.1              └─ a WireGuard daemon, 10.77.0.2, with nginx, iperf3, sshd, redis,
     curl, iperf3, ssh, redis-cli, psql,           PostgreSQL and a TLS 1.3 server of OpenSSL behind it
     chromium
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, RIGHT
from tests.e2e.lab import eventually
from tests.e2e.test_exec import Office, open_office
from tests.e2e.test_proxy import WGPY, Proxy
from tests.machine import find_program

TUNNEL = "10.77.0.0/24, fd00:77::/64"
MEGABYTE = 1 << 20


@pytest.fixture
def office(wire: Wire) -> Office:
    return open_office(wire)


def required(*programs: str) -> None:
    """Skip where one of them is absent."""
    folders = f"{os.environ['PATH']}:/usr/sbin:/usr/lib/postgresql/15/bin:/usr/lib/postgresql/16/bin"
    for program in programs:
        if shutil.which(program, path=folders) is None:
            pytest.skip(f"no {program} in PATH")


# --- iperf3 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="one stream"),
        pytest.param(("-R",), id="one stream back"),
        pytest.param(("-P", "8"), id="eight streams"),
        pytest.param(("-P", "8", "-R"), id="eight streams back"),
        pytest.param(("-u", "-b", "2M", "-l", "1200"), id="datagrams"),
        pytest.param(("-u", "-b", "2M", "-l", "1200", "-R"), id="datagrams back"),
    ],
)
def test_iperf3_as_client(office: Office, arguments: tuple[str, ...]) -> None:
    """Its control connection and its streams leave by forwards, TCP and UDP, of one port."""
    required("iperf3")
    server = office.wire.right.spawn("iperf3", "-s", "-B", RIGHT.inner4, "-p", "5201", "--forceflush")
    eventually("it listens", lambda: "listening" in server.output)
    forward = f"127.0.0.1:5201:{RIGHT.inner4}:5201"
    Proxy(office, "-L", forward, "--udp", forward)
    done = office.wire.left.run("iperf3", "-c", "127.0.0.1", "-p", "5201", "-t", "2", "-J", *arguments)
    ends = json.loads(done)["end"]
    received = ends["sum"] if "-u" in arguments else ends["sum_received"]
    if "-u" in arguments:
        assert received["packets"] > 100
        assert received["lost_percent"] < 50
    else:
        assert received["bytes"] > MEGABYTE


@pytest.mark.parametrize("arguments", [(), ("-R",)], ids=["to us", "from us"])
def test_iperf3_as_server(office: Office, arguments: tuple[str, ...]) -> None:
    """The far end dials the address of the tunnel, where a forward leads out to a server on the near end."""
    required("iperf3")
    server = office.wire.left.spawn("iperf3", "-s", "-B", "127.0.0.1", "-p", "5201", "--forceflush")
    eventually("it listens", lambda: "listening" in server.output)
    Proxy(office, "-R", "5201:127.0.0.1:5201")
    eventually("the far end finds us", lambda: office.wire.right.succeeds("ping", "-c1", "-W1", LEFT.inner4))
    done = office.wire.right.run("iperf3", "-c", LEFT.inner4, "-p", "5201", "-t", "2", "-J", *arguments)
    assert json.loads(done)["end"]["sum_received"]["bytes"] > MEGABYTE


# --- nginx and curl --------------------------------------------------------------------------------------------------


def test_nginx_with_curl(office: Office) -> None:
    """A file of 100 MB, and 2,000 requests over connections that are kept."""
    required("nginx", "curl")
    folder = office.wire.lab.folder
    www = folder / "www"
    www.mkdir()
    (www / "large").write_bytes(os.urandom(MEGABYTE) * 100)
    (www / "small").write_text("a small file\n")
    settings = folder / "nginx.conf"
    settings.write_text(
        f"user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log; daemon off;\n"
        f"events {{ }} http {{ access_log off; keepalive_requests 100000; client_body_temp_path {folder}/body;\n"
        f"server {{ listen {RIGHT.inner4}:8080; root {www}; }} }}\n"
    )
    office.wire.right.spawn("/usr/sbin/nginx", "-c", str(settings), "-p", str(folder))
    eventually("it listens", lambda: office.wire.right.succeeds("curl", "-sf", f"http://{RIGHT.inner4}:8080/small"))
    proxy = Proxy(office, "--socks5", "0")
    door = ("--proxy", f"socks5h://{proxy.at('socks5')}")
    received = folder / "received"
    proxy.curl(*door, "-f", "--max-time", "120", "-o", str(received), f"http://{RIGHT.inner4}:8080/large")
    assert hashlib.sha256(received.read_bytes()).digest() == hashlib.sha256((www / "large").read_bytes()).digest()
    out = proxy.curl(*door, "-f", "--max-time", "120", f"http://{RIGHT.inner4}:8080/small?[1-2000]")
    assert out == "a small file\n" * 2000


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_a_tls_server(office: Office) -> None:
    """OpenSSL's server with TLS 1.3 only; curl verifies its certificate and its name."""
    required("openssl", "curl")
    folder = office.wire.lab.folder
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    office.wire.lab.host(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=intranet.test"),
        *("-addext", "subjectAltName=DNS:intranet.test"),
    )
    office.wire.right.spawn(
        *("openssl", "s_server", "-accept", f"{RIGHT.inner4}:8443", "-tls1_3", "-www", "-quiet"),
        *("-key", str(key), "-cert", str(certificate)),
    )
    url = f"https://{RIGHT.inner4}:8443/"
    eventually("it listens", lambda: office.wire.right.succeeds("curl", "-skf", "-o", "/dev/null", url))
    proxy = Proxy(office, "--socks5", "0")
    page = proxy.curl(
        *("--proxy", f"socks5h://{proxy.at('socks5')}", "--cacert", str(certificate), "--tlsv1.3", "-4"),
        "https://intranet.test:8443/",
    )
    assert "TLSv1.3" in page


# --- openssh ---------------------------------------------------------------------------------------------------------


def test_scp_with_new_keys_on_the_way(office: Office) -> None:
    """Twenty megabytes through `ssh -o ProxyCommand`, with new session keys after every megabyte, each way."""
    required("ssh", "sshd", "ssh-keygen")
    folder = office.wire.lab.folder
    for name in ("host", "user"):
        office.wire.lab.host("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = office.wire.right.spawn(
        *("/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "2222", "-h", str(folder / "host")),
        *("-o", f"ListenAddress={RIGHT.inner4}", "-o", f"AuthorizedKeysFile={folder / 'authorized'}"),
        *("-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none", "-o", "PermitRootLogin=yes"),
        *("-o", "Subsystem=sftp internal-sftp", "-o", "RekeyLimit=1M"),
    )
    eventually("sshd listens", lambda: "Server listening" in sshd.output)
    command = shlex.join([*WGPY, "nc", str(office.config(allowed=TUNNEL)), "%h", "%p"])
    options = (
        *("-F", "/dev/null", "-i", str(folder / "user"), "-P", "2222", "-o", f"ProxyCommand={command}"),
        *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "BatchMode=yes"),
        *("-o", "RekeyLimit=1M"),
    )
    sent, there, back = folder / "sent", folder / "there", folder / "back"
    sent.write_bytes(os.urandom(MEGABYTE) * 20)
    office.wire.left.run("scp", "-q", *options, str(sent), f"root@intranet.test:{there}")
    office.wire.left.run("scp", "-q", *options, f"root@intranet.test:{there}", str(back))
    assert hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(sent.read_bytes()).digest()


# --- databases -------------------------------------------------------------------------------------------------------


def test_redis(office: Office) -> None:
    """Ten thousand commands in one pipeline, through a forward; and one by one from inside `wgpy exec`."""
    required("redis-server", "redis-cli")
    office.wire.right.spawn(
        *("redis-server", "--bind", RIGHT.inner4, "--port", "6379", "--protected-mode", "no", "--save", ""),
        *("--dir", str(office.wire.lab.folder)),
    )
    far = ("redis-cli", "-h", RIGHT.inner4)
    eventually("it listens", lambda: office.wire.right.succeeds(*far, "ping"))
    Proxy(office, "-L", f"127.0.0.1:6380:{RIGHT.inner4}:6379")
    commands = "".join(f"SET key{number} {'x' * 100}{number}\r\n" for number in range(10_000))
    out = office.wire.left.run("redis-cli", "-p", "6380", "--pipe", text_in=commands)
    assert "errors: 0, replies: 10000" in out
    assert office.wire.left.run("redis-cli", "-p", "6380", "get", "key9999") == f"{'x' * 100}9999\n"
    done = office.exec(office.config(allowed=TUNNEL), *far, "dbsize")
    assert done.stdout.strip().endswith("10000")


def test_postgresql(office: Office) -> None:
    """psql copies a table of 100,000 rows there and back, by name, from inside `wgpy exec`."""
    required("postgres", "initdb", "psql", "setpriv")
    folder = office.wire.lab.folder / "postgresql"
    folder.mkdir()
    shutil.chown(folder, 65534, 65534)
    # Its owner must reach it, and it must not be root.
    held = f"/tmp/wgpy-{os.getpid()}"
    binaries = "/usr/lib/postgresql/15/bin:/usr/lib/postgresql/16/bin"
    script = (
        f"export PATH=$PATH:{binaries}; mkdir -p {held}; mount --bind {folder} {held}; cd {held}\n"
        "run='setpriv --reuid 65534 --regid 65534 --clear-groups'\n"
        f"$run initdb -U me -A trust -D {held}/data >/dev/null\n"
        f"echo 'host all all {LEFT.inner4}/32 trust' >> {held}/data/pg_hba.conf\n"
        f"exec $run postgres -D {held}/data -k {held} -h {RIGHT.inner4} -p 5432 -c fsync=off\n"
    )
    try:
        server = office.wire.right.spawn("unshare", "--mount", "sh", "-ec", script)
        eventually("it listens", lambda: "ready to accept connections" in server.output)
        table = "".join(f"{number}\t{hashlib.md5(str(number).encode()).hexdigest()}\n" for number in range(100_000))
        psql = ("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "intranet.test", "-U", "me", "-d", "postgres")
        config = office.config(allowed=TUNNEL)
        made = office.exec(
            config, *psql, "-c", "CREATE TABLE t (a int, b text)", "-c", "COPY t FROM STDIN", text_in=table
        )
        assert (made.returncode, made.stderr) == (0, "")
        done = office.exec(config, *psql, "-c", "COPY (SELECT * FROM t ORDER BY a) TO STDOUT")
        assert done.stdout == table
    finally:
        shutil.rmtree(held, ignore_errors=True)


# --- a browser -------------------------------------------------------------------------------------------------------


@pytest.mark.needs("chromium")
def test_chromium_through_socks5(office: Office) -> None:
    """The page is found by a name that only the tunnel knows, and shown."""
    program = find_program("chromium")
    assert program is not None
    proxy = Proxy(office, "--socks5", "0")
    home = office.wire.lab.folder / "home"
    home.mkdir()
    done = subprocess.run(
        office.wire.left.argv(
            *("env", f"HOME={home}", program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-dev-shm-usage", f"--user-data-dir={home}/data", "--disable-background-networking"),
            *(f"--proxy-server=socks5://{proxy.at('socks5')}", "--timeout=30000", "--dump-dom"),
            "http://intranet.test:8000/",
        ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "hello from " in done.stdout, done.stderr[-1000:]
    assert f" to {LEFT.inner4}" in done.stdout or f" to {LEFT.inner6}" in done.stdout
    assert "asked for intranet.test" in office.dns.output


# --- without any privilege -------------------------------------------------------------------------------------------

BARE = """
set -e
mount -t tmpfs none /mnt
mkdir /mnt/python /mnt/site /mnt/code
mount --bind {python} /mnt/python
mount --bind {site} /mnt/site
mount --bind {code} /mnt/code
install -m 600 -o 65534 -g 65534 {config} /mnt/office.conf
touch /mnt/trace && chown 65534:65534 /mnt/trace
mkdir /mnt/none && mount --bind /mnt/none /dev/net
mount -o remount,bind,ro / || mount -o remount,ro /
for at in /tmp /var /run /root /home; do test -d $at && mount --bind -o ro $at $at && mount -o remount,bind,ro $at; done
cd /
setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \\
    env PYTHONPATH=/mnt/code:/mnt/site LD_LIBRARY_PATH=/mnt/python/lib HOME=/ PYTHONDONTWRITEBYTECODE=1 \\
    strace -f -qq -o /mnt/trace -e trace=%file,%network,ioctl,capset,setns,unshare,mount,ptrace,bpf \\
    sh -c 'touch /tmp/x /var/x /x 2>/dev/null; grep CapEff /proc/self/status; ls /dev/net; \\
        printf "GET / HTTP/1.0\\r\\n\\r\\n" | /mnt/python/bin/{name} -m wgpy nc /mnt/office.conf intranet.test 8000'
cat /mnt/trace >&2
"""


# Datagrams over UDP, and news of addresses and routes, which anybody may ask for; compared as a whole.
ASKED = re.compile(
    r" socket\((AF_INET6?, SOCK_DGRAM(\|SOCK_(CLOEXEC|NONBLOCK))*, IPPROTO_(IP|UDP)"
    r"|AF_NETLINK, SOCK_RAW(\|SOCK_(CLOEXEC|NONBLOCK))*, NETLINK_ROUTE)(\)| <unfinished)"
)


def test_nobody_on_a_read_only_root_asks_the_kernel_for_udp_and_news_of_routes_and_nothing_else(office: Office) -> None:
    """User 65534 without capabilities, no /dev/net/tun, nothing writable; what it asks of the kernel is looked at.

    Netlink is asked for news and for the way to a peer, and to change nothing.
    """
    required("strace", "setpriv")
    script = BARE.format(
        python=sys.base_prefix,
        site=Path(pytest.__file__).parent.parent,
        code=Path(__file__).resolve().parents[2],
        config=office.config(allowed=TUNNEL),
        name=f"python3.{sys.version_info.minor}",
    )
    done = subprocess.run(
        office.wire.left.argv("unshare", "--mount", "sh", "-c", script + "\n"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    capabilities, *_, answer = done.stdout.splitlines()
    assert capabilities.split() == ["CapEff:", "0000000000000000"]
    assert answer.startswith("hello from ")
    calls = done.stderr.splitlines()
    sockets = [call for call in calls if re.search(r" socket\(", call)]
    assert sockets
    assert all(ASKED.search(call) for call in sockets), sockets
    assert not [call for call in calls if re.search(r" send\w*\(.*nlmsg_type=RTM_(?!GET)", call)], calls
    written = [
        call
        for call in calls
        if re.search(r"open(at)?\(.*O_(WRONLY|RDWR|CREAT)", call) and not call.endswith(")") and '"/dev/' not in call
    ]
    assert all(re.search(r"= -1 E(ROFS|ACCES|NOENT|PERM)", call) for call in written), written
    for word in ("/dev/net/tun", "TUNSETIFF", "AF_PACKET", "capset(", "unshare(", "setns("):
        assert not [call for call in calls if word in call], word
