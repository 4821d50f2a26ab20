"""The benchmarks that need no privileges, with small inputs: they run, and fill every row they promise."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks import __main__ as entry
from benchmarks import scale
from benchmarks.__main__ import NAMES, build_parser, main
from benchmarks.crowd import make_crowd
from benchmarks.samples import Result


def run(tmp_path: Path, *argv: str) -> Result:
    path = tmp_path / "run.json"
    assert main([*argv, "--json", str(path), "--rounds", "1"]) == 0
    return Result.load(path)


def test_handshakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, "handshake", "--peers", "5", "--count", "3")
    assert len(result.rows) == 11
    for row in result.rows:
        [value] = row.samples["wgpy"]
        assert value is not None
        assert value >= 0
    assert "storm, 5 peers at once" in capsys.readouterr().out


def test_scale_of_engine_and_prefixes(tmp_path: Path) -> None:
    result = run(tmp_path, "scale", "--parts", "engine,prefixes", "--peers", "2", "--prefixes", "50")
    keys = {row.key for row in result.rows}
    assert {"engine/memory/idle/2/tracemalloc", "engine/cpu/2", "prefixes/50/first"} <= keys
    # Of two peers the resident set says nothing.
    assert "engine/memory/idle/2/resident set" not in keys


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no part is called 'weight'"):
        main(["scale", "--parts", "weight"])


def test_a_profile_is_printed_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, "handshake", "--peers", "2", "--count", "1", "--profile")
    assert "tottime" in capsys.readouterr().out
    assert any("profiler ran" in note for note in result.notes)


def test_no_rounds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["crypto", "--rounds", "0"])
    assert "at least 1" in capsys.readouterr().err


def test_everything_is_attempted_even_if_something_cannot_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(entry, "OUTPUT", tmp_path)
    monkeypatch.setattr(
        entry,
        "ALL",
        (
            ("scale", "--parts", "nonsense"),
            ("scale", "--parts", "prefixes", "--prefixes", "10", "--rounds", "1"),
        ),
    )
    assert main(["all"]) == 1
    assert (tmp_path / "scale.json").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        build_parser().parse_args([name, "--help"])
    assert left.value.code == 0
    assert "--rounds" in capsys.readouterr().out


def test_prefixes_are_different_and_the_same_in_every_run() -> None:
    first, second = (scale.make_prefixes(500, random.Random(1)) for _ in range(2))
    assert first == second
    assert len(set(first)) == 500
    assert all(prefix.network % (1 << (32 - prefix.length)) == 0 for prefix in first)


@pytest.mark.parametrize("hub_initiates", [False, True])
def test_a_crowd_is_connected_and_stays_so_on_virtual_time(hub_initiates: bool) -> None:
    crowd = make_crowd(3, hub_initiates=hub_initiates)
    crowd.start()
    crowd.run_until_all_connected()
    began = crowd.now
    crowd.run_for(200.0)
    assert crowd.now - began == pytest.approx(200.0, abs=1.0)
    peers = crowd.hub.statistics().peers.values()
    assert all(peer.has_session and peer.rx_bytes > 0 for peer in peers)
