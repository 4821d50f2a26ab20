"""A crowd of real clients behind one UDP socket, for `scale`: `python -m benchmarks.players FILE HUB:PORT`.

    Engine, Engine, ... ── one socket ── UDP ── hub

Everyone has a persistent keepalive of 25 s. They all share one address, so that whoever limits handshakes per source
would hold them up for minutes: they start one after another. Which of them a datagram is for stands in its receiver
index; each client's indices are seen when it sends them.
"""

from __future__ import annotations

import heapq
import itertools
import json
import select
import socket
import sys
import time
from pathlib import Path
from typing import Final

import wgpy
from benchmarks.crowd import KEEPALIVE, make_engine

# Well below the handshakes that any of the contenders can answer, and below what would look like load.
_STARTS_PER_SECOND: Final = 250
_SENDER_INDEX: Final = {1: slice(4, 8), 2: slice(4, 8)}
_RECEIVER_INDEX: Final = {2: slice(8, 12), 3: slice(4, 8), 4: slice(4, 8)}


class Players:
    """The clients, their socket, and when each wants to be woken."""

    def __init__(self, document: dict[str, object], hub: wgpy.Endpoint) -> None:
        """Make the engines, all down."""
        peer = wgpy.PeerConfig(
            wgpy.PublicKey(str(document["hub"])),
            allowed_ips=["0.0.0.0/0"],
            endpoint=hub,
            persistent_keepalive=KEEPALIVE,
        )
        keys = document["clients"]
        assert isinstance(keys, list), "a list of private keys"
        self._engines = [
            make_engine(wgpy.InterfaceConfig(wgpy.PrivateKey(key), peers=[peer]), is_up=False) for key in keys
        ]
        self._hub = hub
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect((hub.host, hub.port))
        self._owner_of: dict[bytes, wgpy.Engine] = {}
        self._numbers = itertools.count()
        # Each engine is on the agenda once or more; one that is woken too early does nothing.
        self._agenda = [
            (time.monotonic() + number / _STARTS_PER_SECOND, next(self._numbers), engine)
            for number, engine in enumerate(self._engines)
        ]
        self.waiting = len(self._engines)

    def play(self) -> None:
        """Until somebody ends the process."""
        while True:
            now = time.monotonic()
            while self._agenda and self._agenda[0][0] <= now:
                engine = heapq.heappop(self._agenda)[2]
                if engine.is_up:
                    engine.handle_timer(now)
                else:
                    engine.set_up(True, now)
                self._flush(engine)
            pause = max(0.0, self._agenda[0][0] - time.monotonic()) if self._agenda else None
            if select.select([self._socket], [], [], pause)[0]:
                self._receive()

    def _receive(self) -> None:
        for _ in range(64):
            try:
                data = self._socket.recv(2048)
            except (BlockingIOError, ConnectionRefusedError):
                return
            where = _RECEIVER_INDEX.get(data[0]) if data else None
            engine = None if where is None else self._owner_of.get(data[where])
            if engine is not None:
                engine.receive_datagram(data, self._hub, time.monotonic())
                self._flush(engine)

    def _flush(self, engine: wgpy.Engine) -> None:
        for batch in engine.datagrams_to_send():
            for datagram in batch:
                if (where := _SENDER_INDEX.get(datagram[0])) is not None:
                    self._owner_of[bytes(datagram[where])] = engine
                self._socket.send(datagram)
        engine.packets_to_deliver()
        if any(isinstance(event, wgpy.HandshakeCompleted) for event in engine.events()):
            self.waiting -= 1
            if self.waiting == 0:
                print("all connected", flush=True)
        deadline = engine.next_deadline()
        if deadline is not None:
            heapq.heappush(self._agenda, (deadline, next(self._numbers), engine))


def main() -> None:
    """Read the keys and play."""
    players = Players(json.loads(Path(sys.argv[1]).read_text()), wgpy.Endpoint.parse(sys.argv[2]))
    players.play()


if __name__ == "__main__":
    main()
