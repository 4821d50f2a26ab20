"""`daalu-hub`: whatever is wrong with what it was given is one line that names it, with a code; never a traceback."""

from __future__ import annotations

import datetime
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trustme

from hub_server.cli import main
from hub_server.services.releases import Releases
from hub_server.settings import SettingsError, load
from hub_server.tls import Certificate


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with good and bad files."""
    authority, other = trustme.CA(), trustme.CA()
    for name, made in (("hub", authority.issue_cert("hub.example")), ("other", other.issue_cert("other.example"))):
        made.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.crt")
        (tmp_path / f"{name}.key").chmod(0o600)
    (tmp_path / "loose.key").write_bytes((tmp_path / "hub.key").read_bytes())
    (tmp_path / "loose.key").chmod(0o644)
    (tmp_path / "nonsense").write_bytes(b"\xff\x00nonsense")
    (tmp_path / "nonsense").chmod(0o600)
    (tmp_path / "wrong.toml").write_text("lissten = '0.0.0.0:1'\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "zeros").mkdir()
    (tmp_path / "zeros" / "master.key").write_text("00" * 32)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "hub.db").write_bytes(b"no database " * 999)
    (tmp_path / "damaged" / "hub.db").chmod(0o600)
    return tmp_path


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands set logging up for the whole process; other tests read what they log from stdout."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(words)
    # Beside it there may be lines of the log, one JSON object each.
    lines = [line for line in capsys.readouterr().err.splitlines(keepends=True) if not line.startswith('{"')]
    return int(ended.value.code or 0), "".join(lines)


SERVE = ("serve", "--listen", "127.0.0.1:0", "--wireguard-port", "0")
BAD = {
    "another database": (2, "postgresql is not supported", [*SERVE, "--database", "postgresql://a:secret@h/x"]),
    "mysql": (2, "are not supported by this release", [*SERVE, "--database", "mysql+pymysql://a:secret@h/x"]),
    "no address": (2, "sqlite:///PATH", [*SERVE, "--database", "secret"]),
    "in memory": (2, "sqlite:///PATH", [*SERVE, "--database", "sqlite://"]),
    "no certificate": (1, "missing.crt", [*SERVE, "--tls-cert", "missing.crt", "--tls-key", "hub.key"]),
    "no key": (1, "missing.key", [*SERVE, "--tls-cert", "hub.crt", "--tls-key", "missing.key"]),
    "no ca": (1, "missing.pem", [*SERVE, "--tls-cert", "hub.crt", "--tls-key", "hub.key", "--tls-ca", "missing.pem"]),
    "another ca": (1, "tls_ca", [*SERVE, "--tls-cert", "hub.crt", "--tls-key", "hub.key", "--tls-ca", "nonsense"]),
    "another key": (1, "is not the key of", [*SERVE, "--tls-cert", "hub.crt", "--tls-key", "other.key"]),
    "nonsense as key": (1, "nonsense holds no key", [*SERVE, "--tls-cert", "hub.crt", "--tls-key", "nonsense"]),
    "nonsense as chain": (1, "nonsense holds no cert", [*SERVE, "--tls-cert", "nonsense", "--tls-key", "hub.key"]),
    "loose key": (1, "chmod 600 loose.key", [*SERVE, "--tls-cert", "hub.crt", "--tls-key", "loose.key"]),
    "a folder as key": (1, "empty", [*SERVE, "--tls-cert", "hub.crt", "--tls-key", "empty"]),
    "half of a pair": (2, "tls_cert and tls_key", [*SERVE, "--tls-cert", "hub.crt"]),
    "a key of zeros": (1, "no secret", [*SERVE, "--data", "zeros"]),
    "a damaged database": (1, "database is damaged", [*SERVE, "--data", "damaged"]),
    "a file as folder": (1, "hub.key", [*SERVE, "--data", "hub.key"]),
    "a missing file": (2, "missing.toml", [*SERVE, "--config", "missing.toml"]),
    "nonsense as file": (2, "nonsense", [*SERVE, "--config", "nonsense"]),
    "a misspelled key": (2, "did you mean listen?", [*SERVE, "--config", "wrong.toml"]),
    "a port too high": (2, "listen", ["serve", "--listen", "127.0.0.1:99999"]),
    "no host of ours": (1, "listen: 192.0.2.1:0", ["serve", "--listen", "192.0.2.1:0"]),
    "no network": (2, "webhook_allow", [*SERVE, "--webhook-allow", "10.0.0.5/8"]),
    "a network of proxies": (2, "must be addresses", [*SERVE, "--trusted-proxies", "127.0.0.1, 10.0.0.0/8"]),
    "no slug": (2, "must be a slug", [*SERVE, "--tenant", "../x"]),
    "without end": (2, "body_rate", [*SERVE, "--body-rate", "inf"]),
    "port 0 for edges": (2, "no port that can be sent to", [*SERVE, "--wireguard-endpoints", "hub.example:0"]),
    "not a number": (2, "session_idle", [*SERVE, "--session-idle", "soon"]),
    "no e-mail": (2, "is not an e-mail address", ["create-admin", "nobody", "--data", "empty"]),
    "no folder": (1, "missing", ["verify-audit", "--data", "missing"]),
    "no folder to migrate": (1, "nonsense", ["migrate", "--data", "nonsense"]),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.chdir(files)
    expected, part, words = BAD[what]
    code, line = run(capsys, *words)
    assert code == expected
    assert part in line
    assert line.startswith("daalu-hub: ")
    assert line.count("\n") == 1
    assert "secret@" not in line


def test_a_port_that_is_taken_is_named(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, line = run(capsys, "serve", "--listen", address, "--data", str(files / "empty"))
    assert (code, line) == (1, f"daalu-hub: listen: {address}: Address already in use\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("0.0.0.0", 0))
        port = str(udp.getsockname()[1])
        words = ("serve", "--listen", "127.0.0.1:0", "--wireguard-port", port, "--data", str(files / "empty"))
        code, line = run(capsys, *words)
    assert code == 1
    assert port in line
    assert line.splitlines()[-1].startswith("daalu-hub: ")


@pytest.mark.parametrize(
    ("variable", "meant"),
    [("DAALU_HUB_LISTENN", "DAALU_HUB_LISTEN"), ("DAALU_HUB_PUBLICURL", "DAALU_HUB_PUBLIC_URL"),
     ("DAALU_HUB_listen", "DAALU_HUB_LISTEN"), ("DAALU_HUB_QQQ", None)],
)  # fmt: skip
def test_a_mistyped_variable_is_refused_with_the_nearest_name(variable: str, meant: str | None) -> None:
    with pytest.raises(SettingsError) as refused:
        load({}, {variable: "x"})
    assert variable in str(refused.value)
    assert (f"did you mean {meant}?" in str(refused.value)) is (meant is not None)


def test_what_kubernetes_puts_into_every_pod_is_no_setting() -> None:
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTPS", "PORT", "PORT_443_TCP", "PORT_443_TCP_ADDR",
             "PORT_51820_UDP_PROTO")  # fmt: skip
    assert load({}, {f"DAALU_HUB_{name}": "tcp://10.0.0.1:443" for name in names}) == load({}, {"OTHER": "x"})


def test_a_certificate_that_clients_will_refuse_is_told(files: Path) -> None:
    given = Certificate(files / "hub.crt", files / "hub.key", None)
    assert given.warnings("hub.example") == []
    assert given.warnings("HUB.example") == []
    assert given.warnings("hub.example.org") == ["it is for hub.example, and public_url is at hub.example.org"]
    [over] = given.warnings("hub.example", given.leaf().not_valid_after_utc)
    assert over.startswith("it expired on ")
    [early] = given.warnings("hub.example", given.leaf().not_valid_before_utc - datetime.timedelta(seconds=1))
    assert early.startswith("it is not valid before ")
    star = trustme.CA().issue_cert("*.example.com", "10.0.0.1")
    star.cert_chain_pems[0].write_to_path(files / "hub.crt")
    assert given.warnings("a.example.com") == given.warnings("10.0.0.1") == []
    assert len(given.warnings("a.b.example.com")) == len(given.warnings("example.com")) == 1


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b'[{"name": 1}]', b"\xff", b"[" * 100_000])
def test_a_broken_file_of_releases_is_told_once_at_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "releases.json"
    if content is not None:
        path.write_bytes(content)
    with structlog.testing.capture_logs() as lines:
        releases = Releases(path)
        for _ in range(10):
            assert releases.newer_than("1.0.0") is None
    assert [(line["event"], line["path"]) for line in lines] == [("releases cannot be read", str(path))]


def test_without_its_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['pydantic'] = None; sys.argv = ['daalu-hub', 'settings']\n"
    code += "from hub_server.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'wgpy[hub]'" in done.stderr


def test_the_help_says_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.partition("exit codes:")[2].strip().splitlines()] == ["0", "1", "2", "130"]
