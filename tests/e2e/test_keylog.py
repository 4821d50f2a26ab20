"""tshark decrypts our traffic by our key log, as initiator and as responder."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, RIGHT, connect


@pytest.mark.needs("go")
@pytest.mark.parametrize("psk", [False, True], ids=["no-psk", "psk"])
@pytest.mark.parametrize("initiates", [True, False], ids=["initiator", "responder"])
def test_tshark_decrypts_handshake_and_inner_packets(wire: Wire, initiates: bool, psk: bool) -> None:
    ours, theirs = wire.start("left"), wire.start("right", "wireguard-go")
    capture = wire.lab.capture(wire.left, "to-right", "udp port 51820")
    key = wire.lab.host("wg", "genpsk").strip() if psk else None
    if initiates:
        connect(ours, theirs, psk=key)
    else:
        connect(theirs, ours, psk=key, at=(RIGHT, LEFT))
    initiator, target = (ours, RIGHT) if initiates else (theirs, LEFT)
    assert initiator.ping(target.inner4, count=5)
    capture.wait_for("wg.type == 4", 10)
    capture.stop()
    host = wire.lab.host
    readable = str(wire.lab.folder / "readable.pcapng")
    pcapng = str(wire.lab.folder / "outer.pcapng")
    host("editcap", "-F", "pcapng", str(capture.path), pcapng)
    host(
        *(sys.executable, "-m", "wgpy", "keylog", str(ours.keylog)),
        *("--into", pcapng, "--output", readable),
    )
    for arguments in (["-o", f"wg.keylog_file:{ours.keylog}", "-r", str(capture.path)], ["-r", readable]):

        def fields(display_filter: str, *names: str, given: list[str] = arguments) -> list[list[str]]:
            asked = [word for name in names for word in ("-e", name)]
            shown = host("tshark", *given, "-Y", display_filter, "-T", "fields", *asked)
            return [line.split("\t") for line in shown.splitlines()]

        assert fields("wg.type == 1", "wg.handshake_ok", "wg.static.known_privkey") != []
        assert len(fields("icmp.type == 8", "ip.dst")) == 5
        assert fields("icmp.type == 0", "ip.src")[0][0].endswith(target.inner4)
        assert fields("wg.decryption_error", "frame.number") == []
