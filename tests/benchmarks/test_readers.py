"""What other programs print, and what we make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import contenders
from benchmarks.kernel import busy_seconds
from benchmarks.load import LoadFailed, percentile, read_flow
from benchmarks.long import slope
from benchmarks.samples import Result
from benchmarks.steps import Step, read_profile
from benchmarks.tunnel import find_all, rotated


def report(protocol: str, end: dict[str, Any], size: int = 131072) -> dict[str, Any]:
    return {"start": {"test_start": {"protocol": protocol, "blksize": size}}, "end": end}


def test_tcp_counts_what_was_received() -> None:
    end = {"sum_sent": {"bytes": 3e9, "seconds": 2}, "sum_received": {"bytes": 2_000_000_000, "seconds": 2.0}}
    flow = read_flow(report("TCP", end), cpu=10.0)
    assert flow.gigabits_per_second == 8.0
    assert flow.cpu_per_gigabyte == 5.0
    assert flow.cpu_per_packet_us is None


def test_udp_counts_what_arrived_not_what_was_sent() -> None:
    flow = read_flow(report("UDP", {"sum": {"packets": 1000, "lost_packets": 400, "seconds": 2.0}}, 64), cpu=0.003)
    assert (flow.packets, flow.lost, flow.octets) == (600, 400, 600 * 64)
    assert flow.cpu_per_packet_us == pytest.approx(5.0)


def test_a_kernel_has_no_cpu_of_its_own() -> None:
    flow = read_flow(report("TCP", {"sum_received": {"bytes": 1, "seconds": 1.0}}), cpu=None)
    assert flow.cpu_per_gigabyte is None


def test_an_error_of_iperf3_is_no_flow() -> None:
    with pytest.raises(LoadFailed, match="unable to connect"):
        read_flow({"error": "unable to connect to server"}, cpu=1.0)


def test_percentiles() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, 0.5) == 51.0
    assert percentile(values, 0.99) == 100.0
    assert percentile([7.0], 0.99) == 7.0


def test_everybody_is_first_once() -> None:
    assert [rotated("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]
    assert rotated("abc", 1) == ["b", "c", "a"]


def test_steps_are_read_as_the_daemon_prints_them() -> None:
    text = "hello\nprofile: seal: cipher | 10 | 1300 | 130.0\nprofile: event loop and rest | 0 | 55 | 0.0\nbye\n"
    assert read_profile(text) == [Step("seal: cipher", 10, 1300.0), Step("event loop and rest", 0, 55.0)]


def test_busy_time_of_a_machine_leaves_out_idle_and_waiting() -> None:
    assert busy_seconds("cpu  100 10 50 9999 8888 20 20 0 0 0") == 2.0


def test_growth_that_ends_is_no_slope() -> None:
    filling = [(0.0, 0.0), (1.0, 900.0)]
    steady = [(float(second), 1000.0) for second in range(2, 10)]
    assert slope(filling + steady) == pytest.approx(0.0)


def test_growth_that_goes_on_is_a_slope() -> None:
    assert slope([(float(second), 3.0 * second) for second in range(10)]) == pytest.approx(3.0)
    assert slope([(0.0, 1.0), (1.0, 2.0)]) == 0.0


def test_a_contender_that_nobody_knows_is_refused() -> None:
    with pytest.raises(SystemExit, match="choose from wgpy, wireguard-go"):
        find_all(Result("tunnel", {}), ["wgpy", "openvpn"])


def test_a_contender_that_is_not_here_is_left_out_with_a_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WGPY_BORINGTUN", str(tmp_path / "absent"))
    result = Result("tunnel", {})
    assert [one.name for one in find_all(result, ["wgpy", "boringtun"])] == ["wgpy"]
    assert result.contenders == ["wgpy"]
    assert result.notes[0].startswith("boringtun was left out")
    assert "cargo install boringtun-cli" in capsys.readouterr().err


def test_a_checkout_without_wgpy_is_missing(tmp_path: Path) -> None:
    with pytest.raises(contenders.Missing, match="has no wgpy"):
        contenders.find(f"wgpy@{tmp_path}")
