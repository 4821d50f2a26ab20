"""A configuration as JSON, for programs: the names of the attributes, secrets included."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from wgpy.config.interface import InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError
from wgpy.foreign import json_document

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["from_json", "to_json"]

_LISTS: Final = ("addresses", "dns", "dns_search", "pre_up", "post_up", "pre_down", "post_down")
_JSON_INTERFACE: Final = ("private_key", "listen_port", "fwmark", *_LISTS, "mtu", "table", "save_config", "peers")
_JSON_PEER: Final = (
    "public_key", "allowed_ips", "endpoint", "preshared_key", "persistent_keepalive", "pin_endpoint",
)  # fmt: skip
_JSON_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "private_key": (str, type(None)),
    "listen_port": (int,),
    "fwmark": (int,),
    "mtu": (int, type(None)),
    "table": (str,),
    "save_config": (bool,),
    "public_key": (str,),
    "endpoint": (str, type(None)),
    "preshared_key": (str, type(None)),
    "persistent_keepalive": (int,),
    "pin_endpoint": (bool,),
}


def _json_object(value: object, names: frozenset[str], path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("expected an object", field=path)
    values = cast("dict[str, Any]", value)
    for name, content in values.items():
        where = f"{path}.{name}" if path else name
        if name not in names:
            raise ConfigError(f"unknown name; known are {', '.join(sorted(names))}", field=where)
        types = _JSON_TYPES.get(name)
        if types is None:
            parts = cast("list[object]", content) if isinstance(content, list) else None
            if parts is None or (name != "peers" and not all(isinstance(part, str) for part in parts)):
                raise ConfigError("expected a list of texts", field=where)
        elif not isinstance(content, types) or (isinstance(content, bool) and bool not in types):
            raise ConfigError(f"expected {types[0].__name__}, got {type(content).__name__}", field=where)
    return dict(values)


def from_json(text: str) -> InterfaceConfig:
    """Read what `to_json` wrote.

    Raises:
        ConfigError: not JSON, unknown names, wrong values.
    """
    values = _json_object(json_document(text), frozenset(_JSON_INTERFACE), "")
    peers = values.pop("peers", [])
    if not isinstance(peers, list):
        raise ConfigError("expected a list", field="peers")
    parsed: list[PeerConfig] = []
    for number, peer in enumerate(cast("list[object]", peers), 1):
        path = f"peers[{number}]"
        of_peer = _json_object(peer, frozenset(_JSON_PEER), path)
        if "public_key" not in of_peer:
            raise ConfigError("a peer needs a public_key", field=path)
        try:
            parsed.append(PeerConfig(**of_peer))
        except ConfigError as error:
            raise ConfigError(error.message, field=f"{path}.{error.field}") from None
    return InterfaceConfig(peers=parsed, **values)


def to_json(config: InterfaceConfig) -> str:
    """The configuration as JSON, secrets included."""
    document: dict[str, object] = {"private_key": config.private_key and config.private_key.to_base64()}
    for name in _JSON_INTERFACE[1:-1]:
        value = getattr(config, name)
        document[name] = [str(part) for part in value] if isinstance(value, tuple) else value
    document["peers"] = [
        {
            "public_key": str(peer.public_key),
            "allowed_ips": [str(prefix) for prefix in peer.allowed_ips],
            "endpoint": peer.endpoint and str(peer.endpoint),
            "preshared_key": peer.preshared_key and peer.preshared_key.to_base64(),
            "persistent_keepalive": peer.persistent_keepalive,
            "pin_endpoint": peer.pin_endpoint,
        }
        for peer in config.peers
    ]
    return json.dumps(document, indent=2) + "\n"
