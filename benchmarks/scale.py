"""What grows with the number of peers: memory, CPU per peer and second, `wg show`, `wg setconf`, AllowedIPs.

Three parts:

- engine: in a fresh process per size, how many octets a peer takes (resident set and tracemalloc), idle and with a
  session; on virtual time, what a connected peer with a persistent keepalive of 25 s costs per second.
- daemon: real daemons taking turns: `wg setconf` with so many peers, `wg show`, resident memory, and CPU with a crowd
  of real clients.
- prefixes: AllowedIPs with up to a million prefixes: insertion, memory, lookup.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import re
import secrets
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Final

import wgpy
from benchmarks import contenders, host
from benchmarks.clock import Stopwatch
from benchmarks.contenders import Contender
from benchmarks.crowd import HUB_AT, KEEPALIVE, inner_address, make_crowd, make_engine
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result
from benchmarks.tunnel import find_all, rotated
from tests.e2e.daemons import LEFT, RIGHT, Keys
from tests.e2e.lab import Process, eventually, open_lab
from tests.machine import why_missing
from wgpy.config import Prefix
from wgpy.protocol.allowedips import AllowedIPs
from wgpy.testing.pair import packet

_PARTS: Final = ("engine", "daemon", "prefixes")
_PEERS: Final = "1,100,1000,10000"
_ACTIVE: Final = 100
_PREFIXES: Final = "1000,100000,1000000"
_LOOKUPS: Final = 20_000
# Virtual seconds in which everybody shakes hands twice.
_VIRTUAL: Final = 240.0
# What the routing table of the Internet looks like: most prefixes are /24, a few are short.
_PREFIX_LENGTHS: Final = (24, 23, 22, 21, 20, 19, 18, 17, 16)
_PREFIX_WEIGHTS: Final = (60, 10, 12, 5, 5, 3, 2, 1, 2)
# Fewer things than this do not show in the resident set, nor in the CPU time of some seconds.
_VISIBLE: Final = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks scale`."""
    parser.add_argument(
        "--against",
        default="wireguard-go",
        metavar="NAMES",
        help=f"rivals of the daemon, of {', '.join(contenders.NAMES[1:])} (wireguard-go); '' for none",
    )
    parser.add_argument("--parts", default=",".join(_PARTS), metavar="NAMES", help=f"of {', '.join(_PARTS)}")
    parser.add_argument("--peers", default=_PEERS, metavar="NUMBERS", help=f"how many peers ({_PEERS})")
    parser.add_argument("--prefixes", default=_PREFIXES, metavar="NUMBERS", help=f"how many prefixes ({_PREFIXES})")
    parser.add_argument(
        "--periods", type=int, default=2, metavar="N", help=f"of {KEEPALIVE} s of real keepalives (2); 0 for none"
    )
    parser.add_argument("--octets-of", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> Result:
    """Measure."""
    if options.octets_of:
        print(json.dumps(octets_per_thing(*options.octets_of.split(","))))
        raise SystemExit(0)
    parts = options.parts.split(",")
    if unknown := [part for part in parts if part not in _PARTS]:
        raise SystemExit(f"no part is called {unknown[0]!r}: choose from {', '.join(_PARTS)}")
    peers = [int(text) for text in options.peers.split(",")]
    prefixes = [int(text) for text in options.prefixes.split(",")]
    result = Result("scale", host.describe())
    result.options = {"rounds": options.rounds, "parts": options.parts, "periods": options.periods}
    known = find_all(result, [OURS, *filter(None, options.against.split(","))]) if "daemon" in parts else []
    per_round = {"engine": 2 * len(peers) + 1, "daemon": len(peers) * len(known), "prefixes": len(prefixes)}
    progress = Progress(options.rounds * sum(per_round[part] for part in parts))
    try:
        for number in range(options.rounds):
            if "engine" in parts:
                measure_engine(result, peers, progress, number)
            if "daemon" in parts:
                measure_daemons(result, peers, known, options.periods, progress, number)
            if "prefixes" in parts:
                measure_prefixes(result, prefixes, progress, number)
    finally:
        progress.close()
    return result


# --- the engine ------------------------------------------------------------------------------------------------------


def measure_engine(result: Result, peers: list[int], progress: Progress, number: int) -> None:
    """Memory in fresh processes, CPU on virtual time."""
    for kind, counts in (("idle", peers), ("active", [_ACTIVE])):
        for count in counts:
            progress.show(f"round {number + 1}: memory of {count:,} {kind} peers")
            for key, value in measure_memory(kind, count).items():
                row = result.row(
                    f"engine/memory/{kind}/{count}/{key}",
                    f"{count:,} {kind} peer{'' if count == 1 else 's'}, {key}",
                    "octets/peer",
                    is_more_better=False,
                    group="memory of the engine",
                )
                row.add(OURS, value)
            progress.step()
    for count in peers:
        progress.show(f"round {number + 1}: {count:,} peers with keepalives, virtual time")
        row = result.row(
            f"engine/cpu/{count}",
            f"{count:,} peers, keepalive {KEEPALIVE} s and rekeying",
            "µs/(peer s)",
            is_more_better=False,
            group="CPU of the engine",
        )
        row.add(OURS, cpu_per_peer(count) * 1e6)
        progress.step()


def measure_memory(kind: str, count: int) -> dict[str, float]:
    """Octets per thing, measured in a process of its own: as resident set and as Python counts them.

    The resident set grows by pages and by what the allocator keeps: of a few things it says nothing, and is left out.
    """
    command = [sys.executable, "-m", "benchmarks", "scale", "--octets-of", f"{kind},{count}"]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if count < _VISIBLE:
        del found["resident set"]
    return found


def octets_per_thing(kind: str, text: str) -> dict[str, float]:
    """What one more of a kind adds to this process, which must be a fresh one.

    Args:
        kind: `idle` peers have an endpoint, a prefix and no session; `active` ones have a session too; `prefixes` are
            those of an AllowedIPs table.
        text: how many.

    Returns:
        Octets per thing; the second number comes from a second pass, because counting takes memory too.
    """
    count = int(text)
    make = {"idle": _idle_peers, "active": _active_peers, "prefixes": _prefix_table}[kind]
    # Once for all that is made on first use, whose memory is then used again.
    make(10)
    gc.collect()
    before = _resident_octets()
    made = make(count)
    gc.collect()
    resident = (_resident_octets() - before) / count
    del made
    gc.collect()
    tracemalloc.start()
    made = make(count)
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0] / count
    del made
    return {"resident set": resident, "tracemalloc": traced}


