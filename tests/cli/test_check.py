"""`wgpy check`: findings with their places, for people and for programs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from wgpy.cli import main

GOOD = """\
[Interface]
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
ListenPort = 51820
[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 10.0.0.2/32
"""


def check(path: Path, text: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    path.write_text(text)
    code = main(["check", *more, str(path)])
    return code, capsys.readouterr().out


def test_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wg0.conf"
    assert check(path, GOOD, capsys) == (0, f"{path}: no problems found\n")
    assert check(path, GOOD, capsys, "--json") == (0, "[]\n")


def test_errors_are_exit_code_1_and_warnings_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wg0.conf"
    code, out = check(path, GOOD.replace("51820", "nonsense"), capsys)
    assert code == 1
    assert out.startswith(f"{path}:3:14: error: ListenPort: ")
    code, out = check(path, GOOD.replace("AllowedIPs = 10.0.0.2/32\n", ""), capsys)
    assert code == 0
    assert out.startswith(f"{path}:4:1: warning: AllowedIPs: ")


def test_for_programs_it_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = check(tmp_path / "wg0.conf", GOOD.replace("[Peer]", "[Pear]"), capsys, "--json")
    assert code == 1
    (finding,) = json.loads(out)
    assert set(finding) == {"severity", "line", "column", "field", "message"}
    assert (finding["severity"], finding["line"]) == ("error", 4)


def test_from_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert main(["check", "-"]) == 0
    assert capsys.readouterr().out == "standard input: no problems found\n"


def test_what_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, binary = tmp_path / "missing.conf", tmp_path / "binary.conf"
    binary.write_bytes(b"\xff\xfe\x00")
    assert main(["check", str(missing)]) == 1
    assert capsys.readouterr().err == f"wgpy: {missing}: No such file or directory\n"
    assert main(["check", str(binary)]) == 1
    assert capsys.readouterr().out.startswith(f"{binary}:1:1: error: the file is UTF-16")


def test_no_colour_where_nobody_sees_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in check(tmp_path / "wg0.conf", "nonsense", capsys)[1]
