"""The hub: pages, live changes, kubectl through the tunnel, a thousand edges, broken streams.

    hub, edge, small Kubernetes API: processes of their own, as in `make demo`; a thousand edges: one process more

What the hub itself costs is the time of its process; everything else is what a client sees, TLS included.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any, Final

from benchmarks import host
from benchmarks.demo_hub import Child, Operator, running
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result

_TICK: Final = os.sysconf("SC_CLK_TCK")
PARTS: Final = ("proxy", "logs", "streams", "pages", "live", "panel", "edges")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks hub`."""
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of them ({','.join(PARTS)})")
    parser.add_argument("--clusters", type=int, default=1000, metavar="N", help="rows of the list (1000)")
    parser.add_argument("--edges", type=int, default=1000, metavar="N", help="edges that are simulated (1000)")
    parser.add_argument("--streams", type=int, default=10_000, metavar="N", help="streams that are broken off (10000)")
    parser.add_argument("--requests", type=int, default=200, metavar="N", help="requests for a percentile (200)")
    parser.add_argument("--megabytes", type=int, default=100, metavar="N", help="length of the log (100)")


class Client:
    """One kept connection to the hub or, without TLS, to the small API server."""

    def __init__(self, url: str, ca: Path | None, headers: dict[str, str]) -> None:
        """Connect with the first request."""
        parts = urllib.parse.urlsplit(url)
        self._headers = headers
        if ca is None:
            self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        else:
            context = ssl.create_default_context(cafile=str(ca))
            self._http = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=120, context=context)

    def get(self, path: str) -> bytes:
        """The body of a request that must succeed."""
        answer = self.open(path)
        return answer.read()

    def open(self, path: str) -> http.client.HTTPResponse:
        """The answer, its body not read yet."""
        self._http.request("GET", path, headers=self._headers)
        answer = self._http.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"GET {path}: {answer.status} {answer.read()[:300]!r}")
        return answer

    def abort(self) -> None:
        """Break the connection off."""
        self._http.close()


