"""Command lines of every command: hostile arguments are one line on standard error, and no traceback."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from wgpy.cli import build_parser, main
from wgpy.keys import PrivateKey

KEY = PrivateKey(bytes(range(32)))
NUMBERS = [
    "nan",
    "inf",
    "-1",
    "1e999",
    "0x5",
    "1_0",
    "\u0665",
    " 5",
    "5 ",
    "+5",
    "",
    "9" * 5000,
    "--",
    "1.5.5",
    "\udcff",
    "-inf",
]
COMMANDS = (
    "ping", "nc", "fetch", "proxy", "exec", "up", "down", "check", "show", "capture", "keylog", "genkey", "pubkey",
)  # fmt: skip
# Every option that takes a number, with what may stand around it.
NUMERIC = [
    ["ping", "-c", None, "x.conf", "10.0.0.1"],
    ["ping", "x.conf", "-i", None, "10.0.0.1"],
    ["ping", "x.conf", "10.0.0.1", "-s", None],
    ["ping", "-W", None, "x.conf", "10.0.0.1"],
    ["nc", "-w", None, "x.conf", "h", "1"],
    ["nc", "x.conf", "h", None],
    ["fetch", "-m", None, "x.conf", "http://h/"],
    ["proxy", "x.conf", "--socks5", "0", "--connections", None],
    ["proxy", "x.conf", "--socks5", "0", "--idle", None],
    ["proxy", "x.conf", "--socks5", "0", "--grace", None],
    ["proxy", "x.conf", "--socks5", None],
    ["proxy", "x.conf", "-L", f"{None}:h:1"],
    ["capture", "lo", "-", "--count", None],
    ["capture", "lo", "-", "--seconds", None],
    ["show", "--interval", None],
]  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], argv: list[str]) -> tuple[int, str]:
    """Exit code and standard error; whatever else is raised fails the test."""
    try:
        code = main(argv)
    except SystemExit as end:
        code = int(str(end.code))
    return code, capsys.readouterr().err


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("argv", NUMERIC, ids=lambda argv: " ".join(map(str, argv)))
def test_what_is_no_number_is_refused(argv: list[str | None], number: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, [number if word is None else word.replace("None", number) for word in argv])
    assert code == 1
    assert re.fullmatch(r"wgpy[^\n]{1,400}\n", said), said


@pytest.mark.parametrize(
    "argv", [["ping", "-c", "1"], ["ping", "-W", "0"], ["proxy", "--connections", "0"], ["ping", "-s", "65508"]]
)
def test_numbers_have_bounds(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(
        capsys, [argv[0], "nowhere.conf", *argv[1:], *(["--socks5", "0"] if argv[0] == "proxy" else ["h"])]
    )
    assert (code, "must be a number" in said) == (1, argv != ["ping", "-c", "1"])


@pytest.mark.parametrize(
    "argv",
    [
        ["ping", "office.conf", "-c", "1", "h"],
        ["ping", "office.conf", "h", "-c", "1"],
        ["ping", "-c", "1", "office.conf", "h"],
        ["nc", "office.conf", "-z", "h", "22"],
        ["nc", "office.conf", "h", "-w", "3", "22"],
        ["fetch", "office.conf", "-i", "http://h/"],
        ["fetch", "office.conf", "http://h/", "-i"],
        ["proxy", "office.conf", "--socks5", "0"],
        ["proxy", "--socks5", "0", "office.conf"],
        ["exec", "office.conf", "program", "-x"],
    ],
)
def test_conf_may_stand_before_options_and_behind_them(argv: list[str]) -> None:
    assert build_parser().parse_args(argv).conf == "office.conf"


def test_conf_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    options = build_parser().parse_args(["ping", "-c", "1", "h"])
    assert (options.conf, options.host, options.count) == (None, "h", 1)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_key_among_the_arguments_is_not_shown(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = KEY.to_base64()
    for argv in (
        [command, key, "--wrong"],
        [command, f"--{key}"],
        [command, f"--count={key}"],
        [command, key, key, key, key, key],
    ):
        code, said = run(capsys, argv)
        assert (code != 0, key[:12] in said) == (True, False)


def test_no_arguments_end_in_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words of the command lines, shuffled, with files that hold nothing; the seed is the number of the round."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WGPY_CONF", raising=False)
    (tmp_path / "empty.conf").touch(0o600)
    (tmp_path / "binary.conf").write_bytes(bytes(range(256)))
    (tmp_path / "folder.conf").mkdir()
    commands = [
        "ping",
        "nc",
        "fetch",
        "proxy",
        "exec",
        "up",
        "down",
        "check",
        "show",
        "capture",
        "keylog",
        "nonsense",
        "",
    ]
    words = [
        *NUMBERS, "empty.conf", "binary.conf", "folder.conf", "nosuch.conf", "-", "--help", "-c", "-s", "-W", "-i",
        "-z",
        "--socks5", "--http", "-L", "1:[::1:2", "[::1]:x", "http://h:99999/", "http://u:p@h/", "http://h /",
        "http://\u00e9/",
        "ftp://h/", "--json", "--into", "--output", "x" * 300, "a/b", "\0", "--idle", "--user", "é", "#", "%s", "{0}",
    ]  # fmt: skip
    for seed in range(400):
        source = random.Random(seed)
        argv = [source.choice(commands), *source.choices(words, k=source.randrange(6))]
        # What would wait for somebody: packets, a terminal, a stop.
        if argv[0] == "capture" or "-" in argv[1:]:
            continue
        code, said = run(capsys, argv)
        assert code in (0, 1, 125, 126, 127), (argv, code, said)
        assert "Traceback" not in said, argv
