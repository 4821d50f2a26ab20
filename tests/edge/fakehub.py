"""A hub in this process, as much of it as the edge needs: bootstrap over HTTP, WireGuard, heartbeats, control lines.

Proofs and answers are made by the script of the golden vectors' own functions, not by the agent's code.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import h11
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

import wgpy
from tests.contract.make_vectors import b32, b64, canonical, mac, public, seal_psk, token

HUB_PRIVATE = bytes(wgpy.PrivateKey(hashlib.sha256(b"the hub of the tests").digest()))
HUB_PUBLIC = public(HUB_PRIVATE)
HUB_ADDRESS, EDGE_ADDRESS = "100.96.0.1", "100.96.0.7"
Refusal = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any], dict[str, str]] | None]
BEAT = struct.Struct(">2sBBQQQI")
# One task at a time may send on a stream.
_SAYING = trio.Lock()


@dataclass
class Invite:
    """A token, and who redeemed it."""

    text: str
    used_by: bytes | None = None
    psk: bytes = b"\x5a" * 32


@dataclass
class FakeHub:
    """The hub."""

    invites: dict[str, Invite] = field(default_factory=dict)
    # Asked before each request over HTTP: a whole answer to give instead.
    refuse: Refusal = lambda *_: None
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    # How many answers to bootstrap get lost.
    lose: int = 0
    port: int = 0
    udp_port: int = 0
    endpoints: list[str] | None = None
    self_state: str = "active"
    # Seconds that the hub's clock is ahead.
    skew: float = 0.0
    # A hub of an older version does not.
    knows_probes: bool = True
    tunnel: wgpy.Tunnel | None = None
    beats: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    beat_times: list[float] = field(default_factory=list)
    goodbyes: list[int] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] | None = None
    refused: dict[str, Any] | None = None
    # Octets that a heartbeat may have; larger ones vanish, as on a path with a smaller MTU.
    most_octets: int = 65535
    answers_beats: bool = True
    lines: list[trio.abc.Stream] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)
    _life: trio.CancelScope = field(default_factory=trio.CancelScope)
    _down: trio.Event = field(default_factory=trio.Event)
    peer: tuple[bytes, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def invite(self, number: int = 0) -> str:
        """A new token."""
        token_id = b32(hashlib.sha256(f"id {number}".encode()).digest())[:10]
        text = token(token_id, hashlib.sha256(f"secret {number}".encode()).digest(), HUB_PUBLIC)
        self.invites[token_id] = Invite(text)
        return text

    # --- HTTP --------------------------------------------------------------------------------------------------------

    async def handle(self, stream: trio.abc.Stream) -> None:
        http = h11.Connection(h11.SERVER)
        body = b""
        request = None
        try:
            while not isinstance(event := http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    http.receive_data(bytes(await stream.receive_some(65536)))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return
            assert request is not None
            status, octets, headers = self.answer(request.target.decode(), body)
            if status == 0:
                return
            fields = [("content-length", str(len(octets))), ("connection", "close"), *headers.items()]
            head = http.send(h11.Response(status_code=status, headers=fields)) or b""
            await stream.send_all(head + octets)
        except (trio.BrokenResourceError, h11.ProtocolError):
            return
        finally:
            await stream.aclose()

    def answer(self, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """What to say; status 0 for nothing at all."""
        if path == "/healthz":
            return 200, b"ok", {"date": email.utils.formatdate(time.time() + self.skew, usegmt=True)}
        document = json.loads(body)
        self.requests.append((path, document))
        if path == "/v1/edge/probe" and self.knows_probes:
            if self.tunnel is not None:
                key = wgpy.PublicKey(base64.b64decode(document["pubkey"]))
                self.tunnel.device.add_peer(wgpy.PeerConfig(key))
            return (
                200,
                json.dumps({"pubkey": b64(HUB_PUBLIC), "endpoints": self.public_config()["hub"]["endpoints"]}).encode(),
                {},
            )
        if path == "/v1/edge/probe":
            return 404, b"not found", {}
        if refusal := self.refuse(path, document):
            status, problem, headers = refusal
            return status, json.dumps(problem).encode(), headers
        edge = base64.b64decode(document["pubkey"])
        nonce = base64.b64decode(document["nonce"])
        shared = X25519PrivateKey.from_private_bytes(HUB_PRIVATE).exchange(X25519PublicKey.from_public_bytes(edge))
        key = mac(shared, b"daalu-edge/1 bootstrap")
        stamp = struct.pack(">Q", document["ts"])
        if path == "/v1/edge/self":
            assert document["proof"] == b64(mac(key, b"self\0" + edge + nonce + stamp))
            told = {"state": self.self_state, "at": 1_760_000_000, "config": self.public_config()}
            return self._signed(key, nonce, canonical(told).encode())
        assert path == "/v1/edge/bootstrap"
        token_id = document["token"].split("_")[1]
        proof = mac(key, b"request\0" + token_id.encode() + b"\0" + edge + nonce + stamp)
        if document["proof"] != b64(proof):
            return 422, b'{"code": "bad_proof"}', {}
        invite = self.invites.get(token_id)
        if invite is None or invite.text != document["token"]:
            return 401, b'{"code": "token_unknown"}', {}
        if invite.used_by not in (None, edge):
            return 409, b'{"code": "token_used"}', {}
        invite.used_by = edge
        self.put_peer(edge, invite.psk)
        answer = {**self.public_config(), "psk_sealed": b64(seal_psk(shared, key, invite.psk, "cl_one"))}
        octets = canonical(answer).encode()
        self.bodies.append(octets)
        if self.lose:
            self.lose -= 1
            return 0, b"", {}
        return self._signed(key, nonce, octets)

    @staticmethod
    def _signed(key: bytes, nonce: bytes, octets: bytes) -> tuple[int, bytes, dict[str, str]]:
        return 200, octets, {"Daalu-Answer-Mac": b64(mac(key, b"answer\0" + nonce + octets))}

    def public_config(self) -> dict[str, Any]:
        return {
            "cluster_id": "cl_one",
            "address": EDGE_ADDRESS,
            "address6": None,
            "mtu": 1420,
            "keepalive": 25,
            "hub": {
                "pubkey": b64(HUB_PUBLIC),
                "endpoints": self.endpoints or [f"127.0.0.1:{self.udp_port or 9}"],
                "relay_url": None,
                "address": HUB_ADDRESS,
                "address6": None,
            },
            "config_revision": 1,
        }

    # --- WireGuard ---------------------------------------------------------------------------------------------------

    async def run_wire(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the tunnel, and whatever listens in it; after `restart` another one, on the same port."""
        while True:
            private = wgpy.PrivateKey(HUB_PRIVATE)
            config = wgpy.InterfaceConfig(private, addresses=[f"{HUB_ADDRESS}/24"], mtu=1420, listen_port=self.udp_port)
            with trio.CancelScope() as self._life:
                async with wgpy.open_tunnel(config) as self.tunnel, trio.open_nursery() as nursery:
                    self.udp_port = self.tunnel.device.udp.port
                    if self.peer is not None:
                        self.put_peer(*self.peer)
                    nursery.start_soon(self.serve_beats)
                    nursery.start_soon(self.serve_control)
                    task_status.started()
                    await trio.sleep_forever()
            task_status = trio.TASK_STATUS_IGNORED
            await self._down.wait()

    def stop(self) -> None:
        """The hub is away from now on."""
        self._down = trio.Event()
        self._life.cancel()

    def start(self) -> None:
        """The hub is back; it remembers its peers, and nothing else."""
        self._down.set()

    def put_peer(self, edge: bytes, psk: bytes) -> None:
        self.peer = (edge, psk)
        if self.tunnel is None:
            return
        key = wgpy.PublicKey(edge)
        for other in list(self.tunnel.device.statistics().peers):
            self.tunnel.device.remove_peer(other)
        self.tunnel.device.add_peer(
            wgpy.PeerConfig(key, allowed_ips=[f"{EDGE_ADDRESS}/32"], preshared_key=wgpy.PresharedKey(psk))
        )

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when something that was heard makes the condition true."""
        while not condition():
            await self._news.wait()

    def note(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def serve_beats(self) -> None:
        assert self.tunnel is not None
        async with await self.tunnel.net.open_udp(local=(None, 7000)) as udp:
            async for octets, address in udp:
                _, _, kind, seq, sent, echo, held = BEAT.unpack_from(octets)
                if kind == 3:
                    self.goodbyes.append(octets[BEAT.size])
                elif kind == 1 and len(octets) + 28 <= self.most_octets:
                    self.beats.append((len(octets), seq, sent, echo, held))
                    self.beat_times.append(trio.current_time())
                    if self.answers_beats:
                        now = int(trio.current_time() * 1e6)
                        answer = BEAT.pack(b"DH", 1, 2, seq, now, sent, 0)
                        await udp.send_to(answer.ljust(len(octets), b"\0"), address)
                self.note()

    async def serve_control(self) -> None:
        assert self.tunnel is not None
        await self.tunnel.net.serve_tcp(self._control, 7001)

    async def _control(self, stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._converse(stream)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        rest = b""
        self.lines.append(stream)
        while data := await stream.receive_some():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                self.messages.append(message)
                self.note()
                if message["type"] == "hello":
                    first = self.refused or {"type": "welcome", "protocol": 1, "now": int(time.time())}
                    await self.say(stream, first)
                    if self.config is not None and self.config["revision"] > message["config_revision"]:
                        await self.say(stream, self.config)

    @staticmethod
    async def say(stream: trio.abc.Stream, message: dict[str, Any]) -> None:
        async with _SAYING:
            await stream.send_all(json.dumps(message).encode() + b"\n" + b'{"type": "something new"}\n')

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    async def ask(self, request: bytes) -> bytes:
        """One request to the edge's proxy, by hand; the whole answer until the edge hangs up or is silent."""
        assert self.tunnel is not None
        stream = await self.tunnel.net.open_tcp_stream(EDGE_ADDRESS, 7443)
        async with stream:
            await stream.send_all(request)
            answer = b""
            with trio.move_on_after(10):
                while data := await stream.receive_some():
                    answer += data
            return answer


@contextlib.asynccontextmanager
async def open_hub(*, has_tunnel: bool = True, ssl_context: Any = None) -> AsyncIterator[FakeHub]:
    """A running hub."""
    hub = FakeHub()
    async with trio.open_nursery() as nursery:
        if has_tunnel:
            await nursery.start(hub.run_wire)
        listeners: list[Any] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        hub.port = listeners[0].socket.getsockname()[1]
        if ssl_context is not None:
            listeners = [trio.SSLListener(one, ssl_context, https_compatible=True) for one in listeners]
        nursery.start_soon(trio.serve_listeners, hub.handle, listeners)
        yield hub
        nursery.cancel_scope.cancel()
