"""From which address a peer is answered, and by which way: two uplinks, news of routes and addresses; B29, B51.

left ─── to-right ═══ to-left ─── right          192.0.2.1     192.0.2.2       2001:db8:1::1  ::2
     ─── second   ═══ back    ───                198.51.100.1  198.51.100.2    2001:db8:2::1  ::2
                              ─── home           203.0.113.5 and 2001:db8:5::5, behind both
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, RIGHT
from tests.e2e.lab import eventually

VERSIONS = pytest.mark.parametrize("version", [4, 6])


@dataclass
class Net:
    """The addresses of one family.

    Attributes:
        first: of left, on the first cable.
        second: of left, on the second cable.
        via_first: of right, on the first cable.
        via_second: of right, on the second cable.
        home: of right, behind both.
    """

    first: str
    second: str
    via_first: str
    via_second: str
    home: str
    bits: int

    def at(self, host: str) -> str:
        return f"[{host}]:51820" if ":" in host else f"{host}:51820"


NETS = {
    4: Net(LEFT.outer4, "198.51.100.1", RIGHT.outer4, "198.51.100.2", "203.0.113.5", 32),
    6: Net(LEFT.outer6, "2001:db8:2::1", RIGHT.outer6, "2001:db8:2::2", "2001:db8:5::5", 128),
}


class Uplinks:
    """The server is left, at two uplinks; the client is right, and sends from its home address."""

    def __init__(self, wire: Wire, version: int, env: dict[str, str] | None = None) -> None:
        self.wire, self.net = wire, NETS[version]
        self.lab, self.left, self.right = wire.lab, wire.left, wire.right
        self.lab.cable(self.left, self.right, names=("second", "back"))
        self.left.address("second", "198.51.100.1/24", "2001:db8:2::1/64")
        self.right.address("back", "198.51.100.2/24", "2001:db8:2::2/64")
        self.right.ip("link", "add", "home", "type", "bridge")
        self.right.ip("link", "set", "home", "up")
        self.right.address("home", "203.0.113.5/32", "2001:db8:5::5/128")
        for namespace in (self.left, self.right):
            namespace.sysctl("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
            for link in namespace.run("ls", "/sys/class/net").split():
                namespace.sysctl(f"net.ipv4.conf.{link}.rp_filter=0")
        self.env = env
        self.server, self.client = wire.start("left", env=env), wire.start("right", "wireguard-go")

    def route(self, verb: str, via: str, metric: int = 100) -> None:
        """A route of the server to the client's home."""
        self.left.ip("route", verb, f"{self.net.home}/{self.net.bits}", "via", via, "metric", str(metric))

    def connect(self, asked_at: str) -> None:
        """The client calls the server at one of its addresses, from home."""
        net = self.net
        for target, via in ((net.first, "to-left"), (net.second, "back")):
            self.right.ip("route", "replace", f"{target}/{net.bits}", "dev", via, "src", net.home)
        self.server.configure()
        self.client.configure()
        self.server.add_peer(self.client.keys.public, *RIGHT.inner)
        self.client.add_peer(self.server.keys.public, *LEFT.inner, endpoint=net.at(asked_at))
        self.server.up(f"{LEFT.inner4}/24")
        self.client.up(f"{RIGHT.inner4}/24")
        assert self.client.ping(LEFT.inner4, limit=5)

    @property
    def answers_from(self) -> str:
        """The server's endpoint as the client sees it after an answer, when the server has spoken first."""
        assert self.server.ping(RIGHT.inner4, limit=5)
        return self.client.endpoint_of(self.server)


@VERSIONS
@pytest.mark.parametrize("env", [{}, {"WGPY_WORKERS": "2"}], ids=["one process", "two workers"])
def test_the_question_comes_by_one_uplink_and_the_answer_leaves_by_the_other(
    wire: Wire, version: int, env: dict[str, str]
) -> None:
    uplinks = Uplinks(wire, version, env)
    uplinks.route("add", uplinks.net.via_second)
    # The only way out: whoever insists on the first uplink is not heard.
    uplinks.left.run("nft", "-f", "-", text_in=BLOCK_FIRST)
    uplinks.connect(uplinks.net.first)
    assert uplinks.answers_from == uplinks.net.at(uplinks.net.first), "from the address that was asked"
    time.sleep(0.3)  # it looks up the way to who is new, in its own time
    uplinks.left.ip("link", "add", "docker0", "type", "bridge")
    uplinks.left.ip("link", "set", "docker0", "up")
    uplinks.left.ip("link", "del", "docker0")
    assert uplinks.answers_from == uplinks.net.at(uplinks.net.first), "the way is another one than that of the question"
    assert uplinks.server.handshakes_logged() == 1


