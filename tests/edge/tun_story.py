"""One edge in tun mode, with NET_ADMIN alone, against a fake hub: run by `test_tun` in a network namespace of its own.

this process: fake hub, fake API server -- loopback -- edge: daalu0, 100.96.0.7 -- veth -- another pod
"""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import trio

import wgpy
from tests.edge.fakehub import EDGE_ADDRESS, open_hub
from tests.edge.fakekube import open_kube
from tests.edge.joined import Joined
from tests.edge.test_agent import join, settings_for
from tests.edge.test_cli import plain_environment, variables

METADATA = "169.254.169.254"
CONNECT = f"""
import socket
try:
    socket.create_connection(("{EDGE_ADDRESS}", 7443), timeout=10)
    print("open")
except OSError as problem:
    print(type(problem).__name__)
"""
# What a container with `drop: [ALL]`, `add: [NET_ADMIN]` and user 0 is given.
ONLY_NET_ADMIN = [
    "setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+net_admin", "--regid=65532", "--clear-groups",
]  # fmt: skip


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


async def main(folder: pathlib.Path) -> dict[str, Any]:
    """Join, look at what the system has, ask, say goodbye."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", "10.99.0.1/24", "dev", "pod0")
    run("ip", "link", "set", "pod0", "up")
    before = run("ip", "-4", "-j", "route", "show", "table", "all")
    async with open_kube() as kube, open_hub() as hub, trio.open_nursery() as nursery:
        settings = settings_for(kube, hub, folder, mode="tun")
        code, line = await join(settings)
        assert code == 0, line
        process: trio.Process = await nursery.start(
            functools.partial(
                trio.run_process,
                [*ONLY_NET_ADMIN, sys.executable, "-m", "edge_agent", "run"],
                env=plain_environment(variables(settings)),
                check=False,
            )
        )
        await hub.until(lambda: hub.of_type("nodes") and hub.of_type("api"))
        joined = Joined(hub, kube, None, 0)  # type: ignore[arg-type]
        reply = await joined.ask("/version")
        big = await joined.ask("/echo", method="POST", body=b"x" * 300_000, content_type="text/plain")
        found: dict[str, Any] = {
            "hello": hub.of_type("hello")[-1],
            "version": json.loads(reply.body)["gitVersion"],
            "octets": len(json.loads(big.body)["body"]),
            "address": json.loads(run("ip", "-j", "address", "show", "dev", "daalu0"))[0]["addr_info"][0]["local"],
            "route": json.loads(run("ip", "-j", "route", "get", "100.96.0.1"))[0]["dev"],
            "capabilities": capabilities(process.pid),
        }
        # From the pod's network: the kernel takes packets for any of its addresses on any interface, but no listener
        # is there for them.
        found["from_outside"] = run("ip", "netns", "exec", sys.argv[1], sys.executable, "-c", CONNECT).strip()
        found["other_port"] = await reaches_other_port(joined)
        found["ping"] = await pings(joined)
        found["metadata"] = await reaches_metadata(joined, sys.argv[1])
        process.terminate()
        found["code"] = await process.wait()
        await hub.until(lambda: len(hub.goodbyes) == 3)
        found["left"] = [one["ifname"] for one in json.loads(run("ip", "-j", "link")) if one["ifname"] == "daalu0"]
        found["routes_touched"] = run("ip", "-4", "-j", "route", "show", "table", "all") != before
        nursery.cancel_scope.cancel()
    return found


async def reaches_other_port(joined: Joined) -> bool:
    """Whether the hub gets through to a listener of the pod that is none of the edge's, as the pod itself does."""
    [listener] = await trio.open_tcp_listeners(0, host="0.0.0.0")
    port = listener.socket.getsockname()[1]
    async with listener, await trio.open_tcp_stream(EDGE_ADDRESS, port):
        assert joined.hub.tunnel is not None
        with trio.move_on_after(3):
            try:
                await trio.aclose_forcefully(await joined.hub.tunnel.net.open_tcp_stream(EDGE_ADDRESS, port))
            except OSError:
                return False
            return True
    return False


async def reaches_metadata(joined: Joined, other: str) -> list[bool]:
    """Whether the cloud's metadata address is reached: by the pod, and by the hub through a pod that forwards."""
    for name in ("all", "daalu0", "pod0"):
        run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")
    run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    run("ip", "route", "add", METADATA, "via", "10.99.0.2")
    hub = joined.hub.tunnel
    assert hub is not None
    assert joined.hub.peer is not None
    key, psk = joined.hub.peer
    allowed = [f"{EDGE_ADDRESS}/32", f"{METADATA}/32"]
    hub.device.update_peer(
        wgpy.PeerConfig(wgpy.PublicKey(key), allowed_ips=allowed, preshared_key=wgpy.PresharedKey(psk))
    )
    found = []
    listen = ["ip", "netns", "exec", other, sys.executable, "-m", "http.server", "80", "--bind", METADATA]
    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(trio.run_process, listen, check=False, capture_stderr=True))
        with trio.fail_after(30):
            while not found:
                with contextlib.suppress(OSError):
                    await trio.aclose_forcefully(await trio.open_tcp_stream(METADATA, 80))
                    found.append(True)
        is_reached = False
        with trio.move_on_after(5), contextlib.suppress(OSError):
            await trio.aclose_forcefully(await hub.net.open_tcp_stream(METADATA, 80))
            is_reached = True
        found.append(is_reached)
        nursery.cancel_scope.cancel()
    run("ip", "route", "del", METADATA)
    return found


async def pings(joined: Joined) -> bool:
    assert joined.hub.tunnel is not None
    with trio.fail_after(20):
        return bool(await joined.hub.tunnel.net.ping(EDGE_ADDRESS))


def capabilities(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), 16)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(trio.run(main, pathlib.Path(name))))