def _idle_peers(count: int) -> wgpy.Engine:
    engine = make_engine(wgpy.InterfaceConfig(wgpy.PrivateKey.generate()))
    for number in range(count):
        # One at a time: the configuration must not stay in memory beside the engine.
        key = wgpy.PublicKey(secrets.token_bytes(32))
        at = wgpy.Endpoint(f"198.18.{number >> 8 & 255}.{number & 255}", 1)
        engine.add_peer(wgpy.PeerConfig(key, allowed_ips=[f"{inner_address(number)}/32"], endpoint=at), 0.0)
    return engine


def _active_peers(count: int) -> wgpy.Engine:
    hub_key = wgpy.PrivateKey.generate()
    hub = make_engine(wgpy.InterfaceConfig(hub_key))
    for number in range(count):
        # Each client is gone before the next one comes, and leaves its memory to it.
        key, at = wgpy.PrivateKey.generate(), wgpy.Endpoint(f"198.18.{number >> 8 & 255}.{number & 255}", 1)
        hub.add_peer(wgpy.PeerConfig(key.public_key, allowed_ips=[f"{inner_address(number)}/32"]), 0.0)
        to_hub = wgpy.PeerConfig(hub_key.public_key, allowed_ips=["0.0.0.0/0"], endpoint=HUB_AT)
        client = make_engine(wgpy.InterfaceConfig(key, peers=[to_hub]))
        client.send_packet(packet(inner_address(number)), 0.0)
        for _ in range(2):
            for batch in client.datagrams_to_send():
                hub.receive_datagrams(batch.arriving_from(at), 0.0)
            for batch in hub.datagrams_to_send():
                client.receive_datagrams(batch.arriving_from(HUB_AT), 0.0)
        assert len(hub.packets_to_deliver()) == 1, "the client has a session"
        hub.events()
    return hub


