"""B73: random octets into every parser. No exception escapes, nothing changes without authentication, nothing grows.

Short and seeded here; `WGPY_FUZZ_SECONDS=600 pytest tests/fuzz` gives each parser ten minutes.
"""

from __future__ import annotations

import contextlib
import random
import struct

from tests.behaviours.forge import Initiator, with_macs
from tests.fuzz.rounds import seeds
from tests.property.rows import rows, rows_numpy
from tests.property.strategies import TCP, UDP, PacketShape, received
from tests.tun.test_linux import Wire
from wgpy.config import Endpoint, InterfaceConfig, check
from wgpy.constants import HANDSHAKE_QUEUE_SIZE
from wgpy.dataplane import merge
from wgpy.errors import ConfigError
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.testing.pair import A4, B4, Pair, packet
from wgpy.uapi import BadRequest, RequestReader, parse_state
from wgpy.wire import ip
from wgpy.wire.icmp import host_unreachable


def spoiled(source: random.Random, octets: bytes) -> bytes:
    """Some good octets with some of them changed, cut away, repeated or made up."""
    data = bytearray(octets)
    for _ in range(source.choice([0, 1, 1, 2, 5])):
        at = source.randrange(len(data) + 1)
        match source.randrange(5):
            case 0:
                data[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                del data[at : at + source.choice([1, 4, 100])]
            case 2:
                data[at:at] = data[at : at + source.choice([1, 16])]
            case 3:
                data[at : at + 2] = source.choice([b"\0\0", b"\xff\xff", b"\x80\0", b"\0\1"])
            case _:
                data[at:at] = source.randbytes(source.choice([1, 3, 32]))
    return bytes(data)


def test_b73_datagrams() -> None:
    pair = Pair(b_knows_a=True)
    pair.shake_hands()
    tap = [one.octets for one in pair.network.tap]
    forger = Initiator(pair.a_key, pair.b_key.public_key, pair.network.random.randbytes)
    own = [
        *tap,
        forger.initiation(pair.network.wall_clock() - 100),
        with_macs(b"\1\0\0\0" + bytes(112), forger.responder),
    ]
    engine = pair.b.engine
    elsewhere = Endpoint("198.51.100.66", 666)
    before = engine.state(), engine.statistics().sessions
    for seed in seeds(400):
        source = random.Random(seed)
        octets, sizes = b"", []
        for _ in range(source.choice([1, 2, 5])):
            one = source.randbytes(source.choice([0, 1, 31, 32, 64, 92, 148, 1500]))
            octets += one if source.random() < 0.2 else spoiled(source, source.choice(own))
            sizes.append(len(octets))
        batch = DatagramBatch(
            bytearray(octets), source.choice([0, *sizes, 32, 148]), elsewhere, tos=source.randrange(256)
        )
        engine.receive_datagrams(batch, pair.network.now)
        while engine.statistics().handshake_queue:
            engine.handle_timer(pair.network.now)
        assert engine.packets_to_deliver() == [], f"seed {seed}"
        answers = [bytes(one) for sent in engine.datagrams_to_send() for one in sent]
        assert all(answer[0] == 3 for answer in answers), f"seed {seed}: an answer to somebody who proved nothing"
        assert (engine.state(), engine.statistics().sessions) == before, f"seed {seed}"
    engine.events()
    pair.network.run(3)
    assert pair.exchange(), "and the tunnel works on"


REQUEST = (
    "set=1\nprivate_key={k}\nlisten_port=51820\nfwmark=1\nreplace_peers=true\npublic_key={k}\nupdate_only=true\n"
    "preshared_key={k}\nendpoint=[fe80::1%eth0]:51820\npersistent_keepalive_interval=25\nreplace_allowed_ips=true\n"
    "allowed_ip=10.0.0.0/8\nallowed_ip=-fd00::/8\nprotocol_version=1\nremove=true\n\nget=1\n\n"
).replace("{k}", "0123456789abcdef" * 4)


def test_b73_control_requests() -> None:
    for seed in seeds(600):
        source = random.Random(seed)
        octets = spoiled(source, REQUEST.encode())
        reader, found = RequestReader(), []
        cut = source.randrange(len(octets) + 1)
        for piece in (octets[:cut], octets[cut:]):
            found += reader.feed(piece)
        whole = RequestReader().feed(octets)
        assert [type(one) for one in found] == [type(one) for one in whole], f"seed {seed}"
        assert all(not isinstance(one, BadRequest) or one.reason for one in found)
        with contextlib.suppress(ConfigError):
            parse_state(octets)


FILE = """\
# comment
[Interface]
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
ListenPort = 51820
FwMark = 0xca6c
Address = 10.0.0.1/24, fd00::1/64
DNS = 10.0.0.53, home.example
MTU = 1420
Table = off
PostUp = echo %i # kept
SaveConfig = true

[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
PresharedKey = /UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak=
AllowedIPs = 10.0.0.2/32, +::/0, -10.0.0.0/8
Endpoint = [2001:db8::1%eth0]:51820
PersistentKeepalive = off
"""


def test_b73_configuration_files() -> None:
    read = 0
    for seed in seeds(600):
        source = random.Random(seed)
        lines = FILE.splitlines(keepends=True)
        if source.random() < 0.5:
            source.shuffle(lines)
        text = spoiled(source, "".join(lines).encode()).decode(errors=source.choice(["replace", "ignore"]))
        found = check(text)
        try:
            config = InterfaceConfig.from_ini(text)
        except ConfigError as error:
            problem = error
            assert any(one.is_error for one in found), f"seed {seed}: {problem}"
            continue
        read += 1
        assert not any(one.is_error for one in found), f"seed {seed}"
        assert config.to_ini() == text.replace("\r\n", "\n") or "\n".join(text.splitlines()) in config.to_ini()
        assert InterfaceConfig.from_json(config.to_json()) == config
    assert read > 20


def test_b73_json_documents() -> None:
    document = InterfaceConfig.from_ini(FILE).to_json().encode()
    for seed in seeds(300):
        source = random.Random(seed)
        with contextlib.suppress(ConfigError):
            InterfaceConfig.from_json(spoiled(source, document).decode(errors="replace"))


def inner_packets() -> list[bytes]:
    shapes = [
        PacketShape(payload=bytes(300), options=b"\1" * 12),
        PacketShape(protocol=UDP, payload=bytes(300)),
        PacketShape(protocol=TCP, payload=b"", ip_options=b"\1" * 4),
    ]
    return [shape.build() for shape in (*shapes, *(shape.but(ip_options=b"").six() for shape in shapes))]


def test_b73_the_virtio_reader() -> None:
    """Whatever the kernel, or whoever forwards through it, writes in front of a packet: read, split, finished."""
    packets = inner_packets()
    wire = Wire()
    delivered = 0
    for seed in seeds(1500):
        source = random.Random(seed)
        for _ in range(source.choice([1, 1, 4])):
            octets = source.choice(packets) if source.random() < 0.7 else spoiled(source, source.choice(packets))
            start = source.choice([0, 20, 24, 32, 40, 65535])
            header = struct.pack(
                "=BBHHHH", source.choice([0, 1, 1, 1, 3]), source.choice([0, 1, 4, 5, 0x81, 7]), source.randrange(400),
                source.choice([0, 1, 7, 100, 299, 300, 301, 65535]), start, source.choice([6, 16, 16, 0]),
            )  # fmt: skip
            wire.give(header[: 10 if source.random() < 0.95 else source.randrange(10)], octets)
        slabs = wire.tun.read_batch()
        delivered += len(slabs)
        for slab in slabs:
            assert all(0 < ip.true_length_untrusted(row) <= 1420 for row in slab), f"seed {seed}"
    assert delivered > 100
    assert sum(wire.tun.drops.values()) > 100
    wire.tun.close()
    wire.kernel.close()


def test_b73_the_coalescer() -> None:
    """Inner packets are whole when they come here, and nothing else about them is certain."""
    packets = inner_packets()
    for seed in seeds(400):
        source = random.Random(seed)
        chosen, slabs = source.choice(packets), []
        for _ in range(source.randint(1, 8)):
            octets = spoiled(source, chosen if source.random() < 0.7 else source.choice(packets))
            length = ip.true_length_untrusted(octets)
            if length:
                slabs.append(received([octets[:length]] * source.choice([1, 1, 2, 5])))
        count = sum(slab.count for slab in slabs)
        plain = merge.merge([slab.copy() for slab in slabs], joins_udp=True, rows=rows)
        fast = merge.merge(slabs, joins_udp=True, rows=rows_numpy)
        assert sum(write.packets for write in plain) == count, f"seed {seed}"
        assert [b"".join(write.buffers) for write in plain] == [b"".join(write.buffers) for write in fast]


def test_b73_inner_packets_on_their_way_out() -> None:
    pair = Pair()
    pair.shake_hands()
    engine = pair.a.engine
    for seed in seeds(400):
        source = random.Random(seed)
        octets = spoiled(source, source.choice([*inner_packets(), packet(), packet("fd00::1", "fd00::2")]))
        engine.send_packet(octets, pair.network.now)
        engine.packets_to_deliver()
        engine.datagrams_to_send()
        host_unreachable(octets)
    assert pair.exchange()


def test_b73_nothing_grows() -> None:
    """A million unknown senders would leave what ten thousand leave: counters, and bounded tables."""
    pair = Pair()
    engine = pair.b.engine
    junk = with_macs(b"\1\0\0\0" + bytes(112), pair.b_key.public_key)
    for number in range(3 * HANDSHAKE_QUEUE_SIZE):
        engine.receive_datagram(junk, Endpoint("203.0.113.9", 1 + number), pair.network.now)
        engine.receive_datagram(bytes(number % 200), A4, pair.network.now, local=B4)
    state = engine.statistics()
    assert state.handshake_queue <= HANDSHAKE_QUEUE_SIZE
    assert (state.sessions, state.staged_packets) == (0, 0)
    assert len(engine.events()) <= 4096