class Stage:
    """What runs, and who looks at it."""

    def __init__(self, folder: Path, parts: tuple[str, str, str, Operator, str, list[Child]]) -> None:
        """Take the demonstration apart."""
        self.url, _, _, self.operator, self.cluster_id, children = parts
        self.ca = folder / "hub/tls/ca.crt"
        self.processes = {child.name: child.pid for child in children}
        self.api = json.loads(next(child for child in children if child.name == "cluster").first_line())
        issued = self.operator.call("POST", f"/v1/clusters/{self.cluster_id}/kubeconfigs", ttl=7200)
        found = re.search(r'token: "([^"]+)"', issued["yaml"])
        assert found is not None
        self._kubeconfig_token = found[1]

    def kubectl(self) -> Client:
        """As kubectl asks, through the hub."""
        return Client(self.url, self.ca, {"Authorization": f"Bearer {self._kubeconfig_token}"})

    def direct(self) -> Client:
        """Straight at the small API server."""
        return Client(self.api["url"], None, {"Authorization": f"Bearer {self.api['token']}"})

    def browser(self) -> Client:
        """As a browser that is signed in."""
        return Client(self.url, self.ca, {"Cookie": self.operator.cookie()})

    @property
    def prefix(self) -> str:
        """Kubectl's door."""
        return f"/k8s/clusters/{self.cluster_id}"

    def cpu(self, name: str) -> float:
        """Seconds of CPU time that a process has used."""
        words = Path(f"/proc/{self.processes[name]}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / _TICK

    def memory(self, name: str) -> float:
        """Megabytes that it holds."""
        text = Path(f"/proc/{self.processes[name]}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", text)
        assert found is not None
        return int(found[1]) / 1024

    def memory_with_children(self, name: str) -> float:
        """Megabytes that it and the processes of its own hold."""
        total = self.memory(name)
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                text = status.read_text()
                found = re.search(rf"^PPid:\t{self.processes[name]}$.*^VmRSS:\s+(\d+)", text, re.M | re.S)
                total += int(found[1]) / 1024 if found else 0
        return total

    def descriptors(self, name: str) -> int:
        """Files and sockets that it has open."""
        return len(os.listdir(f"/proc/{self.processes[name]}/fd"))


def run(options: argparse.Namespace) -> Result:
    """Measure."""
    parts = options.parts.split(",")
    result = Result("hub", host.describe())
    result.options = {name: getattr(options, name) for name in ("clusters", "edges", "streams", "requests", "rounds")}
    progress = Progress(len(parts))
    os.environ["DEMO_RATE"] = "1000000"
    try:
        with tempfile.TemporaryDirectory(prefix="daalu-bench-") as name:
            folder = Path(name)
            with running(folder, quiet=True) as running_parts:
                stage = Stage(folder, running_parts)
                for part in parts:
                    progress.show(part)
                    _PARTS[part](stage, result, options)
                    progress.step()
    finally:
        progress.close()
    return result


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def proxy(stage: Stage, result: Result, options: argparse.Namespace) -> None:
    """A `get` through the hub against the direct one, alternating, on kept connections."""
    through, direct = stage.kubectl(), stage.direct()
    row = result.row("proxied_get", "proxied get over the direct one, p50", "ms", is_more_better=False)
    for _ in range(options.rounds):
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(options.requests):
            for client, prefix, found in ((through, stage.prefix, times[0]), (direct, "", times[1])):
                begin = time.perf_counter()
                client.get(f"{prefix}/api/v1/nodes")
                found.append(time.perf_counter() - begin)
        row.add(OURS, (statistics.median(times[0]) - statistics.median(times[1])) * 1000)


def logs(stage: Stage, result: Result, options: argparse.Namespace) -> None:
    """A long log through the tunnel."""
    row = result.row("logs", f"logs of {options.megabytes} MB", "Mbit/s")
    octets = options.megabytes * 1_000_000
    for _ in range(options.rounds):
        begin = time.perf_counter()
        path = f"{stage.prefix}/api/v1/namespaces/shop/pods/front-0/log?octets={octets}"
        answer, seen = stage.kubectl().open(path), 0
        while piece := answer.read(256 * 1024):
            seen += len(piece)
        if seen != octets:
            raise RuntimeError(f"{seen} of {octets} octets of the log arrived")
        row.add(OURS, octets * 8 / (time.perf_counter() - begin) / 1e6)


def streams(stage: Stage, result: Result, options: argparse.Namespace) -> None:
    """Followed logs that the reader breaks off: what stays behind in hub and edge."""
    path = f"{stage.prefix}/api/v1/namespaces/shop/pods/front-0/log?follow=1"

    def break_off(count: int) -> None:
        for _ in range(count):
            client = stage.kubectl()
            client.open(path).read(10)
            client.abort()
        time.sleep(5)

    break_off(max(500, options.streams // 20))  # caches and pools have their size after that
    before = {name: (stage.memory(name), stage.descriptors(name)) for name in ("hub", "edge")}
    begin = time.perf_counter()
    break_off(options.streams)
    result.row("aborted_rate", "streams broken off, one after another", "1/s").add(
        OURS, options.streams / (time.perf_counter() - begin - 5)
    )
    for name, (memory, descriptors) in before.items():
        grown = result.row(f"aborted_memory_{name}", f"memory of the {name} after them", "%", is_more_better=False)
        grown.add(OURS, (stage.memory(name) / memory - 1) * 100)
        more = result.row(f"aborted_files_{name}", f"descriptors of the {name} after them", "", is_more_better=False)
        more.add(OURS, stage.descriptors(name) - descriptors)


def pages(stage: Stage, result: Result, options: argparse.Namespace) -> None:
    """The list with many clusters: its first page of fifty rows."""
    for number in range(options.clusters):
        stage.operator.call("POST", "/v1/tenants/default/clusters", name=f"row-{number}")
    client = stage.browser()
    row = result.row("list_p95", f"list page with {options.clusters} clusters, p95", "ms", is_more_better=False)
    cost = result.row("list_cpu", "CPU time of the hub for it", "ms", is_more_better=False)
    for _ in range(options.rounds):
        times, cpu = [], stage.cpu("hub")
        for _ in range(options.requests):
            begin = time.perf_counter()
            client.get("/t/default/clusters")
            times.append(time.perf_counter() - begin)
        row.add(OURS, _percentile(times, 0.95) * 1000)
        cost.add(OURS, (stage.cpu("hub") - cpu) / options.requests * 1000)


def live(stage: Stage, result: Result, options: argparse.Namespace) -> None:
    """From a change to the line of the open page's stream that tells it."""
    row = result.row("live", "change to browser, p95", "ms", is_more_better=False)
    answer = stage.browser().open("/t/default/clusters/live?q=demo")
    names = (f"demo{'' if number % 2 else '-x'}" for number in range(10**6))
    for _ in range(options.rounds):
        times = []
        for _ in range(min(options.requests, 20)):
            name = next(names)
            time.sleep(1.1)  # a row is told at most once a second
            begin = time.perf_counter()
            stage.operator.call("PATCH", f"/v1/clusters/{stage.cluster_id}", name=name)
            while f">{name}<".encode() not in (line := answer.readline()):
                if not line:
                    raise RuntimeError("the stream of the page ended")
            times.append(time.perf_counter() - begin)
        row.add(OURS, _percentile(times, 0.95) * 1000)


def panel(stage: Stage, result: Result, options: argparse.Namespace) -> None:
    """Lines whose answers are hostile, one after the other, and what others see of them meanwhile."""
    client = stage.kubectl()
    alone = result.row("panel_alone", "proxied get alone, p95", "ms", is_more_better=False)
    beside = result.row(
        "panel_beside", "proxied get beside hostile lines of the panel, p95", "ms", is_more_better=False
    )
    grown = result.row("panel_memory", "the hub and its workers over the hub before, peak", "MB", is_more_better=False)

    def p95(is_over: threading.Event | None) -> float:
        times: list[float] = []
        while len(times) < options.requests or (is_over is not None and not is_over.is_set()):
            begin = time.perf_counter()
            client.get(f"{stage.prefix}/api/v1/nodes")
            times.append(time.perf_counter() - begin)
        return _percentile(times, 0.95) * 1000

    def lines(is_over: threading.Event) -> None:
        for name in ("cell", "lists", "objects", "text", "pages"):
            for verb in ("get pods", "get pods -o yaml", "describe pods"):
                if name != "pages" or verb == "get pods":
                    line = f"{verb} -n hostile-{name}"
                    stage.operator.call("POST", f"/v1/clusters/{stage.cluster_id}/panel", line=line)
        is_over.set()

    def watch(is_over: threading.Event, peak: list[float]) -> None:
        while not is_over.wait(0.02):
            peak.append(stage.memory_with_children("hub"))

    for _ in range(options.rounds):
        alone.add(OURS, p95(None))
        is_over, peak, before = threading.Event(), [0.0], stage.memory("hub")
        threads = [
            threading.Thread(target=lines, args=(is_over,)),
            threading.Thread(target=watch, args=(is_over, peak)),
        ]
        for thread in threads:
            thread.start()
        beside.add(OURS, p95(is_over))
        for thread in threads:
            thread.join()
        grown.add(OURS, max(peak) - before)


def edges(stage: Stage, result: Result, options: argparse.Namespace) -> None:
    """Edges with real joins, handshakes and heartbeats: what the hub spends on them once they are connected."""
    words = [sys.executable, "-m", "benchmarks.edges", stage.url, str(stage.ca), str(options.edges)]
    known = stage.operator.call("GET", "/v1/tenants/default/clusters/counts")["connected"]
    environment = {**os.environ, "DEMO_COOKIE": stage.operator.cookie(), "DEMO_CSRF": stage.operator.csrf}
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 900
            while (connected := _connected(stage) - known) < options.edges:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{connected} of {options.edges} edges are connected")
                time.sleep(1)
            row = result.row(
                "edges_cpu", f"{options.edges} edges connected: share of a core", "%", is_more_better=False
            )
            for _ in range(options.rounds):
                cpu, begin = stage.cpu("hub"), time.monotonic()
                time.sleep(20)
                row.add(OURS, (stage.cpu("hub") - cpu) / (time.monotonic() - begin) * 100)
            result.row("edges_memory", "memory of the hub then", "MB", is_more_better=False).add(
                OURS, stage.memory("hub")
            )
            if (connected := _connected(stage) - known) < options.edges:
                raise RuntimeError(f"only {connected} of {options.edges} edges are still connected")
        finally:
            process.terminate()


def _connected(stage: Stage) -> int:
    found: Any = stage.operator.call("GET", "/v1/tenants/default/clusters/counts")["connected"]
    return int(found)


_PARTS: Final = {
    "proxy": proxy,
    "logs": logs,
    "streams": streams,
    "pages": pages,
    "live": live,
    "panel": panel,
    "edges": edges,
}
