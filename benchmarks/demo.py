"""A tunnel to watch: `make demo-tunnel`, or `python -m benchmarks.demo`.

Without privileges, two processes with one wgpy device each, on the loopback interface:

    client process -- MemoryDevice -- Engine -- UDP 127.0.0.1 -- Engine -- MemoryDevice -- server process

The inner packets are made here: ICMP echo requests, then a stream of UDP datagrams with a window and resending. As root
there follow two TUN interfaces in network namespaces, one of them held by wireguard-go where that is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import trio

import wgpy

HERE: Final = ipaddress.IPv4Address("10.99.0.1")
THERE: Final = ipaddress.IPv4Address("10.99.0.2")
ECHOES: Final = 200
PAYLOAD: Final = 1376
WINDOW: Final = 1536
_STREAM: Final = struct.Struct("!I")
_UDP: Final = struct.Struct("!HHHH")
_IP: Final = struct.Struct("!BBHHHBBH4s4s")
_PORT: Final = 9000


# --- inner packets ---------------------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) & 1 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(source: ipaddress.IPv4Address, target: ipaddress.IPv4Address, protocol: int, body: bytes) -> bytes:
    """An IPv4 packet."""
    head = _IP.pack(0x45, 0, 20 + len(body), 0, 0x4000, 64, protocol, 0, source.packed, target.packed)
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body


def udp_packet(source: ipaddress.IPv4Address, target: ipaddress.IPv4Address, payload: bytes) -> bytes:
    """A UDP datagram; its checksum is left out, as IPv4 allows."""
    return ip_packet(source, target, 17, _UDP.pack(_PORT, _PORT, 8 + len(payload), 0) + payload)


def echo(source: ipaddress.IPv4Address, target: ipaddress.IPv4Address, kind: int, body: bytes) -> bytes:
    """An ICMP echo request (8) or reply (0)."""
    head = struct.pack("!BBH", kind, 0, 0)
    return ip_packet(source, target, 1, head[:2] + checksum(head + body).to_bytes(2, "big") + body)


# --- the server process ----------------------------------------------------------------------------------------------


async def serve() -> None:
    """Answer echo requests, take the stream in order, and acknowledge it; keys come by standard input."""
    offer = json.loads(sys.stdin.readline())
    peer = wgpy.PeerConfig(wgpy.PublicKey(offer["peer"]), allowed_ips=[f"{HERE}/32"])
    packets = wgpy.MemoryDevice("server", limit=65536)
    async with wgpy.open_device(wgpy.InterfaceConfig(offer["key"], peers=[peer]), packets) as device:
        print(json.dumps({"port": device.udp.port}), flush=True)
        expected, digest = 0, hashlib.sha256()
        while True:
            answers: list[bytes] = []
            has_data = False
            for packet in await packets.receive():
                if packet[9] == 1 and packet[20] == 8:
                    answers.append(echo(THERE, HERE, 0, packet[24:]))
                elif packet[9] == 17:
                    has_data = True
                    (number,) = _STREAM.unpack_from(packet, 28)
                    if number == expected:
                        digest.update(packet[32:])
                        expected += 1
            if has_data:
                answers.append(udp_packet(THERE, HERE, _STREAM.pack(expected) + digest.digest()))
            if answers:
                await packets.send(answers)


# --- the client process ----------------------------------------------------------------------------------------------


class Progress:
    """One line that is rewritten on a terminal, and printed at the end elsewhere."""

    def __init__(self) -> None:
        """Look at standard output."""
        self._is_live = sys.stdout.isatty()
        self._last = 0.0

    def show(self, text: str, *, is_final: bool = False) -> None:
        """Show where it stands."""
        if self._is_live and (is_final or time.monotonic() - self._last > 0.1):
            self._last = time.monotonic()
            print(f"\r\x1b[K  {text}", end="\n" if is_final else "", flush=True)
        elif is_final:
            print(f"  {text}", flush=True)


def run_pair(octets: int) -> None:
    """The part without privileges."""
    key, other = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate()
    print("two wgpy devices over UDP on 127.0.0.1, each in a process of its own")
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.demo", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        server.stdin.write(json.dumps({"key": other.to_base64(), "peer": str(key.public_key)}) + "\n")
        server.stdin.flush()
        port = json.loads(server.stdout.readline())["port"]
        peer = wgpy.PeerConfig(other.public_key, allowed_ips=[f"{THERE}/32"], endpoint=wgpy.Endpoint("127.0.0.1", port))
        trio.run(run_client, wgpy.InterfaceConfig(key, peers=[peer]), octets)
    finally:
        server.terminate()
        server.communicate()


async def run_client(config: wgpy.InterfaceConfig, octets: int) -> None:
    """The client's device."""
    packets = wgpy.MemoryDevice("client", limit=65536)
    async with wgpy.open_device(config, packets) as device:
        await shake_hands_and_ping(device, packets)
        await stream(packets, octets)


