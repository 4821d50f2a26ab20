"""`wgpy exec`: its command line; what it does needs a TUN device and is in tests/e2e/test_exec.py."""

from __future__ import annotations

from pathlib import Path

import pytest

import wgpy as library
from tests.cli.conftest import Run, check_help, check_wrong_usage
from wgpy.adapters.namespace import _plain_lookups
from wgpy.cli import build_parser


def test_help(wgpy: Run) -> None:
    check_help(wgpy, "exec")


@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_options_of_the_program_are_its_own(dashes: list[str]) -> None:
    options = build_parser().parse_args(["exec", "wg0", *dashes, "curl", "-v", "--help", "--", "x"])
    assert (options.conf, options.program) == ("wg0", "curl")
    assert options.arguments == ["-v", "--help", "--", "x"]


@pytest.mark.parametrize("argv", [["exec"], ["exec", "CONF"], ["exec", "CONF", "--"]])
def test_wrong_usage(wgpy: Run, argv: list[str]) -> None:
    check_wrong_usage(wgpy, *argv, code=125)


def test_a_configuration_that_is_not_there_is_our_failure(wgpy: Run) -> None:
    assert b"No such file" in check_wrong_usage(wgpy, "exec", "nosuch.conf", "--", "true", code=125)


def test_a_configuration_without_a_key_is_refused(wgpy: Run, tmp_path: Path) -> None:
    path = tmp_path / "keyless.conf"
    path.touch(0o600)
    path.write_text(library.InterfaceConfig(listen_port=1).to_ini())
    done = wgpy("exec", str(path), "--", "true")
    assert done.returncode == 125
    assert b"no PrivateKey" in done.stderr


def test_only_files_and_dns_are_asked_for_hosts() -> None:
    before = "# hosts\npasswd: files systemd\n  hosts:  resolve [!UNAVAIL=return] files dns\nnetworks: files\n"
    assert _plain_lookups(before) == "# hosts\npasswd: files systemd\nhosts: files dns\nnetworks: files\n"
