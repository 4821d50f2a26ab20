"""The JSON form, both ways."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given

from tests.config.strategies import KEY, PRIVATE, configurations
from wgpy.config import InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError


@given(configurations)
def test_json_says_the_same(config: InterfaceConfig) -> None:
    text = config.to_json()
    assert InterfaceConfig.from_json(text) == config
    assert InterfaceConfig.from_json(text).to_json() == text


BAD_JSON = [
    ("[]", ""),
    ("{", ""),
    ('{"listen_port": "1"}', "listen_port"),
    ('{"listen_port": true}', "listen_port"),
    ('{"listen_port": 65536}', "ListenPort"),
    ('{"novel": 1}', "novel"),
    ('{"peers": {}}', "peers"),
    ('{"peers": [{}]}', "peers[1]"),
    ('{"peers": [1]}', "peers[1]"),
    ('{"dns": "1.1.1.1"}', "dns"),
    ('{"dns": ["x"]}', "DNS"),
    (f'{{"peers": [{{"public_key": "{KEY}", "allowed_ips": ["x"]}}]}}', "peers[1].AllowedIPs"),
]


@pytest.mark.parametrize(("text", "field"), BAD_JSON)
def test_json_that_is_wrong_is_named_with_its_place(text: str, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        InterfaceConfig.from_json(text)
    assert raised.value.field == field


def test_every_field_is_in_the_json() -> None:
    document = json.loads(InterfaceConfig(PRIVATE, peers=[PeerConfig(KEY)]).to_json())
    fields = {field.name for field in dataclasses.fields(InterfaceConfig)} - {"_document"}
    assert set(document) == fields
    assert set(document["peers"][0]) == {field.name for field in dataclasses.fields(PeerConfig)}
