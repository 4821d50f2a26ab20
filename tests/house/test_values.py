"""Public values are values: they compare, copy, pickle and go through `dataclasses.asdict`; secrets are not pickled.

What has a life of its own, such as an engine or a buffer, is named; a new public name must be put in one place or the
other.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from typing import Any

import pytest

import wgpy
from wgpy.testing.pair import Pair

ALIVE = {
    "DatagramBatch", "Device", "Engine", "MemoryDevice", "PacketDevice", "Slab", "Tunnel", "open_device",
    "open_interface", "open_tunnel",
}  # fmt: skip
KEY = wgpy.PublicKey("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
AT = wgpy.Endpoint("fe80::1%lo", 51820)
PEER = wgpy.PeerConfig(KEY, allowed_ips=["10.0.0.0/8", "::/0"], endpoint=AT)
STATISTICS = Pair(b_knows_a=True).a.engine.statistics()
VALUES: dict[str, Any] = {
    "ConfigError": wgpy.ConfigError("wrong", field="MTU", line=1, column=2),
    "DeviceError": wgpy.DeviceError(1, "refused"),
    "DropReason": wgpy.DropReason.INVALID_MAC1,
    "Endpoint": AT,
    "EndpointChanged": wgpy.EndpointChanged(KEY, AT),
    "EndpointUnresolved": wgpy.EndpointUnresolved(-2, "no such name", field="Peer[1].Endpoint"),
    "EngineStatistics": STATISTICS,
    "HandshakeCompleted": wgpy.HandshakeCompleted(KEY, AT, is_initiator=True),
    "HandshakeGaveUp": wgpy.HandshakeGaveUp(KEY),
    "InitiationReceived": wgpy.InitiationReceived(KEY, AT),
    "InterfaceConfig": wgpy.InterfaceConfig.from_ini(f"[Interface]\nAddress = 10.0.0.1/8\n[Peer]\nPublicKey={KEY}\n"),
    "Keepalive": wgpy.Keepalive(),
    "LocalProtocolError": wgpy.LocalProtocolError("wrong"),
    "PeerConfig": PEER,
    "PeerStatistics": next(iter(STATISTICS.peers.values())),
    "PublicKey": KEY,
    "SessionExpired": wgpy.SessionExpired(KEY),
    "SilenceEnded": wgpy.SilenceEnded(KEY),
    "TunnelClosed": wgpy.TunnelClosed("gone"),
    "UnknownPeer": wgpy.UnknownPeer(KEY, AT),
    "WgpyError": wgpy.WgpyError("wrong"),
}
SECRETS: dict[str, Any] = {
    "PrivateKey": wgpy.PrivateKey(bytes(range(32))),
    "PresharedKey": wgpy.PresharedKey(bytes(range(32))),
}


def test_every_public_name_is_a_value_or_is_alive() -> None:
    assert sorted({*VALUES, *SECRETS, *ALIVE}) == sorted(wgpy.__all__)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Exception):
        return type(one) is type(other) and one.args == other.args and vars(one) == vars(other)
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_copied_and_pickled(name: str) -> None:
    value = VALUES[name]
    assert isinstance(value, getattr(wgpy, name))
    copies = [copy.copy(value), copy.deepcopy(value)]
    copies += [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    assert all(same(value, one) for one in copies)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        assert set(dataclasses.asdict(value)) == {field.name for field in dataclasses.fields(value)}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_copied_but_not_pickled(name: str) -> None:
    secret = SECRETS[name]
    assert copy.copy(secret) == copy.deepcopy(secret) == secret
    holders = (
        secret,
        wgpy.PeerConfig(KEY, preshared_key=wgpy.PresharedKey(bytes(range(32)))),
        wgpy.InterfaceConfig(wgpy.PrivateKey(bytes(range(32)))),
    )
    for holder in holders:
        assert copy.deepcopy(holder) == holder
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="not pickled"):
                pickle.dumps(holder, protocol)
    for holder in holders[1:]:
        assert "<hidden>" in repr(dataclasses.asdict(holder))


def test_a_file_that_was_copied_or_pickled_is_written_back_as_it_was() -> None:
    text = f"# mine\r\n[Interface]\r\n[Peer]\r\nPublicKey={KEY} # hers\r\n"
    config = wgpy.InterfaceConfig.from_ini(text)
    assert copy.deepcopy(config).to_ini() == pickle.loads(pickle.dumps(config)).to_ini() == text


@pytest.mark.parametrize("name", ["adapters.sync", "testing.network", "sync"])
def test_public_modules_are_there_without_an_import_of_their_own(name: str) -> None:
    code = f"import wgpy, sys; assert 'trio' not in sys.modules; print(wgpy.{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"wgpy.{name}\n"


def test_what_is_no_module_of_a_package_is_none_of_its_attributes() -> None:
    for package in (wgpy.adapters, wgpy.testing):
        assert not hasattr(package, "nonsense")


def test_a_verb_takes_what_a_constructor_takes() -> None:
    engine = wgpy.Engine(wgpy.InterfaceConfig(peers=[PEER]), random=bytes, wall_clock=lambda: 0.0)
    assert engine.peer_statistics(str(KEY), 0.0).public_key == KEY
    engine.start_handshake(str(KEY), 0.0, at="192.0.2.1:5")
    assert engine.realm_of(str(KEY)) is None
    with pytest.raises(wgpy.ConfigError):
        engine.remove_peer(wgpy.PrivateKey(bytes(32)), 0.0)
    engine.remove_peer(str(KEY), 0.0)
    with pytest.raises(wgpy.LocalProtocolError):
        engine.remove_peer(str(KEY), 0.0)
