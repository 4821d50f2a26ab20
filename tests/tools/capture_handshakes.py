"""Make `tests/vectors/handshakes.json`: handshakes with another implementation, with every secret of our end.

    sudo unshare -n python -m tests.tools.capture_handshakes .cache/bin/wireguard "wireguard-go VERSION"

Our end is an engine over one UDP socket; the other is a daemon on loopback that answers echo requests. What is written
down was accepted by the other end, or comes from it: it answers, so it has verified what we sent.
"""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import subprocess
import sys
import time
from typing import Any

from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
from wgpy.keys import PresharedKey, PrivateKey
from wgpy.protocol.engine import Engine
from wgpy.wire.checksum import checksum

IFACE, THEIR_PORT = "other", 51900
PATIENCE = 5.0


def echo_request() -> bytes:
    """An ICMP echo request from 10.9.0.1 to 10.9.0.2."""
    body = b"\x08\0\0\0\0\1\0\1" + bytes(range(56))
    body = body[:2] + checksum(body).to_bytes(2) + body[4:]
    head = bytes.fromhex("45000054000040004001 0000 0a090001 0a090002")
    return head[:10] + checksum(head).to_bytes(2) + head[12:] + body


def ask(request: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"/var/run/wireguard/{IFACE}.sock")
        client.sendall(request.encode())
        answer = client.recv(4096)
    assert answer == b"errno=0\n\n", answer


def capture(psk: bytes, *, is_initiator: bool) -> dict[str, Any]:
    """One handshake, one echo."""
    source = random.Random(os.urandom(16))
    ours, theirs = PrivateKey(source.randbytes(32)), PrivateKey(source.randbytes(32))
    log: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(PATIENCE)
        ask(
            f"set=1\nprivate_key={bytes(theirs).hex()}\nlisten_port={THEIR_PORT}\nreplace_peers=true\n"
            f"public_key={bytes(ours.public_key).hex()}\npreshared_key={psk.hex()}\nallowed_ip=10.9.0.1/32\n"
            + ("" if is_initiator else f"endpoint=127.0.0.1:{udp.getsockname()[1]}\npersistent_keepalive_interval=1\n")
            + "\n"
        )
        there = Endpoint("127.0.0.1", THEIR_PORT)
        peer = PeerConfig(
            theirs.public_key, allowed_ips=["10.9.0.2/32"], endpoint=there, preshared_key=PresharedKey(psk)
        )
        engine = Engine(InterfaceConfig(ours, peers=[peer]), random=os.urandom, wall_clock=time.time, keylog=log.append)
        datagrams: list[tuple[str, bytes]] = []
        if is_initiator:
            engine.send_packet(echo_request(), time.monotonic())
        delivered: list[bytes] = []
        is_asked = is_initiator
        while not delivered:
            for batch in engine.datagrams_to_send():
                for one in batch:
                    datagrams.append(("ours", bytes(one)))
                    udp.sendto(one, ("127.0.0.1", THEIR_PORT))
            octets = udp.recv(65536)
            datagrams.append(("theirs", octets))
            engine.receive_datagram(octets, there, time.monotonic())
            delivered = [bytes(row) for slab in engine.packets_to_deliver() for row in slab]
            if not is_asked and octets[0] == 4:
                engine.send_packet(echo_request(), time.monotonic())
                is_asked = True
    secrets = dict(line.split(" = ") for line in log)
    first = {kind: next(octets for _, octets in datagrams if octets[0] == kind) for kind in (1, 2)}
    return {
        "is_initiator": is_initiator,
        "our_private_key": bytes(ours).hex(),
        "their_private_key": bytes(theirs).hex(),
        "preshared_key": psk.hex(),
        "our_ephemeral": base64.b64decode(secrets["LOCAL_EPHEMERAL_PRIVATE_KEY"]).hex(),
        "initiation": first[1].hex(),
        "response": first[2].hex(),
        "transport": [octets.hex() for who, octets in datagrams if who == "theirs" and octets[0] == 4],
        "delivered": delivered[0].hex(),
    }


def main() -> None:
    program, name = sys.argv[1:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    daemon = subprocess.Popen([program, "-f", IFACE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while not os.path.exists(f"/var/run/wireguard/{IFACE}.sock") and time.monotonic() < end:
            time.sleep(0.05)
        for words in (["address", "add", "10.9.0.2/24", "dev", IFACE], ["link", "set", IFACE, "up"]):
            subprocess.run(["ip", *words], check=True)
        captures = [
            capture(psk, is_initiator=is_initiator)
            for is_initiator in (True, False)
            for psk in (bytes(32), os.urandom(32))
        ]
    finally:
        daemon.terminate()
        daemon.wait()
    print(json.dumps({"peer": name, "handshakes": captures}, indent=2))


if __name__ == "__main__":
    main()
