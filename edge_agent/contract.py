"""What edge and hub agreed upon: token, proofs, the sealed key, the public configuration, the datagrams of port 7000.

Pure: octets and documents in, values out. Nothing here does I/O or asks for the time, and no error quotes a secret. The
golden file `tests/contract/vectors.json` holds both ends to the same octets.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import ipaddress
import json
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from edge_agent.foreign import Document, octets_of_base64

__all__ = [
    "ANSWER",
    "ASK",
    "BEAT",
    "GOODBYE",
    "PROTOCOL",
    "Datagram",
    "Exchange",
    "HubConfig",
    "Token",
    "canonical_key",
    "decode_key",
    "encode_key",
    "why_no_hub",
]

PROTOCOL: Final = 1
MINIMUM_MTU: Final = 1280
MAXIMUM_MTU: Final = 9000

_TOKEN: Final = re.compile(r"dle_[a-z2-7]{10}_[a-z2-7]{52}_[a-z2-7]{59}", re.ASCII)
_CHECK_LENGTH: Final = 7


def _base32(text: str) -> bytes:
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))


def encode_key(octets: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(octets).decode()


def decode_key(text: object, length: int = 32) -> bytes:
    """The octets of base64 text.

    Raises:
        ValueError: not base64 of so many octets. The message does not quote it.
    """
    return octets_of_base64("", text, length)


def canonical_key(octets: bytes) -> bytes:
    """A public key of X25519 as everybody writes it, which a key must be that is compared.

    The same point has other spellings, with the top bit set or not reduced (RFC 7748 section 5).
    """
    number = int.from_bytes(octets, "little") & (2**255 - 1)
    return (number % (2**255 - 19)).to_bytes(32, "little")


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A bootstrap token.

    Attributes:
        text: the whole of it; secret.
        id: the public part, which may be stored and shown.
        hub_key: the WireGuard public key of the only hub to be trusted.
    """

    text: str
    id: str
    hub_key: bytes

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read `dle_<id>_<secret>_<hubkey><check>`.

        Raises:
            ValueError: says what is wrong, and nothing of the token.
        """
        if not _TOKEN.fullmatch(text):
            raise ValueError(f"a bootstrap token has the form dle_..._..._... and 127 characters, this has {len(text)}")
        body, check = text[:-_CHECK_LENGTH], text[-_CHECK_LENGTH:]
        # Text against text: the last character has bits to spare, which decoding would pass over.
        octets = struct.pack(">I", zlib.crc32(body.encode()))
        if base64.b32encode(octets).decode().lower().rstrip("=") != check:
            raise ValueError("the bootstrap token does not add up: a character was lost or changed on the way")
        _, token_id, _, hub_key = body.split("_")
        return cls(text, token_id, canonical_key(_base32(hub_key)))

    def __repr__(self) -> str:
        """The public part."""
        return f"<Token {self.id}>"


def _mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key).digest()


class Exchange:
    """The keys that only this edge and the hub of the token can compute, and what is proved with them.

    Attributes:
        public_key: the edge's, 32 octets.
    """

    def __init__(self, private_key: bytes, hub_key: bytes) -> None:
        """Combine our private key with the hub's public key.

        Raises:
            ValueError: the hub's key is none (of low order).
        """
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        private = X25519PrivateKey.from_private_bytes(private_key)
        shared = private.exchange(X25519PublicKey.from_public_bytes(hub_key))
        self.public_key = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._key = _mac(shared, b"daalu-edge/1 bootstrap")
        self._psk_key = _mac(shared, b"daalu-edge/1 psk")

    def request_proof(self, token_id: str, nonce: bytes, ts: int) -> bytes:
        """That we hold the private key of the public key which the token is to be bound to."""
        return _mac(
            self._key, b"request\0" + token_id.encode() + b"\0" + self.public_key + nonce + struct.pack(">Q", ts)
        )

    def self_proof(self, nonce: bytes, ts: int) -> bytes:
        """That it is us who ask about ourselves."""
        return _mac(self._key, b"self\0" + self.public_key + nonce + struct.pack(">Q", ts))

    def is_signed(self, body: bytes, nonce: bytes, signature: str | None) -> bool:
        """Whether the hub whose key is in the token gave this answer to the request with this nonce."""
        try:
            given = decode_key(signature)
        except ValueError:
            return False
        return hmac.compare_digest(given, _mac(self._key, b"answer\0" + nonce + body))

    def open_psk(self, sealed: str, cluster_id: str) -> bytes:
        """The preshared key.

        Raises:
            ValueError: it was not sealed for us and this cluster.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        octets = decode_key(sealed, 12 + 32 + 16)
        try:
            return ChaCha20Poly1305(self._psk_key).decrypt(octets[:12], octets[12:], cluster_id.encode())
        except InvalidTag:
            raise ValueError("the preshared key was not sealed for this edge") from None


