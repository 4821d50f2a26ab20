"""Where the loads of `netstack` run: for every contender a pair of namespaces of its own, and servers on the right.

    left 192.0.2.1                                             right 192.0.2.2
    client 10.77.0.1 ══ near ══════════════════════════ 51820  wireguard-go ── 10.77.0.2 Linux, `ends system serve`
                     ══ far, lossy, late ══ relay ═════ 51820
                     ══ own ═══════════════════════════ 51821  a server of the client's own kind, 10.77.0.3

The client is `ends.py` over wgpy's stack or over sockets of the system (wireguard-go is on the left too, then), or
gVisor's counterpart in Go. A relay holds every datagram back for 10 ms each way, and loses or delays some of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import wgpy
from benchmarks import contenders
from benchmarks.contenders import gvisor
from benchmarks.host import REPOSITORY, revision
from benchmarks.load import LoadFailed
from tests.e2e.daemons import LEFT, RIGHT
from tests.e2e.lab import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.lab import Lab, Namespace

__all__ = ["NAMES", "RELAYS", "RTT_MS", "Site", "Stack", "find"]

NAMES: Final = ("wgpy", "gvisor", "linux")
RTT_MS: Final = 20.0
RELAYS: Final[dict[str, dict[str, float]]] = {
    "far": {},
    "lossy": {"loss": 0.01},
    "late": {"late": 0.02, "jitter": 0.003},
}
_MTU: Final = 1420
_OWN: Final = "10.77.0.3"
_FIRST_RELAY: Final = 5555
_ENV: Final = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
_PYTHON: Final = (sys.executable, "-P", "-m")
_ENDS: Final = (*_PYTHON, "benchmarks.ends")


@dataclass(frozen=True, slots=True)
class Stack:
    """Somebody's TCP and UDP.

    Attributes:
        name: in tables.
        version: for the record.
        program: of its clients and servers; empty where `ends.py` is.
    """

    name: str
    version: str
    program: str = ""

    def argv(self, folder: Path, path: str, address: str) -> tuple[str, ...]:
        """How an end is started that reaches its peer by that path; the verb follows."""
        if self.name == "linux":
            return *_ENDS, "system"
        if self.program:
            return self.program, str(folder / f"{path}.uapi"), address
        return *_ENDS, str(folder / f"{path}.conf")


def find(name: str) -> Stack:
    """The stack of that name.

    Raises:
        Missing: not on this machine.
    """
    if name == "gvisor":
        program, version = gvisor.build()
        return Stack(name, version, program)
    if name == "linux":
        daemon = contenders.find("wireguard-go")
        return Stack(name, f"TCP CUBIC behind wireguard-go {daemon.version}")
    return Stack(name, revision(REPOSITORY))


class Site:
    """The two namespaces of one stack, everything at work."""

    def __init__(self, lab: Lab, stack: Stack) -> None:
        """Start the servers and the relays.

        Args:
            lab: takes everything down again.
            stack: of the client.
        """
        self.stack = stack
        self._folder = lab.folder / stack.name
        self._folder.mkdir()
        self._left, self._right = lab.namespace("left"), lab.namespace("right")
        ends = lab.cable(self._left, self._right)
        for namespace, cable_end, own in ((self._left, ends[0], LEFT), (self._right, ends[1], RIGHT)):
            namespace.address(cable_end, f"{own.outer4}/24")
            namespace.sysctl("net.ipv4.tcp_tw_reuse=1")
        client, linux, server = (wgpy.PrivateKey.generate() for _ in range(3))
        daemon = contenders.find("wireguard-go").start(lab, self._right)
        self._to_linux = str(linux.public_key)
        to_client = wgpy.PeerConfig(client.public_key, allowed_ips=[f"{LEFT.inner4}/32"])
        config = wgpy.InterfaceConfig(linux, listen_port=51820, peers=[to_client])
        self._configure(daemon, config, RIGHT.inner4)
        self._serve(Stack("linux", ""), "", RIGHT.inner4)
        endpoints = {"near": f"{RIGHT.outer4}:51820", "own": f"{RIGHT.outer4}:51821"}
        for port, (name, weather) in enumerate(RELAYS.items(), _FIRST_RELAY):
            what = json.dumps({"delay": RTT_MS / 2000} | weather)
            relay = self._left.spawn(*_PYTHON, "tests.e2e.relay", str(port), RIGHT.outer4, "51820", what, env=_ENV)
            eventually("the relay relays", lambda relay=relay: "relaying" in relay.output)  # type: ignore[misc]
            endpoints[name] = f"127.0.0.1:{port}"
        self._endpoints = endpoints
        self._daemon: Any = None
        if stack.name == "linux":
            self._daemon = contenders.find("wireguard-go").start(lab, self._left)
            config = wgpy.InterfaceConfig(client, peers=[self._to(linux, "near")])
            self._configure(self._daemon, config, LEFT.inner4)
            return
        own = wgpy.InterfaceConfig(server, addresses=[f"{_OWN}/32"], mtu=_MTU, listen_port=51821, peers=[to_client])
        self._write("serve", own)
        self._serve(stack, "serve", _OWN)
        for path in endpoints:
            peer = self._to(server if path == "own" else linux, path)
            self._write(path, wgpy.InterfaceConfig(client, addresses=[f"{LEFT.inner4}/32"], mtu=_MTU, peers=[peer]))

    # --- setting up --------------------------------------------------------------------------------------------------

    def _to(self, peer: wgpy.PrivateKey, path: str) -> wgpy.PeerConfig:
        endpoint = wgpy.Endpoint.parse(self._endpoints[path])
        return wgpy.PeerConfig(peer.public_key, allowed_ips=["10.77.0.0/24"], endpoint=endpoint)

    def _write(self, path: str, config: wgpy.InterfaceConfig) -> None:
        """The configuration for both kinds of programs."""
        for suffix, text in (("conf", config.to_ini()), ("uapi", _uapi(config))):
            file = self._folder / f"{path}.{suffix}"
            file.touch(0o600)
            file.write_text(text)

    def _configure(self, daemon: Any, config: wgpy.InterfaceConfig, address: str) -> None:
        file = self._folder / f"{daemon.interface}.conf"
        file.touch(0o600)
        file.write_text(config.to_ini())
        daemon.wg("setconf", daemon.interface, str(file))
        daemon.up(f"{address}/24", mtu=_MTU)

    def _serve(self, stack: Stack, path: str, address: str) -> None:
        server = self._right.spawn(*stack.argv(self._folder, path, address), "serve", env=_ENV)
        eventually(f"{stack.name} serves", lambda: "serving" in server.output)

    # --- measuring ---------------------------------------------------------------------------------------------------

    def run(self, path: str, verb: str, number: int, *, limit: float = 120.0) -> dict[str, Any]:
        """Let a new client do that; what it reports.

        Raises:
            LoadFailed: it did not come to an end, or what arrived was not what had been sent.
        """
        if self._daemon is not None:
            self._daemon.set("peer", self._to_linux, "endpoint", self._endpoints[path])
        host = _OWN if path == "own" else RIGHT.inner4
        argv = (*self.stack.argv(self._folder, path, LEFT.inner4), verb, host, str(number))
        return read_report(f"{self.stack.name}, {path}, {verb}", self._left, argv, limit)


def read_report(what: str, namespace: Namespace, argv: tuple[str, ...], limit: float) -> dict[str, Any]:
    """Run a client; its report.

    Raises:
        LoadFailed: as `Site.run`.
    """
    command = namespace.argv("env", *(f"{name}={value}" for name, value in _ENV.items()), *argv)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
        report: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"{what}: not done after {limit:g} s") from None
    except json.JSONDecodeError:
        raise LoadFailed(f"{what}: {done.stderr.strip()[-500:]}") from None
    if not report["is_whole"]:
        raise LoadFailed(f"{what}: what arrived is not what was sent: {report}")
    return report


def _uapi(config: wgpy.InterfaceConfig) -> str:
    """A configuration in the words of the control protocol."""
    assert config.private_key is not None
    lines = [f"private_key={bytes(config.private_key).hex()}"]
    lines += [f"listen_port={config.listen_port}"] if config.listen_port else []
    for peer in config.peers:
        lines.append(f"public_key={bytes(peer.public_key).hex()}")
        lines += [f"endpoint={peer.endpoint}"] if peer.endpoint else []
        lines += [f"allowed_ip={prefix}" for prefix in peer.allowed_ips]
    return "\n".join(lines) + "\n"
