"""`wgpy fetch`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.farend import AUTHORITY, ODD
from tests.cli.conftest import Run, check_help, check_wrong_usage


def test_help(wgpy: Run) -> None:
    check_help(wgpy, "fetch")


def test_a_page_by_name_whatever_proxies_the_environment_names(wgpy: Run) -> None:
    done = wgpy("fetch", "CONF", "http://office.test/path", http_proxy="http://127.0.0.1:9")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"GET /path 0", b"")


def test_redirects_are_followed(wgpy: Run) -> None:
    assert wgpy("fetch", "CONF", "http://office.test/redirect").stdout == b"GET /found 0"


def test_status_and_fields(wgpy: Run) -> None:
    done = wgpy("fetch", "-i", "CONF", "http://[fd00::2]/")
    assert done.stdout.startswith(b"HTTP/1.1 200 OK\nContent-Length: 7\n")
    assert done.stdout.endswith(b"\n\nGET / 0")


def test_into_a_file(wgpy: Run, tmp_path: Path) -> None:
    done = wgpy("fetch", "-o", str(tmp_path / "page"), "CONF", "http://office.test/")
    assert done.stdout == b""
    assert (tmp_path / "page").read_bytes() == b"GET / 0"


def test_tls_is_checked(wgpy: Run, tmp_path: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    url = "https://office.test/"
    assert wgpy("fetch", "CONF", url, SSL_CERT_FILE=str(tmp_path / "ca.pem")).stdout == b"GET / 0"
    assert b"certificate" in check_wrong_usage(wgpy, "fetch", "CONF", url)
    assert wgpy("fetch", "--insecure", "CONF", url).stdout == b"GET / 0"


def test_what_the_server_refuses_is_22(wgpy: Run) -> None:
    done = wgpy("fetch", "CONF", "http://office.test/missing")
    assert (done.returncode, done.stdout) == (22, b"GET /missing 0")
    assert b"404 Not Found" in done.stderr


def test_an_answer_that_ends_early_is_an_error(wgpy: Run) -> None:
    done = wgpy("fetch", "CONF", "http://office.test/close")
    assert done.returncode == 1
    assert b"1000 octets early" in done.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://10.0.0.2:1/", b"refused"),
        ("http://localhost/", b"localhost"),
        ("ftp://office.test/", b"http://"),
        ("office.test", b"http://"),
        ("http://10.0.0.2:11/", b"timed out"),
    ],
)
def test_errors_are_one_line(wgpy: Run, url: str, words: bytes) -> None:
    assert words in check_wrong_usage(wgpy, "fetch", "-m", "0.5", "CONF", url)


@pytest.mark.parametrize("path", ODD)
def test_an_answer_that_is_none_is_one_line(wgpy: Run, path: bytes) -> None:
    done = wgpy("fetch", "CONF", f"http://office.test{path.decode()}")
    assert done.returncode in (1, 22)
    assert done.stdout in (b"", b"whole")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert b"office.test" in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "http://h:99999/",
        "http://h:x/",
        "http://u:p@h/",
        "http://h/a b",
        "http://h/\u00e9",
        "http://[::1",
        "http://",
        "h",
        "http://h:0/",
    ],
)
def test_a_url_that_is_none_says_how_to_mend_it(wgpy: Run, url: str) -> None:
    said = check_wrong_usage(wgpy, "fetch", "CONF", url)
    assert b"p@" not in said


@pytest.mark.parametrize("field", ["X", "a b: c", "A: b\r\nC: d", "A: \u2028", ": x"])
def test_a_header_that_is_none_is_refused_and_not_shown(wgpy: Run, field: str) -> None:
    assert b"\\r" not in check_wrong_usage(wgpy, "fetch", "-H", field, "CONF", "http://h/")