@dataclasses.dataclass(frozen=True, slots=True)
class HubConfig:
    """The public configuration, as the hub gave it; what stands in the ConfigMap.

    Attributes:
        cluster_id: who we are to the hub.
        address: ours in the tunnel, IPv4.
        address6: ours in the tunnel, IPv6, or None.
        mtu: the most that the hub wants.
        keepalive: seconds, 0 for none.
        hub_key: 32 octets.
        endpoints: `host:port` each, in the order of preference.
        relay_url: the way around blocked UDP, or None.
        hub_address: the hub's in the tunnel, IPv4.
        hub_address6: the hub's in the tunnel, IPv6, or None.
        revision: grows with every change.
        heartbeat: seconds, None for what the chart says.
    """

    cluster_id: str
    address: str
    address6: str | None
    mtu: int
    keepalive: int
    hub_key: bytes
    endpoints: tuple[str, ...]
    relay_url: str | None
    hub_address: str
    hub_address6: str | None
    revision: int
    heartbeat: float | None = None

    @classmethod
    def from_document(cls, document: Document | Mapping[str, Any]) -> HubConfig:
        """Read an answer of the hub, or what was kept of one.

        Raises:
            ValueError: names the field that is wrong.
        """
        if not isinstance(document, Document):
            document = Document(document)
        hub = document.get("hub")
        heartbeat = document.integer("heartbeat", least=1, most=20)
        return cls(
            cluster_id=document.line("cluster_id"),
            address=_address(document, "address", 4) or _missing("address"),
            address6=_address(document, "address6", 6),
            mtu=_number(document, "mtu", MINIMUM_MTU, MAXIMUM_MTU),
            keepalive=_number(document, "keepalive", 0, 65535),
            hub_key=canonical_key(hub.octets("pubkey", length=32)),
            endpoints=_endpoints(hub),
            relay_url=hub.line("relay_url") if hub.has("relay_url") else None,
            hub_address=_address(hub, "address", 4) or _missing("hub.address"),
            hub_address6=_address(hub, "address6", 6),
            revision=_number(document, "config_revision", 0, 2**53),
            heartbeat=None if heartbeat is None else heartbeat * 1.0,
        )

    def to_document(self) -> dict[str, Any]:
        """The inverse of `from_document`."""
        return {
            "cluster_id": self.cluster_id,
            "address": self.address,
            "address6": self.address6,
            "mtu": self.mtu,
            "keepalive": self.keepalive,
            "heartbeat": self.heartbeat,
            "hub": {
                "pubkey": encode_key(self.hub_key),
                "endpoints": list(self.endpoints),
                "relay_url": self.relay_url,
                "address": self.hub_address,
                "address6": self.hub_address6,
            },
            "config_revision": self.revision,
        }

    def to_text(self) -> str:
        """The document, always written alike."""
        return json.dumps(self.to_document(), sort_keys=True, indent=2, ensure_ascii=False)

    def changed_by(self, message: Document | Mapping[str, Any]) -> HubConfig:
        """What a `config` message of the hub makes of it; what the message does not name stays.

        Raises:
            ValueError: names the field that is wrong.
        """
        if not isinstance(message, Document):
            message = Document(message)
        document = self.to_document()
        hub = dict(document["hub"])
        document |= {"hub": hub, "config_revision": message.integer("revision", least=0, most=2**53)}
        for name, least, most in (
            ("keepalive", 0, 65535),
            ("mtu", MINIMUM_MTU, MAXIMUM_MTU),
            ("heartbeat", 1, 20),
        ):
            if message.has(name):
                document[name] = message.integer(name, least=least, most=most)
        if message.has("endpoints"):
            hub["endpoints"] = message.texts("endpoints")
        if "relay_url" in message:
            hub["relay_url"] = message.line("relay_url") if message.has("relay_url") else None
        return HubConfig.from_document(document)