def _prefix_table(count: int) -> AllowedIPs[object]:
    table: AllowedIPs[object] = AllowedIPs()
    owners = [object() for _ in range(min(count, 1000))]
    rng = random.Random(count)
    while len(table) < count:
        for place in range(count - len(table)):
            table.insert(make_prefix(rng), owners[place % len(owners)])
    return table


def _resident_octets() -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, "Linux says how much is resident"
    return int(found.group(1)) * 1024


def cpu_per_peer(count: int) -> float:
    """CPU seconds of a hub per connected peer and second."""
    crowd = make_crowd(count, hub_initiates=False)
    crowd.start()
    crowd.run_until_all_connected()
    before = crowd.watch.seconds
    crowd.run_for(_VIRTUAL)
    return (crowd.watch.seconds - before) / _VIRTUAL / count


# --- the daemon ------------------------------------------------------------------------------------------------------


def measure_daemons(
    result: Result, peers: list[int], known: list[Contender], periods: int, progress: Progress, number: int
) -> None:
    """Each contender with each number of peers; nothing when this machine cannot."""
    for group in ("root", "tun", "netns", "tools"):
        if missing := why_missing(group):
            result.note(f"no daemons: {missing}")
            return
    for count in peers:
        for contender in rotated(known, number):
            progress.show(f"round {number + 1}: {contender.name} with {count:,} peers")
            for key, (label, unit, value) in measure_daemon(contender, count, periods).items():
                row = result.row(
                    f"daemon/{count}/{key}", label, unit, is_more_better=False, group=f"daemon with {count:,} peers"
                )
                row.add(contender.name, value)
            progress.step()


def measure_daemon(contender: Contender, count: int, periods: int) -> dict[str, tuple[str, str, float | None]]:
    """One daemon in a namespace, a crowd of real clients in another."""
    with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
        left, right = lab.namespace("hub"), lab.namespace("crowd")
        ends = lab.cable(left, right)
        left.address(ends[0], f"{LEFT.outer4}/24")
        right.address(ends[1], f"{RIGHT.outer4}/24")
        end = contender.start(lab, left)
        empty = _resident_of(end.process)
        crowd = Path(folder) / "crowd.json"
        keys, private = Keys.make(lab), [wgpy.PrivateKey.generate() for _ in range(count)]
        crowd.write_text(json.dumps({"hub": keys.public, "clients": [key.to_base64() for key in private]}))
        lines = ["[Interface]", f"PrivateKey = {keys.private}", "ListenPort = 51820"]
        for number, key in enumerate(private):
            lines += ["[Peer]", f"PublicKey = {key.public_key}", f"AllowedIPs = {inner_address(number)}/32"]
        configuration = Path(folder) / "hub.conf"
        configuration.write_text("\n".join(lines) + "\n")
        start = time.perf_counter()
        end.wg("setconf", end.interface, str(configuration))
        setconf = time.perf_counter() - start
        end.run("ip", "link", "set", end.interface, "up")
        start = time.perf_counter()
        shown = end.wg("show", end.interface)
        show = time.perf_counter() - start
        assert shown.count("peer: ") == count, "every peer is shown"
        full = _resident_of(end.process)
        found: dict[str, tuple[str, str, float | None]] = {
            "setconf": ("wg setconf", "ms", setconf * 1000),
            "show": ("wg show", "ms", show * 1000),
            "resident": ("resident set, all", "MB", full / 1e6),
        }
        if count >= _VISIBLE:
            found["memory"] = ("resident set, per peer", "octets", (full - empty) / count)
        if periods and end.process is not None and count >= _VISIBLE:
            command = (sys.executable, "-m", "benchmarks.players", str(crowd), f"{LEFT.outer4}:51820")
            player = right.spawn(*command, env={"PYTHONPATH": str(host.REPOSITORY)})
            eventually("all clients are connected", lambda: "all connected" in player.output, limit=60 + count / 50)
            before, began = end.cpu_seconds() or 0.0, time.monotonic()
            # Whole periods: the clients started within a few seconds of each other, and knock in waves.
            time.sleep(periods * KEEPALIVE)
            used, passed = (end.cpu_seconds() or 0.0) - before, time.monotonic() - began
            label = f"CPU, keepalive {KEEPALIVE} s"
            found["cpu"] = (label, "µs/(peer s)", used / passed / count * 1e6)
        return found


