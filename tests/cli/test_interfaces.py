"""`wgpy up` and `down`, as far as they go without a kernel; the rest is in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgpy.cli import conf as conf_module
from wgpy.cli import daemon_main, interfaces, main
from wgpy.config import InterfaceConfig

GOOD = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool, InterfaceConfig | None]]:
    calls: list[tuple[str, bool, InterfaceConfig | None]] = []

    def hold(name: str, *, foreground: bool, config: InterfaceConfig | None = None) -> int:
        calls.append((name, foreground, config))
        return 0

    monkeypatch.setattr(interfaces, "hold", hold)
    return calls


def conf(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_file_is_read_and_its_interface_held(
    tmp_path: Path, held: list[tuple[str, bool, InterfaceConfig | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", conf(tmp_path / "office.conf", GOOD)]) == 0
    assert main(["up", "-f", conf(tmp_path / "office.conf", GOOD)]) == 0
    assert [(name, foreground) for name, foreground, _ in held] == [("office", False), ("office", True)]
    assert held[0][2] == InterfaceConfig.from_ini(GOOD)
    assert capsys.readouterr().err == ""


def test_a_name_means_a_file_in_etc(
    tmp_path: Path, held: list[tuple[str, bool, InterfaceConfig | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conf_module, "_CONFIGURATIONS", tmp_path)
    conf(tmp_path / "wg7.conf", GOOD)
    assert main(["up", "wg7"]) == 0
    assert held[0][0] == "wg7"


def test_what_is_not_acted_upon_and_what_others_can_read_is_said(
    tmp_path: Path, held: list[tuple[str, bool, InterfaceConfig | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", conf(tmp_path / "a.conf", GOOD + "DNS = 1.1.1.1\nPostUp = true\n", 0o644)]) == 0
    err = capsys.readouterr().err
    assert "chmod 600" in err
    assert "DNS, PostUp not acted upon" in err


@pytest.mark.parametrize(
    ("text", "words"), [("[Interface]\n", "has no PrivateKey"), ("nonsense", "wgpy check"), (None, "No such file")]
)
def test_a_file_that_will_not_do_is_one_line(
    tmp_path: Path,
    held: list[tuple[str, bool, InterfaceConfig | None]],
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    words: str,
) -> None:
    path = tmp_path / "a.conf"
    if text is not None:
        conf(path, text)
    assert main(["up", str(path)]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not held


def test_down_of_what_is_not_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interfaces, "_SOCKETS", tmp_path)
    assert main(["down", "wg9"]) == 1
    assert "no userspace interface wg9 is running" in capsys.readouterr().err


def test_the_daemon_wants_one_name(
    held: list[tuple[str, bool, InterfaceConfig | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert daemon_main(["--foreground", "wg0"]) == 0
    assert held == [("wg0", True, None)]
    for words in ([], ["a", "b"], ["--nonsense", "wg0"]):
        with pytest.raises(SystemExit) as ended:
            daemon_main(words)
        assert ended.value.code == 1
    with pytest.raises(SystemExit) as ended:
        daemon_main(["--version"])
    assert ended.value.code == 0
    assert "wireguard-py" in capsys.readouterr().out