def _missing(name: str) -> str:
    raise ValueError(f"{name}: missing")


def _number(document: Document, name: str, least: int, most: int) -> int:
    value = document.integer(name, least=least, most=most)
    if value is None:
        raise ValueError(f"{name}: expected a number from {least} to {most}")
    return value


def _address(document: Document, name: str, version: int) -> str | None:
    if not document.has(name):
        return None
    try:
        address = ipaddress.ip_address(document.text(name, most=64))
    except ValueError:
        raise ValueError(f"{name}: expected an IPv{version} address") from None
    if address.version != version:
        raise ValueError(f"{name}: expected an IPv{version} address")
    return str(address)


def _endpoints(hub: Document) -> tuple[str, ...]:
    import wgpy

    endpoints = hub.texts("endpoints", most=300)
    if not 1 <= len(endpoints) <= 16:
        raise ValueError("endpoints: expected 1 to 16 of them")
    for one in endpoints:
        try:
            wgpy.Endpoint.parse(one)
        except wgpy.ConfigError as problem:
            raise ValueError(f"endpoints: {problem.message}") from None
    return endpoints


# --- where a hub can be ----------------------------------------------------------------------------------------------

# Services of clouds that answer on an address of their own outside 169.254.0.0/16: never a hub.
_METADATA: Final = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "fd00:ec2::254")))
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def why_no_hub(host: str, port: int, *, may_be_loopback: bool) -> str:
    """Why nothing is sent to an address, in a few words; empty where a hub can be, and for a name.

    A hub, or who writes in its place, must not make the edge send to what only this node or this link can reach.

    Args:
        host: an address, or a name, which is looked at again when it is resolved.
        port: of UDP.
        may_be_loopback: the hub was configured to be on this machine.
    """
    if port == 0:
        return "port 0 is none"
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            address = ipaddress.IPv4Address(address.packed[12:])
        else:
            address = address.ipv4_mapped or address.sixtofour or address
    if address in _METADATA or address.is_link_local:
        return "link-local addresses and those of clouds' metadata are not asked"
    if address.is_loopback:
        return "" if may_be_loopback else "this machine is not asked, unless hub.url is on it"
    if address.is_multicast:
        return "a multicast address is none of a hub"
    if address.is_unspecified or (address.version == 4 and address.packed[0] == 0):
        return "an unspecified address is none of a hub"
    # 240.0.0.0/4 with the broadcast address. (IPv6's "reserved" blocks hold NAT64 prefixes that are in use.)
    if address.version == 4 and address.is_reserved:
        return "a reserved or broadcast address is none of a hub"
    return ""


# --- UDP port 7000 ---------------------------------------------------------------------------------------------------

BEAT: Final = 1
ANSWER: Final = 2
GOODBYE: Final = 3
ASK: Final = 4

_HEADER: Final = struct.Struct(">2sBBQQQI")
_MAGIC: Final = b"DH"
_VERSION: Final = 1
_MOST_HELD: Final = 2**32 - 1


class Datagram(NamedTuple):
    """One datagram between edge and hub; times are microseconds.

    Attributes:
        kind: BEAT, ANSWER, GOODBYE or ASK.
        seq: of the beat; an answer repeats it.
        sent: by the sender's own clock.
        echo: the last `sent` received from the other side, 0 if none.
        held: between receiving that and sending this.
        rest: what follows: padding, or the reason of a goodbye.
    """

    kind: int
    seq: int
    sent: int
    echo: int = 0
    held: int = 0
    rest: bytes = b""

    def encode(self) -> bytes:
        """The octets."""
        held = min(self.held, _MOST_HELD)
        return _HEADER.pack(_MAGIC, _VERSION, self.kind, self.seq, self.sent, self.echo, held) + self.rest

    @classmethod
    def decode_untrusted(cls, octets: bytes) -> Datagram | None:
        """Read one; None for anything else."""
        if len(octets) < _HEADER.size:
            return None
        magic, version, kind, seq, sent, echo, held = _HEADER.unpack_from(octets)
        if magic != _MAGIC or version != _VERSION or not BEAT <= kind <= ASK:
            return None
        return cls(kind, seq, sent, echo, held, octets[_HEADER.size :])

    def padded_to(self, size: int) -> Datagram:
        """The same with zeros behind, `size` octets when encoded."""
        return self._replace(rest=bytes(max(size - _HEADER.size, 0)))
