import pathlib
import sys

import trio

import wgpy


async def main(name: str, config: wgpy.InterfaceConfig) -> None:
    async with wgpy.open_interface(name, config) as device:
        print(f"{name} is up, UDP port {device.udp.port}", flush=True)
        async for event in device.events():
            match event:
                case wgpy.HandshakeCompleted(peer=peer, endpoint=endpoint):
                    print(f"handshake completed with {peer} at {endpoint}", flush=True)
                case wgpy.EndpointChanged(peer=peer, endpoint=endpoint):
                    print(f"{peer} is now at {endpoint}", flush=True)


path = pathlib.Path(sys.argv[1])
trio.run(main, path.stem, wgpy.InterfaceConfig.from_ini(path.read_bytes()))