def _resident_of(process: Process | None) -> float:
    return math.nan if process is None else process.status("VmRSS") * 1024


# --- AllowedIPs ------------------------------------------------------------------------------------------------------


def measure_prefixes(result: Result, counts: list[int], progress: Progress, number: int) -> None:
    """Tables that look like the Internet's, IPv4; seeded, so that every run holds the same prefixes."""
    for count in counts:
        progress.show(f"round {number + 1}: {count:,} prefixes")
        rng = random.Random(count)
        prefixes = make_prefixes(count, rng)
        owners = [object() for _ in range(min(count, 1000))]
        table: AllowedIPs[object] = AllowedIPs()
        with Stopwatch() as inserting:
            for place, prefix in enumerate(prefixes):
                table.insert(prefix, owners[place % len(owners)])
        # Half of them inside of a prefix, half anywhere. All different: each pays for the whole search.
        inside = {(prefix.network + 1).to_bytes(4) for prefix in rng.sample(prefixes, min(count, _LOOKUPS // 2))}
        anywhere = {rng.randbytes(4) for _ in range(_LOOKUPS - len(inside))}
        addresses = [*inside, *(anywhere - inside)]
        with Stopwatch() as searching:
            found = [table.lookup(address) for address in addresses]
        assert None not in found[: len(inside)], "what lies inside of a prefix has an owner"
        few = addresses[:1000]
        for address in few:
            table.lookup(address)
        with Stopwatch() as remembering:
            for address in few * 10:
                table.lookup(address)
        group = f"{count:,} prefixes"
        for key, label, unit, value in (
            ("insert", "insert", "ns", inserting.seconds / count * 1e9),
            ("first", "lookup, an address not seen lately", "ns", searching.seconds / len(addresses) * 1e9),
            ("again", "lookup, one of the last 4,096 addresses", "ns", remembering.seconds / (len(few) * 10) * 1e9),
        ):
            result.row(f"prefixes/{count}/{key}", label, unit, is_more_better=False, group=group).add(OURS, value)
        for key, value in measure_memory("prefixes", count).items():
            row = result.row(f"prefixes/{count}/{key}", key, "octets/prefix", is_more_better=False, group=group)
            row.add(OURS, value)
        progress.step()


def make_prefix(rng: random.Random) -> Prefix:
    """An IPv4 prefix, of a length as in the routing table of the Internet."""
    length = rng.choices(_PREFIX_LENGTHS, _PREFIX_WEIGHTS)[0]
    return Prefix(4, rng.getrandbits(length) << (32 - length), length)


def make_prefixes(count: int, rng: random.Random) -> list[Prefix]:
    """So many different ones."""
    found: dict[Prefix, None] = {}
    while len(found) < count:
        found[make_prefix(rng)] = None
    return list(found)
