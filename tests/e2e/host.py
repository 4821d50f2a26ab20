"""A host made of wgpy alone, as a process: answers ping, echoes datagrams on port 7, and says what it sees.

    python -m tests.e2e.host CONFIG PEER_ADDRESS...

It first tries everything towards the addresses of the peer (ping, datagrams to port 7, closed ports), prints one JSON
object, and then stays.
"""

from __future__ import annotations

import json
import pathlib
import sys

import trio

import wgpy

SIZES = (0, 56, 1372, 1373, 20_000, 65_000)


async def main(config: wgpy.InterfaceConfig, peers: list[str]) -> None:
    async with wgpy.open_tunnel(config) as tunnel, await tunnel.net.open_udp(local=(None, 7)) as echo:
        net = tunnel.net
        report: dict[str, object] = {}
        for peer in peers:
            report[f"ping {peer}"] = [size for size in SIZES if await net.ping(peer, size=size, timeout=10) < 10]
            async with await net.open_udp(remote=(peer, 7)) as udp:
                echoed = []
                for size in SIZES:
                    await udp.send(bytes(size))
                    with trio.fail_after(10):
                        echoed.append(len(await udp.receive()))
                report[f"udp {peer}"] = echoed
            async with await net.open_udp(remote=(peer, 9)) as udp:
                await udp.send(b"anybody?")
                report[f"closed udp {peer}"] = await name_of_failure(udp.receive)
            report[f"closed tcp {peer}"] = await name_of_failure(lambda peer=peer: net.open_tcp_stream(peer, 9))
        status = pathlib.Path("/proc/self/status").read_text()  # noqa: ASYNC240 # no disk behind it
        report["capabilities"] = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
        print(json.dumps(report), flush=True)
        async for payload, address in echo:
            await echo.send_to(payload, address)


async def name_of_failure(call: object) -> str:
    try:
        with trio.fail_after(10):
            await call()  # type: ignore[operator]
    except OSError as problem:
        return type(problem).__name__
    return "none"


if __name__ == "__main__":
    trio.run(main, wgpy.InterfaceConfig.from_ini(pathlib.Path(sys.argv[1]).read_text()), sys.argv[2:])
