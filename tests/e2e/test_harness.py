"""The harness itself, proven with implementations that we did not write.

left: wireguard-go ═══ cable ═══ right: wireguard-go, boringtun, gotatun
left: wireguard-go ═══ cable ═══ br0 ═══ guest: the kernel
"""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, NEEDS, RIGHT, connect
from tests.e2e.guest import Guest, KernelEnd, wait_for_neighbour
from tests.e2e.lab import Lab

pytestmark = pytest.mark.needs("go")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "other",
    [pytest.param(name, marks=pytest.mark.needs(NEEDS[name])) for name in ("wireguard-go", "boringtun", "gotatun")],
)
def test_two_foreign_daemons_ping_each_other_on_the_bench(wire: Wire, other: str, version: int) -> None:
    left, right = wire.start("left", "wireguard-go"), wire.start("right", other)
    capture = wire.lab.capture(wire.left, "to-right", "udp port 51820")
    connect(left, right, version=version, psk=wire.lab.host("wg", "genpsk").strip())
    assert left.ping(RIGHT.inner4)
    assert left.ping(RIGHT.inner6)
    capture.wait_for("wg.type == 4", 4)
    capture.stop()
    assert capture.count("wg.type == 1") == 1
    assert left.endpoint_of(right) == RIGHT.endpoint(version)
    assert right.endpoint_of(left) == LEFT.endpoint(version)


@pytest.mark.needs("qemu")
@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_in_the_guest_answers_wireguard_go(lab: Lab, guest: Guest, version: int) -> None:
    from tests.e2e.daemons import DaemonEnd

    host = lab.namespace("left")
    kernel = KernelEnd(lab, guest, host)
    host.address("to-guest", f"{LEFT.outer4}/24", f"{LEFT.outer6}/64")
    wait_for_neighbour(host, RIGHT.outer(version))
    go = DaemonEnd(lab, host, "wireguard-go")
    connect(go, kernel, version=version)
    assert go.ping(RIGHT.inner4)
    assert kernel.ping(LEFT.inner6)
    assert kernel.endpoint_of(go) == LEFT.endpoint(version)
    assert kernel.latest_handshake(go) > 0
