import trio

import wgpy

PACKET = bytes.fromhex("4500001c00004000401126cf0a0000010a000002000700070008ebcd")  # IPv4, UDP, empty


async def main() -> None:
    alice, bob = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate()
    to_alice = wgpy.PeerConfig(alice.public_key, allowed_ips=["10.0.0.1/32"])
    there = wgpy.MemoryDevice("bob")
    async with wgpy.open_device(wgpy.InterfaceConfig(bob, peers=[to_alice]), there) as server:
        at = wgpy.Endpoint("127.0.0.1", server.udp.port)
        to_bob = wgpy.PeerConfig(bob.public_key, allowed_ips=["10.0.0.2/32"], endpoint=at)
        here = wgpy.MemoryDevice("alice")
        async with wgpy.open_device(wgpy.InterfaceConfig(alice, peers=[to_bob]), here):
            await here.send([PACKET])
            assert await there.receive() == [PACKET]
            print("one packet, encrypted, through", at)


trio.run(main)