BLOCK_FIRST = """
table inet block {
    chain out {
        type filter hook output priority 0;
        oifname "to-right" udp sport 51820 drop
    }
}
"""


@VERSIONS
def test_a_bridge_that_appears_changes_no_source(wire: Wire, version: int) -> None:
    """As docker makes one; the default source towards the client is the first address, the one asked is the second."""
    uplinks = Uplinks(wire, version)
    net = uplinks.net
    uplinks.route("add", net.via_first)
    uplinks.connect(net.second)
    assert uplinks.answers_from == net.at(net.second)
    for number in range(3):
        uplinks.left.ip("link", "add", f"docker{number}", "type", "bridge")
        uplinks.left.address(f"docker{number}", f"172.{17 + number}.0.1/16", f"fd0{number}::1/64")
        uplinks.left.ip("link", "set", f"docker{number}", "up")
        assert uplinks.answers_from == net.at(net.second)
    uplinks.left.ip("link", "del", "docker0")
    uplinks.left.ip("addr", "add", "192.0.2.77/24", "dev", "to-right")
    uplinks.left.ip("addr", "del", "192.0.2.77/24", "dev", "to-right")
    for _ in range(3):
        assert uplinks.answers_from == net.at(net.second)


@VERSIONS
@pytest.mark.parametrize("is_moved", [False, True], ids=["at home", "moved to another namespace"])
def test_a_route_that_moves_takes_the_source_with_it_at_once(wire: Wire, version: int, is_moved: bool) -> None:
    uplinks = Uplinks(wire, version)
    net = uplinks.net
    uplinks.route("add", net.via_first)
    if is_moved:
        uplinks.server.move_to(wire.lab.namespace("inside"))
    uplinks.connect(net.first)
    assert uplinks.answers_from == net.at(net.first)
    uplinks.route("add", net.via_second, metric=10)
    eventually("it answers by the better way", lambda: uplinks.answers_from == net.at(net.second))
    uplinks.route("del", net.via_second, metric=10)
    eventually("and by the first again", lambda: uplinks.answers_from == net.at(net.first))
    assert uplinks.server.handshakes_logged() == 1


@VERSIONS
def test_an_address_that_goes_is_left_at_once(wire: Wire, version: int) -> None:
    uplinks = Uplinks(wire, version)
    net = uplinks.net
    uplinks.route("add", net.via_first)
    uplinks.connect(net.second)
    assert uplinks.answers_from == net.at(net.second)
    uplinks.left.ip("addr", "del", f"{net.second}/{24 if version == 4 else 64}", "dev", "second")
    assert uplinks.answers_from == net.at(net.first)


def test_a_link_that_is_made_again_with_another_number_reaches_a_link_local_peer(wire: Wire) -> None:
    """The zone of an endpoint names an interface, not the number that it had."""
    ours, theirs = wire.start("left"), wire.start("right")
    wire.lab.cable(wire.left, wire.right, names=("zone", "there"))

    def give_addresses() -> None:
        wire.left.address("zone", "fe80::1/64")
        wire.right.address("there", "fe80::2/64")

    give_addresses()
    ours.configure()
    theirs.configure()
    ours.add_peer(theirs.keys.public, *RIGHT.inner, endpoint="[fe80::2%zone]:51820", keepalive=1)
    theirs.add_peer(ours.keys.public, *LEFT.inner)
    theirs.up(f"{RIGHT.inner4}/24")
    ours.up(f"{LEFT.inner4}/24")
    assert ours.ping(RIGHT.inner4, limit=5)
    for _ in range(2):
        wire.left.ip("link", "del", "zone")
        wire.left.ip("link", "add", "spare", "type", "bridge")  # takes the number that comes next
        wire.left.ip("link", "del", "spare")
        wire.lab.cable(wire.left, wire.right, names=("zone", "there"))
        give_addresses()
        eventually("it is reached again", lambda: ours.ping(RIGHT.inner4, limit=1))