async def shake_hands_and_ping(device: wgpy.Device, packets: wgpy.MemoryDevice) -> None:
    """Measure the handshake, then the round trips."""
    events = device.events()
    start = time.perf_counter()
    await packets.send([echo(HERE, THERE, 8, struct.pack("!HH", 1, 0) + bytes(52))])
    async for event in events:
        if isinstance(event, wgpy.HandshakeCompleted):
            break
    print(f"  handshake   {(time.perf_counter() - start) * 1000:.2f} ms (Noise IKpsk2, initiation to session)")
    await packets.receive()
    events.close()
    trips: list[float] = []
    for number in range(ECHOES):
        start = time.perf_counter()
        await packets.send([echo(HERE, THERE, 8, struct.pack("!HH", 1, number) + bytes(52))])
        await packets.receive()
        trips.append((time.perf_counter() - start) * 1000)
    trips.sort()
    print(
        f"  ping        {len(trips)} echo requests, all answered: RTT median {statistics.median(trips):.2f} ms, "
        f"99th percentile {trips[int(len(trips) * 0.99)]:.2f} ms"
    )


async def stream(packets: wgpy.MemoryDevice, octets: int) -> None:
    """Send that much, resending what is lost, and compare the digest at the other end."""
    block = os.urandom(PAYLOAD)
    count = -(-octets // PAYLOAD)
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(block)
    progress = Progress()
    acknowledged = sent = resent = 0
    start = time.perf_counter()
    while acknowledged < count:
        upto = min(count, acknowledged + WINDOW)
        await packets.send([udp_packet(HERE, THERE, _STREAM.pack(number) + block) for number in range(sent, upto)])
        sent = max(sent, upto)
        with trio.move_on_after(0.25) as waiting:
            for packet in await packets.receive():
                if packet[9] == 17:
                    (number,) = _STREAM.unpack_from(packet, 28)
                    acknowledged, theirs = max(acknowledged, number), packet[32:64]
        if waiting.cancelled_caught:
            resent += sent - acknowledged
            sent = acknowledged
        took = time.perf_counter() - start
        done = acknowledged * PAYLOAD
        progress.show(f"stream      {done / 1e6:6.1f} of {octets / 1e6:.0f} MB, {done * 8e-6 / took:.0f} Mbit/s")
    took = time.perf_counter() - start
    if theirs != digest.digest():
        raise SystemExit("the stream arrived damaged: please report this")
    progress.show(
        f"stream      {octets / 1e6:.0f} MB in {took:.2f} s: {octets * 8e-6 / took:.0f} Mbit/s, SHA-256 equal, "
        f"{resent} datagrams resent",
        is_final=True,
    )


# --- as root ---------------------------------------------------------------------------------------------------------


def run_interfaces() -> None:
    """Two TUN interfaces in namespaces of their own, ping and iperf3 across."""
    from tests.e2e.daemons import LEFT, RIGHT, DaemonEnd, connect
    from tests.e2e.lab import eventually, open_lab
    from tests.machine import why_missing

    for group in ("root", "tun", "netns", "tools"):
        if missing := why_missing(group):
            print(f"\ntwo TUN interfaces: left out, {missing}")
            return
    other = "wgpy" if why_missing("go") else "wireguard-go"
    print(f"\ntwo TUN interfaces in network namespaces: wgpy and {other}")
    if other == "wgpy":
        print(f"  ({why_missing('go')})")
    with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
        left, right = lab.namespace("left"), lab.namespace("right")
        lab.cable(left, right)
        left.address("to-right", f"{LEFT.outer4}/24", f"{LEFT.outer6}/64")
        right.address("to-left", f"{RIGHT.outer4}/24", f"{RIGHT.outer6}/64")
        ours, theirs = DaemonEnd(lab, left), DaemonEnd(lab, right, other)
        connect(ours, theirs)
        lines = ours.ping_output(RIGHT.inner4, count=20).strip().splitlines()
        print(f"  ping        {lines[-2].split(',')[1].strip()} of 20, {lines[-1]}")
        for direction, more in (("sent by wgpy", ()), ("received by wgpy", ("-R",))):
            server = right.spawn("iperf3", "-s", "-1", "--forceflush")
            eventually("iperf3 listens", lambda one=server: "listening" in one.output)
            report = json.loads(ours.run("iperf3", "-c", RIGHT.inner4, "-t", "3", "-J", *more))
            server.wait()
            print(f"  iperf3      {report['end']['sum_received']['bits_per_second'] / 1e6:.0f} Mbit/s {direction}")


NEXT = """
what to try next
  .venv/bin/wgpy --help                                   keys, interfaces, diagnosis
  sudo .venv/bin/wireguard-py wg0                         an interface for `wg` and `wg-quick`
  README.md                                               a tunnel in your own program, in ten lines
"""


def main() -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m benchmarks.demo --megabytes 10",
    )
    parser.add_argument("--megabytes", type=int, default=100, metavar="N", help="length of the stream (100)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.serve:
            trio.run(serve)
            return 0
        run_pair(options.megabytes * 1_000_000)
        if os.geteuid() == 0:
            run_interfaces()
        else:
            print("\ntwo TUN interfaces: left out, they need root (sudo make demo-tunnel)")
    except KeyboardInterrupt:
        print()
        return 130
    print(NEXT, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
