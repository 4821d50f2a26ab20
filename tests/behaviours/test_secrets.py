"""B40: no secret in anything that is printed, logged or raised."""

from __future__ import annotations

import base64
import gc
import traceback

import pytest

from wgpy.config import InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey
from wgpy.testing.pair import B4, Pair, packet


def forms(secret: bytes) -> list[str]:
    return [
        secret.hex(),
        secret.hex().upper(),
        base64.b64encode(secret).decode(),
        repr(secret)[2:-1],
        str(list(secret)),
    ]


def test_b40_objects_show_no_secret() -> None:
    drawn: list[bytes] = []
    psk = PresharedKey.generate()
    pair = Pair(psk=psk)
    original = pair.network.random.randbytes

    def remember(size: int) -> bytes:
        drawn.append(original(size))
        return drawn[-1]

    for host in (pair.a, pair.b):
        host.engine._shared.random = remember
    pair.shake_hands()
    assert pair.exchange()
    secrets = [bytes(pair.a_key), bytes(pair.b_key), bytes(psk)]
    secrets += [octets for octets in drawn if len(octets) in (16, 32)]
    assert len(secrets) > 4
    gc.collect()
    shown = []
    for one in gc.get_objects():
        if str(type(one).__module__).startswith("wgpy."):  # of some types of C it is no text
            shown += [repr(one), str(one), f"{one}"]
    text = "\n".join(shown)
    assert len(shown) > 50
    for secret in secrets:
        for form in forms(secret):
            assert form not in text


@pytest.mark.parametrize("kind", [PrivateKey, PresharedKey])
def test_b40_a_bad_key_is_not_repeated_in_the_error(kind: type[PrivateKey | PresharedKey]) -> None:
    good = base64.b64encode(bytes(range(32))).decode()
    for bad in (good[:-1], good[:-2] + "!=", good + "A", bytes(range(31))):
        with pytest.raises(ConfigError) as raised:
            kind(bad)
        text = "".join(traceback.format_exception(raised.value))
        assert (bad[:20] if isinstance(bad, str) else bad.hex()) not in text


@pytest.mark.parametrize("key", ["PrivateKey", "PresharedKey"])
def test_b40_a_config_error_does_not_repeat_the_line_of_a_secret(key: str) -> None:
    secret = base64.b64encode(bytes(range(32))).decode()[:-1] + "!"
    section = "[Interface]\n" if key == "PrivateKey" else "[Interface]\n[Peer]\n"
    with pytest.raises(ConfigError) as raised:
        InterfaceConfig.from_ini(f"{section}{key} = {secret}\n")
    assert secret[:20] not in "".join(traceback.format_exception(raised.value))


def test_b40_configurations_show_no_secret() -> None:
    key, psk = PrivateKey.generate(), PresharedKey.generate()
    peer = PeerConfig(PrivateKey.generate().public_key, preshared_key=psk, endpoint=B4)
    config = InterfaceConfig(key, peers=[peer])
    text = f"{config!r} {config} {peer!r} {peer} {key!r} {key} {psk!r} {psk}"
    for secret in (bytes(key), bytes(psk)):
        assert not any(form in text for form in forms(secret))


def test_b40_the_keylog_is_the_only_way_out_and_only_on_demand() -> None:
    lines: list[str] = []
    psk = PresharedKey.generate()
    pair = Pair(psk=psk, keylog=lines.append)
    pair.a.send(packet())
    pair.network.run(1)
    names = [line.split(" = ")[0] for line in lines]
    each = ["LOCAL_STATIC_PRIVATE_KEY", "REMOTE_STATIC_PUBLIC_KEY", "LOCAL_EPHEMERAL_PRIVATE_KEY", "PRESHARED_KEY"]
    assert names == each * 2
    assert f"PRESHARED_KEY = {psk.to_base64()}" in lines
