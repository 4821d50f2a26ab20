"""The public names are a promise: this list is changed on purpose, with a line in the change log."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import wgpy
from tests.property.rows import HAS_NUMPY

PUBLIC = [
    "ConfigError", "DatagramBatch", "Device", "DeviceError", "DropReason", "Endpoint", "EndpointChanged",
    "EndpointUnresolved", "Engine",
    "EngineStatistics", "HandshakeCompleted", "HandshakeGaveUp", "InitiationReceived", "InterfaceConfig",
    "Keepalive", "LocalProtocolError", "MemoryDevice", "PacketDevice", "PeerConfig", "PeerStatistics", "PresharedKey",
    "PrivateKey", "PublicKey", "SessionExpired", "SilenceEnded", "Slab", "Tunnel", "TunnelClosed", "UnknownPeer",
    "WgpyError", "open_device", "open_interface", "open_tunnel",
]  # fmt: skip


def test_the_public_names_are_these_and_no_more() -> None:
    assert sorted(wgpy.__all__) == PUBLIC
    assert len(PUBLIC) <= 34
    assert set(PUBLIC) <= set(dir(wgpy))


def test_nothing_else_is_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        wgpy.nonsense  # noqa: B018


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring_with_an_example(name: str) -> None:
    """`tests/test_documentation.py` runs them."""
    text = inspect.getdoc(getattr(wgpy, name))
    assert text
    assert doctest.DocTestParser().get_examples(text)


def modules() -> list[str]:
    found = [name for _, name, _ in pkgutil.walk_packages(wgpy.__path__, "wgpy.")]
    left_out = {"wgpy.__main__"} | (set() if HAS_NUMPY else {"wgpy.dataplane.rows_numpy"})
    return [name for name in found if name not in left_out]


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_and_what_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    is_package = hasattr(module, "__path__")
    exported = getattr(module, "__all__", None)
    assert is_package or name.endswith(".constants") or exported, "a module names what others may use"
    for public in exported or ():
        assert hasattr(module, public), f"{name}.{public}"


def test_the_constants_are_those_of_the_protocol_notes() -> None:
    """Protocol notes 1.3: a number that is changed here is changed on the wire."""
    from wgpy import constants

    expected = {
        "REKEY_AFTER_MESSAGES": 2**60, "REJECT_AFTER_MESSAGES": 18446744073709543423, "REKEY_AFTER_TIME": 120,
        "REJECT_AFTER_TIME": 180, "REKEY_TIMEOUT": 5, "MAX_TIMER_HANDSHAKES": 18, "KEEPALIVE_TIMEOUT": 10,
        "NEW_HANDSHAKE_TIMEOUT": 15, "REFRESH_ON_RECEIVE_AFTER": 165, "ZERO_KEY_TIMEOUT": 540,
        "INITIATION_INTERVAL": 0.02, "TIMESTAMP_GRANULARITY_NS": 16777216, "TAI64_BASE": 0x400000000000000A,
        "COOKIE_SECRET_MAX_AGE": 120, "COOKIE_MAX_AGE": 115, "COUNTER_BITS_TOTAL": 8192, "COUNTER_WINDOW": 8128,
        "PADDING_MULTIPLE": 16, "INITIATION_SIZE": 148, "RESPONSE_SIZE": 92, "COOKIE_REPLY_SIZE": 64,
        "KEEPALIVE_SIZE": 32, "RATELIMIT_PACKET_COST": 0.05, "RATELIMIT_BUCKET": 0.25, "RATELIMIT_IDLE": 1,
        "RATELIMIT_MAX_SOURCES": 65536, "HANDSHAKE_QUEUE_SIZE": 1024, "UNDER_LOAD_QUEUE": 128, "UNDER_LOAD_HOLD": 1,
        "MAX_STAGED_PACKETS": 128, "MAX_STAGED_PER_DEVICE": 4096, "MAX_STAGED_OCTETS_PER_DEVICE": 8 * 2**20,
        "MAX_PEERS": 65536, "DEFAULT_MTU": 1420, "MAX_MTU": 65503, "HANDSHAKE_TOS": 0x88, "MAX_SEGMENTS": 64,
        "MAX_UDP_PAYLOAD_IPV4": 65507, "MAX_UDP_PAYLOAD_IPV6": 65527, "ICMP_ERRORS_PER_SECOND": 10,
    }  # fmt: skip
    assert {name: getattr(constants, name) for name in expected} == expected
    assert 0.333 <= constants.REKEY_TIMEOUT_JITTER <= 0.334
