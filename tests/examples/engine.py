import random

import wgpy

rand, wall = random.Random(7).randbytes, lambda: 1_750_000_000.0
a_key, b_key = wgpy.PrivateKey(rand(32)), wgpy.PrivateKey(rand(32))
a_at, b_at = wgpy.Endpoint("192.0.2.1", 51820), wgpy.Endpoint("192.0.2.2", 51820)
to_b = wgpy.PeerConfig(b_key.public_key, allowed_ips=["10.0.0.2/32"], endpoint=b_at)
to_a = wgpy.PeerConfig(a_key.public_key, allowed_ips=["10.0.0.1/32"])
a = wgpy.Engine(wgpy.InterfaceConfig(a_key, peers=[to_b]), random=rand, wall_clock=wall)
b = wgpy.Engine(wgpy.InterfaceConfig(b_key, peers=[to_a]), random=rand, wall_clock=wall)

packet = bytes.fromhex("4500001c00004000401126cf0a0000010a000002000700070008ebcd")
a.send_packet(packet, now=0.0)  # no session yet: it waits, and an initiation is queued
for now in (0.00, 0.02):  # initiation and response, then transport data
    for batch in a.datagrams_to_send():
        b.receive_datagrams(batch.arriving_from(a_at), now)
    for batch in b.datagrams_to_send():
        a.receive_datagrams(batch.arriving_from(b_at), now)
assert [bytes(row) for slab in b.packets_to_deliver() for row in slab] == [packet]
