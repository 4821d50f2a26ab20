"""`wgpy show`: interfaces, peers, traffic, and with `--watch` the rates."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wgpy.cli.parser import add_command, colour, time_limit
from wgpy.errors import DeviceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from wgpy.cli.parser import Commands, Parser
    from wgpy.uapi import DeviceState, PeerState

__all__ = ["add_to", "ask"]

_SOCKETS = Path("/var/run/wireguard")
_PATIENCE = 10.0


def add_to(commands: Commands[Parser]) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "show",
        _show,
        "show userspace interfaces and their peers",
        examples="  wgpy show\n  wgpy show wg0 --watch\n  wgpy show --json | jq '.[].peers[].endpoint'\n",
    )
    parser.add_argument("interface", metavar="IFACE", nargs="?", help="only this one")
    parser.add_argument("--json", action="store_true", help="a list for programs; with --watch one list per line")
    parser.add_argument("--watch", action="store_true", help="again and again, with rates, until Ctrl-C")
    parser.add_argument("--interval", type=time_limit, default=1.0, metavar="SECONDS", help="between two looks (1)")


def ask(name: str) -> DeviceState:
    """The state of an interface, from the daemon that holds it.

    Raises:
        DeviceError: there is no such interface, or no permission to ask.
        ConfigError: the answer cannot be read.
    """
    from wgpy.uapi import parse_state

    path = _SOCKETS / f"{name}.sock"
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        try:
            client.connect(str(path))
            client.sendall(b"get=1\n\n")
            while not answer.endswith(b"\n\n"):
                octets = client.recv(1 << 20)
                if not octets:
                    break
                answer += octets
        except TimeoutError:
            raise DeviceError(None, f"the daemon of {name} does not answer") from None
        except OSError as problem:
            raise DeviceError(problem.errno, _why(problem, name, path)) from None
    return parse_state(bytes(answer))


def _why(problem: OSError, name: str, path: Path) -> str:
    match problem:
        case FileNotFoundError() | ConnectionRefusedError():
            known = ", ".join(_names()) or "none is running"
            return f"no userspace interface {name} (there are: {known}); `wg show` shows those of the kernel"
        case PermissionError():
            return f"{path}: permission denied; run this as root"
    return f"{path}: {problem.strerror}"


def _names() -> list[str]:
    return sorted(path.stem for path in _SOCKETS.glob("*.sock") if path.is_socket())


def _show(options: argparse.Namespace) -> int:
    before: dict[str, tuple[float, DeviceState]] = {}
    while True:
        found = {name: ask(name) for name in ([options.interface] if options.interface else _names())}
        now = time.monotonic()
        if options.json:
            indent = None if options.watch else 2
            print(json.dumps([_as_json(name, state) for name, state in found.items()], indent=indent), flush=True)
        else:
            blocks = ["\n".join(_lines(name, state, before.get(name), now)) for name, state in found.items()]
            if options.watch and sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")
            print("\n\n".join(blocks) or "no userspace interface is running", flush=True)
        if not options.watch:
            return 0
        before = {name: (now, state) for name, state in found.items()}
        time.sleep(max(0.05, options.interval))


def _as_json(name: str, state: DeviceState) -> dict[str, Any]:
    return {
        "interface": name,
        "public_key": str(state.private_key.public_key) if state.private_key else None,
        "listen_port": state.listen_port,
        "fwmark": state.fwmark,
        "peers": [
            {
                "public_key": str(peer.public_key),
                "has_preshared_key": not peer.preshared_key.is_zero,
                "endpoint": str(peer.endpoint) if peer.endpoint else None,
                "allowed_ips": [str(prefix) for prefix in peer.allowed_ips],
                "latest_handshake": peer.last_handshake_time or None,
                "rx_bytes": peer.rx_bytes,
                "tx_bytes": peer.tx_bytes,
                "persistent_keepalive": peer.persistent_keepalive or None,
            }
            for peer in state.peers
        ],
    }


def _lines(name: str, state: DeviceState, before: tuple[float, DeviceState] | None, now: float) -> Iterator[str]:
    """As `wg show` prints it."""

    def field(key: str, value: str) -> str:
        return f"  {colour(key, '1')}: {value}"

    yield f"{colour('interface', '1;32')}: {colour(name, '32')}"
    if state.private_key is not None:
        yield field("public key", str(state.private_key.public_key))
        yield field("private key", "(hidden)")
    if state.listen_port:
        yield field("listening port", str(state.listen_port))
    if state.fwmark:
        yield field("fwmark", hex(state.fwmark))
    earlier = {peer.public_key: peer for peer in before[1].peers} if before else {}
    for peer in sorted(state.peers, key=lambda peer: -peer.last_handshake_time):
        yield ""
        yield f"{colour('peer', '1;33')}: {colour(str(peer.public_key), '33')}"
        if not peer.preshared_key.is_zero:
            yield field("preshared key", "(hidden)")
        if peer.endpoint is not None:
            yield field("endpoint", str(peer.endpoint))
        yield field("allowed ips", ", ".join(map(str, peer.allowed_ips)) or "(none)")
        if peer.last_handshake_time:
            yield field("latest handshake", _ago(time.time() - peer.last_handshake_time))
        if peer.rx_bytes or peer.tx_bytes:
            yield field("transfer", f"{_octets(peer.rx_bytes)} received, {_octets(peer.tx_bytes)} sent")
        if before and peer.public_key in earlier:
            yield field("rate", _rates(peer, earlier[peer.public_key], now - before[0]))
        if peer.persistent_keepalive:
            yield field("persistent keepalive", f"every {_spelled(peer.persistent_keepalive)}")


def _rates(peer: PeerState, earlier: PeerState, seconds: float) -> str:
    received = max(0, peer.rx_bytes - earlier.rx_bytes) / seconds
    sent = max(0, peer.tx_bytes - earlier.tx_bytes) / seconds
    return f"{received * 8e-6:.2f} Mbit/s received, {sent * 8e-6:.2f} Mbit/s sent"


def _octets(number: float) -> str:
    if number < 1024:
        return f"{number:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1024:
            return f"{number:.2f} {unit}"
    return f"{number / 1024:.2f} TiB"


def _ago(seconds: float) -> str:
    return "Now" if seconds < 1 else f"{_spelled(int(seconds))} ago"


def _spelled(seconds: int) -> str:
    parts = []
    for size, unit in ((365 * 86400, "year"), (86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
    return ", ".join(parts)
