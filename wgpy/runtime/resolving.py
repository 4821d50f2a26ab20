"""Names of endpoints: to addresses before a device starts, and again while a peer does not answer."""

from __future__ import annotations

import dataclasses
import logging
import socket
from typing import TYPE_CHECKING, Final

import trio

from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError, DeviceError
from wgpy.uapi import DeviceUpdate, PeerUpdate

if TYPE_CHECKING:
    from wgpy.runtime.device import Device

__all__ = ["EndpointUnresolved", "resolve_again", "resolve_endpoints", "resolve_endpoints_now"]

_log = logging.getLogger("wgpy.device")

_INTERVAL: Final = 30.0
# Initiations without an answer before its name is looked at again.
_ATTEMPTS: Final = 2


class EndpointUnresolved(DeviceError, socket.gaierror):
    """The name of an endpoint has no address, or no name server said so: perhaps only now.

    Attributes:
        field: path of the endpoint, such as ``Peer[2].Endpoint``.

    Example:
        >>> issubclass(wgpy.EndpointUnresolved, OSError)
        True
    """

    def __init__(self, number: int, message: str, *, field: str = "") -> None:
        """Say which name, and what the resolver said."""
        super().__init__(number, f"{field}: {message}" if field else message)
        self.field = field


async def resolve_endpoints(config: InterfaceConfig) -> InterfaceConfig:
    """The same configuration with addresses in place of names, without holding up other tasks; may be cancelled.

    Raises:
        EndpointUnresolved: a name has no address, or no name server answered.
        ConfigError: it is no name.
    """
    if not any(peer.endpoint and peer.endpoint.is_name for peer in config.peers):
        return config
    return await trio.to_thread.run_sync(resolve_endpoints_now, config, abandon_on_cancel=True)


def resolve_endpoints_now(config: InterfaceConfig) -> InterfaceConfig:
    """The same configuration with addresses in place of names.

    Raises:
        EndpointUnresolved: a name has no address, or no name server answered.
        ConfigError: it is no name.
    """
    peers = list(config.peers)
    for position, peer in enumerate(peers):
        if peer.endpoint is None or not peer.endpoint.is_name:
            continue
        field = f"Peer[{position + 1}].Endpoint"
        try:
            endpoint = _resolve(peer.endpoint)
        except ConfigError as problem:
            raise ConfigError(problem.message, field=field) from None
        except OSError as problem:
            said = f"cannot resolve {peer.endpoint.host!r}: {problem.strerror or problem}"
            raise EndpointUnresolved(problem.errno or socket.EAI_FAIL, said, field=field) from None
        peers[position] = dataclasses.replace(peer, endpoint=endpoint)
    return dataclasses.replace(config, peers=tuple(peers))


async def resolve_again(device: Device, config: InterfaceConfig) -> None:
    """Move peers that do not answer to where their names lead now; one that answers stays where it is, name or not.

    Args:
        device: at work.
        config: as it was written, with names.
    """
    named = [peer for peer in config.peers if peer.endpoint is not None and peer.endpoint.is_name]
    while named:
        await trio.sleep(_INTERVAL)
        known = device.statistics().peers
        for peer in named:
            statistics = known.get(peer.public_key)
            if statistics is not None and statistics.handshake_attempts >= _ATTEMPTS:
                await _move(device, peer, statistics.endpoint)


async def _move(device: Device, peer: PeerConfig, before: Endpoint | None) -> None:
    assert peer.endpoint is not None, "only peers with a name are looked at"
    try:
        endpoint = await trio.to_thread.run_sync(_resolve, peer.endpoint, abandon_on_cancel=True)
    except (OSError, ConfigError) as problem:
        _log.warning("cannot resolve %r: %s", peer.endpoint.host, getattr(problem, "strerror", None) or problem)
        return
    # Meanwhile it may have answered, or be gone.
    statistics = device.statistics().peers.get(peer.public_key)
    if endpoint == before or statistics is None or statistics.handshake_attempts < _ATTEMPTS:
        return
    _log.info("%r did not answer at %s: %s is %s now", peer.public_key, before, peer.endpoint.host, endpoint)
    device.apply(DeviceUpdate(peers=(PeerUpdate(peer.public_key, endpoint=endpoint, update_only=True),)))


def _resolve(name: Endpoint) -> Endpoint:
    try:
        found = socket.getaddrinfo(name.host, name.port, type=socket.SOCK_DGRAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError:
        # A label beyond 63 octets, as the codec for international names says it.
        raise ConfigError(f"{name.host!r} is no name that a resolver takes") from None
    host, port = found[0][4][:2]
    return Endpoint(str(host), int(port))
