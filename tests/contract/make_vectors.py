"""Make `vectors.json`: what hub and edge agreed upon, from fixed keys, by hashlib and cryptography alone.

Neither application is imported here, so that both can be held against it. Run it to write the file again; a test says
when the file and this script differ.
"""

from __future__ import annotations

import base64
import hashlib
import json
import pathlib
import struct
import zlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PATH = pathlib.Path(__file__).with_name("vectors.json")


def b64(octets: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(octets).decode()


def b32(octets: bytes) -> str:
    """Lower-case base32 without padding."""
    return base64.b32encode(octets).decode().lower().rstrip("=")


def mac(key: bytes, data: bytes) -> bytes:
    """BLAKE2s-256, keyed."""
    return hashlib.blake2s(data, key=key).digest()


def octets(label: str, length: int = 32) -> bytes:
    """Fixed octets that nobody chose."""
    return hashlib.shake_256(f"daalu-edge vectors: {label}".encode()).digest(length)


def public(private: bytes) -> bytes:
    """The X25519 public key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def token(token_id: str, secret: bytes, hub_public: bytes) -> str:
    """`dle_<id>_<secret>_<hubkey><check>`."""
    body = f"dle_{token_id}_{b32(secret)}_{b32(hub_public)}"
    return body + b32(struct.pack(">I", zlib.crc32(body.encode())))


def canonical(document: dict[str, Any]) -> str:
    """The one way in which an answer is written."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def seal_psk(shared: bytes, key: bytes, psk: bytes, cluster_id: str) -> bytes:
    """The preshared key, readable by the edge alone; the same octets at every repetition."""
    nonce = mac(key, b"psk\0" + psk)[:12]
    return nonce + ChaCha20Poly1305(mac(shared, b"daalu-edge/1 psk")).encrypt(nonce, psk, cluster_id.encode())


def join(name: str, *, address6: str | None, relay_url: str | None, ts: int) -> dict[str, Any]:
    """One whole bootstrap: token, request, answer and the question for oneself."""
    hub, edge = octets(f"{name} hub"), octets(f"{name} edge")
    hub_public, edge_public = public(hub), public(edge)
    shared = X25519PrivateKey.from_private_bytes(edge).exchange(X25519PublicKey.from_public_bytes(hub_public))
    key = mac(shared, b"daalu-edge/1 bootstrap")
    secret, nonce, self_nonce = octets(f"{name} secret"), octets(f"{name} nonce", 16), octets(f"{name} self nonce", 16)
    token_id = b32(octets(f"{name} id", 7))[:10]
    stamp = struct.pack(">Q", ts)
    proof = mac(key, b"request\0" + token_id.encode() + b"\0" + edge_public + nonce + stamp)
    the_token = token(token_id, secret, hub_public)
    psk, cluster_id = octets(f"{name} psk"), f"cl_{b32(octets(f'{name} cluster', 10))}"
    config = {
        "cluster_id": cluster_id,
        "address": "100.96.0.7",
        "address6": address6,
        "mtu": 1420,
        "keepalive": 25,
        "hub": {
            "pubkey": b64(hub_public),
            "endpoints": ["hub.example.test:51820", "[2001:db8::1]:51820"],
            "relay_url": relay_url,
            "address": "100.96.0.1",
            "address6": None if address6 is None else "fd00:96::1",
        },
        "config_revision": 1,
    }
    body = canonical({**config, "psk_sealed": b64(seal_psk(shared, key, psk, cluster_id))})
    self_body = canonical({"state": "active", "at": None, "config": config})
    return {
        "name": name,
        "hub_private": b64(hub),
        "hub_public": b64(hub_public),
        "edge_private": b64(edge),
        "edge_public": b64(edge_public),
        "shared": b64(shared),
        "key": b64(key),
        "token": the_token,
        "token_id": token_id,
        "token_secret": b64(secret),
        "token_secret_sha256": hashlib.sha256(secret).hexdigest(),
        "nonce": b64(nonce),
        "ts": ts,
        "proof": b64(proof),
        "request": {
            "token": the_token,
            "pubkey": b64(edge_public),
            "proof": b64(proof),
            "nonce": b64(nonce),
            "ts": ts,
            "protocol": 1,
            "chart_version": "0.1.0",
            "agent_version": "0.1.0",
            "kube_version": "v1.36.3",
            "cluster_uid": "8f7d3f4e-2c5b-4f53-9b53-0d4f8f3f6f11",
        },
        "psk": b64(psk),
        "psk_sealed": b64(seal_psk(shared, key, psk, cluster_id)),
        "cluster_id": cluster_id,
        "answer_body": body,
        "answer_mac": b64(mac(key, b"answer\0" + nonce + body.encode())),
        "self_nonce": b64(self_nonce),
        "self_request": {
            "pubkey": b64(edge_public),
            "proof": b64(mac(key, b"self\0" + edge_public + self_nonce + stamp)),
            "nonce": b64(self_nonce),
            "ts": ts,
        },
        "self_answer_body": self_body,
        "self_answer_mac": b64(mac(key, b"answer\0" + self_nonce + self_body.encode())),
    }


def datagrams() -> list[dict[str, Any]]:
    """The four datagrams of UDP port 7000."""
    rows = [
        ("beat", 1, 1, 1_000_000, 0, 0, b""),
        ("answer", 2, 1, 77_000_000, 1_000_000, 12, b""),
        ("beat that echoes", 1, 2, 6_000_000, 77_000_000, 4_980_000, b""),
        ("padded beat", 1, 3, 11_000_000, 82_000_000, 4_990_000, bytes(64)),
        ("goodbye: unknown", 3, 4, 12_000_000, 0, 0, b"\0"),
        ("goodbye: uninstalled", 3, 4, 12_000_000, 0, 0, b"\1"),
        ("goodbye: restarting", 3, 4, 12_000_000, 0, 0, b"\2"),
        ("ask", 4, 9, 13_000_000, 0, 0, b""),
        ("largest numbers", 2, 2**64 - 1, 2**64 - 1, 2**64 - 1, 2**32 - 1, b""),
    ]
    return [
        {
            "name": name,
            "type": kind,
            "seq": seq,
            "sent": sent,
            "echo": echo,
            "held": held,
            "rest": rest.hex(),
            "datagram": (struct.pack(">2sBBQQQI", b"DH", 1, kind, seq, sent, echo, held) + rest).hex(),
        }
        for name, kind, seq, sent, echo, held, rest in rows
    ]


def bad_tokens(good: str) -> list[dict[str, str]]:
    """What is no token, and why."""
    head, secret, tail = good[:14], good[15:67], good[68:]
    broken = "a" if good[-1] != "a" else "b"
    return [
        {"why": "empty", "token": ""},
        {"why": "another prefix", "token": "dlp_" + good[4:]},
        {"why": "cut short", "token": good[:-1]},
        {"why": "too long", "token": good + "a"},
        {"why": "upper case", "token": good.upper()},
        {"why": "a wrong check", "token": good[:-1] + broken},
        {"why": "a character outside the alphabet", "token": f"{head}_{'1' + secret[1:]}_{tail}"},
        {"why": "white space around it", "token": f" {good}"},
    ]


def vectors() -> dict[str, Any]:
    """Everything."""
    joins = [
        join("plain", address6=None, relay_url=None, ts=1_760_000_000),
        join(
            "both families", address6="fd00:96::7", relay_url="wss://hub.example.test/v1/edge/relay", ts=1_760_003_599
        ),
    ]
    return {"joins": joins, "bad_tokens": bad_tokens(joins[0]["token"]), "datagrams": datagrams()}


def text() -> str:
    """As it stands in the file."""
    return json.dumps(vectors(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
