import trio

import wgpy


async def greet(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"hello " + await stream.receive_some())


async def main() -> None:
    home, phone = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate()
    to_phone = wgpy.PeerConfig(phone.public_key, allowed_ips=["10.0.0.2/32"])
    at_home = wgpy.InterfaceConfig(home, addresses=["10.0.0.1/24"], peers=[to_phone])
    async with wgpy.open_tunnel(at_home) as server, trio.open_nursery() as nursery:
        await nursery.start(server.net.serve_tcp, greet, 7)
        at = wgpy.Endpoint("127.0.0.1", server.device.udp.port)
        to_home = wgpy.PeerConfig(home.public_key, allowed_ips=["10.0.0.0/24"], endpoint=at)
        config = wgpy.InterfaceConfig(phone, addresses=["10.0.0.2/24"], peers=[to_home])
        async with wgpy.open_tunnel(config) as tunnel, await tunnel.net.open_tcp_stream("10.0.0.1", 7) as stream:
            await stream.send_all(b"world")
            print((await stream.receive_some()).decode(), "through", tunnel.device.engine.mtu, "octets of MTU")
        nursery.cancel_scope.cancel()


trio.run(main)
