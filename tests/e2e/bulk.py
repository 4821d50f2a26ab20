"""One end of a transfer, as a process of its own: over a socket of the system, or over wgpy's own TCP in a tunnel.

    python -m tests.e2e.bulk system dial HOST PORT OCTETS
    python -m tests.e2e.bulk CONFIG listen HOST PORT OCTETS

Both ends send so many octets and a FIN, and read until the other's FIN. What they saw is printed as JSON. CONFIG is a
file as wg-quick has it; nothing but this process knows of that tunnel.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import random
import sys
import time

import trio

import wgpy

_BLOCK = 2**18


async def transfer(stream: trio.abc.HalfCloseableStream, octets: int, seed: str) -> dict[str, object]:
    """Send and receive at once: octets, digests and seconds."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    count = 0
    begin = time.monotonic()

    async def send() -> None:
        source = random.Random(seed)
        for at in range(0, octets, _BLOCK):
            block = source.randbytes(min(_BLOCK, octets - at))
            sent.update(block)
            await stream.send_all(block)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        async for block in stream:
            received.update(block)
            count += len(block)
    seconds = time.monotonic() - begin
    await stream.aclose()
    return {"sent": sent.hexdigest(), "received": received.hexdigest(), "octets": count, "seconds": round(seconds, 3)}


async def over_system(role: str, host: str, port: int, octets: int) -> dict[str, object]:
    if role == "dial":
        return await transfer(await trio.open_tcp_stream(host, port), octets, role)
    [listener] = await trio.open_tcp_listeners(port, host=host)
    print("listening", flush=True)
    async with listener:
        return await transfer(await listener.accept(), octets, role)


async def say_hello(tunnel: wgpy.Tunnel, host: str) -> None:
    """The other end does not know where we are before we have said something; in bad weather, said again."""
    with trio.fail_after(60):
        while True:
            try:
                await tunnel.net.ping(host, timeout=2)
            except TimeoutError:
                continue
            return


async def over_tunnel(config: wgpy.InterfaceConfig, role: str, host: str, port: int, octets: int) -> dict[str, object]:
    async with wgpy.open_tunnel(config) as tunnel:
        if role == "dial":
            stream = await tunnel.net.open_tcp_stream(host, port)
        else:
            [listener] = await tunnel.net.open_tcp_listeners(port, host=host)
            await say_hello(tunnel, str(config.peers[0].allowed_ips[0]).partition("/")[0])
            print("listening", flush=True)
            async with listener:
                stream = await listener.accept()
        report = await transfer(stream, octets, role)
        info = stream.tcp_info()
        drops = {reason.name: count for reason, count in tunnel.net.statistics().drops.items()}
        return report | {"retransmits": info.retransmits, "spurious": info.spurious, "drops": drops}


def main(where: str, role: str, host: str, port: str, octets: str) -> None:
    if where == "system":
        report = trio.run(over_system, role, host, int(port), int(octets))
    else:
        config = wgpy.InterfaceConfig.from_ini(pathlib.Path(where).read_text())
        report = trio.run(over_tunnel, config, role, host, int(port), int(octets))
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
