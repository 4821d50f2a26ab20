"""Joining: a token is redeemed for an address and a preshared key, once. Source: product.md section 5.

    Request (parsed) -> whose token? -> proof -> clock -> one transaction: burn, lease, peer, event, audit -> answer

Which error a caller sees depends on the secret: before it matched there is only `token_unknown`. The same token with
the same proved key gets the same octets again for a day, so that a lost answer loses nothing (D5).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from sqlalchemy import Connection, insert, select, update

from hub_server import audit
from hub_server.auth.throttle import RateLimit, source_of
from hub_server.domain import alerts, foreign
from hub_server.domain import token as tokens
from hub_server.domain.errors import HubError, TooMany, Unavailable
from hub_server.domain.foreign import Document, ForeignError, cleaned
from hub_server.domain.reasons import Reason
from hub_server.domain.status import Phase
from hub_server.services import addresses
from hub_server.services.core import Core, add_event, open_alert
from hub_server.services.presence import PROTOCOL, Presence
from hub_server.store import schema

__all__ = ["Answer", "Joining", "Refused", "Request", "parse_request_untrusted"]

_NONCE: Final = 16
_PSK: Final = 32
_WORD: Final = 100
# Checks of the way that may go on at once, and how long each, in seconds.
_PROBES: Final = 64
PROBE_LIFETIME: Final = 60


class Refused(HubError):
    """The request is refused for good; `code` says why (the table of section 5)."""

    def __init__(self, status: int, code: str, detail: str, **more: Any) -> None:
        """Say why; `more` goes into the answer."""
        super().__init__(detail, code=code)
        self.status = status
        self.more = more


_UNKNOWN: Final = "this token is not known here"


@dataclass(frozen=True, slots=True)
class Request:
    """What an edge asks with; `token` is empty when it asks for itself only."""

    token: str
    public_key: bytes
    proof: bytes
    nonce: bytes
    ts: int
    protocol: int
    chart_version: str
    agent_version: str
    kube_version: str
    cluster_uid: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The body, and the MAC that shows whose it is."""

    body: bytes
    mac: bytes


def parse_request_untrusted(document: object, *, has_token: bool) -> Request:
    """Read a request.

    Raises:
        Refused: 400 `bad_request`; a key that cannot be read is `bad_pubkey` later on, as an empty one.
    """
    try:
        return _request(Document(document), has_token)
    except ForeignError as error:
        raise Refused(400, "bad_request", str(error)) from None


def _request(document: Document, has_token: bool) -> Request:
    def text(name: str, most: int = _WORD) -> str:
        return cleaned(document.text(name, most=most) or "", most)

    def number(name: str) -> int:
        return foreign.integer(name, document.raw(name), 0, 2**63 - 1)

    return Request(
        token=text("token", 200) if has_token else "",
        public_key=_octets(text("pubkey"), 32),
        proof=_octets(text("proof"), 32),
        nonce=_octets(text("nonce"), _NONCE),
        ts=number("ts"),
        protocol=number("protocol") if has_token else PROTOCOL,
        chart_version=text("chart_version"),
        agent_version=text("agent_version"),
        kube_version=text("kube_version"),
        cluster_uid=text("cluster_uid") or None,
    )


def _octets(text: str, length: int) -> bytes:
    try:
        octets = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""
    return octets if len(octets) == length else b""


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


class Joining:
    """Redeems tokens, and tells edges how they stand.

    Attributes:
        start: starts one-off work with its arguments; set by who has a nursery for it.
    """

    def __init__(self, core: Core, presence: Presence, private_key: bytes) -> None:
        """Stand on the core; the private key is the hub's WireGuard key, 32 octets."""
        # Starts one-off work, once there is a nursery for it.
        self.start: Callable[..., None] = lambda *_: None
        self._probes: set[bytes] = set()
        self._core = core
        self._presence = presence
        self._key = X25519PrivateKey.from_private_bytes(private_key)
        settings = core.settings
        rate, id_rate = settings.bootstrap_rate, settings.bootstrap_id_rate
        self._of_address = RateLimit(rate=rate / 60, burst=rate)
        self._of_id = RateLimit(rate=id_rate / 60, burst=id_rate)

    # --- redeeming ---------------------------------------------------------------------------------------------------

    async def redeem(self, request: Request, remote: str) -> Answer:
        """Redeem a token, or repeat what was answered. Raises Refused, TooMany, Unavailable."""
        core, now = self._core, self._core.now()
        token = tokens.parse_token(request.token)
        if token is None or token.hub_key != core.hub_key:
            raise Refused(401, "token_unknown", _UNKNOWN)
        if wait := self._of_id.wait_for(token.id, core.monotonic()):
            raise TooMany("too many requests with this token", retry_after=wait)
        stored = await core.database.read(_secret_of, token.id)
        # Compared in any case, so that an id that exists takes as long as one that does not.
        if not tokens.same(stored or bytes(32), tokens.secret_hash(token.secret)) or stored is None:
            raise Refused(401, "token_unknown", _UNKNOWN)
        shared, key = self._prove(request, lambda key: tokens.bootstrap_proof(
            key, token.id, request.public_key, request.nonce, request.ts
        ))  # fmt: skip
        self._check_protocol(request)
        self._check_clock(request, now)
        cluster_id, answer, psk = await self._redeem(request, token.id, remote)
        sealing, nonce = tokens.psk_seal_parts(shared, psk)
        sealed = nonce + ChaCha20Poly1305(sealing).encrypt(nonce, psk, cluster_id.encode())
        body = _canonical(foreign.decode_json(answer.encode(), 2**20) | {"psk_sealed": _base64(sealed)}).encode()
        return Answer(body, tokens.answer_mac(key, request.nonce, body))

    async def _redeem(self, request: Request, token_id: str, remote: str) -> tuple[str, str, bytes]:
        """Burn the token in one transaction; a refusal is written down too, in its own."""
        core = self._core
        psk = core.random(_PSK)
        outcome = await core.database.write(_redeem, core, request, token_id, remote, psk)
        if isinstance(outcome, _Misuse):
            await self._presence.reload(outcome.cluster_id)
            if outcome.is_alert:
                core.live.publish(outcome.tenant_id, "alert", outcome.cluster_id)
            raise Refused(409, "token_used", outcome.detail)
        if outcome.is_new:
            row = await self._presence.joined(outcome.cluster_id)
            if row is not None:
                row.cluster_uid, row.offered_cluster_uid = outcome.uids
        return outcome.cluster_id, outcome.answer, outcome.psk

    # --- asking for oneself ------------------------------------------------------------------------------------------

    async def about(self, request: Request) -> Answer:
        """How the edge with this key stands, and its configuration. Raises Refused."""
        core = self._core
        _, key = self._prove(request, lambda key: tokens.self_proof(key, request.public_key, request.nonce, request.ts))
        # Proved by its key: so late or early an edge is refused its handshakes, too, and nobody else could say why.
        off = request.ts - core.now()
        self._presence.clock_told(request.public_key, round(off) if abs(off) > tokens.CLOCK_TOLERANCE else None)
        self._check_clock(request, core.now())
        document = await core.database.read(_about, core, request.public_key)
        body = _canonical(document).encode()
        return Answer(body, tokens.answer_mac(key, request.nonce, body))

    def probe(self, public_key_text: object) -> dict[str, Any]:
        """Let a key that nobody knows shake hands for a minute: where, and with whom. Raises Refused, Unavailable.

        WireGuard answers nobody whom it does not know, so that a check of the way before a cluster has joined needs a
        key of its own. It belongs to no realm and has no address; there are few at once, and they end by themselves.
        """
        public_key = _octets(public_key_text, 32) if isinstance(public_key_text, str) else b""
        self._check_key(public_key)
        if len(self._probes) >= _PROBES:
            raise Unavailable("too many checks at once: try again in a minute", retry_after=PROBE_LIFETIME)
        wire = self._core.wire
        if wire is None or not wire.put_probe(public_key):
            raise Refused(422, "bad_pubkey", "pubkey: this key is known already: make a new one")
        self._probes.add(public_key)
        self.start(self._end_probe, public_key)
        core = self._core
        return {"pubkey": _base64(core.hub_key), "endpoints": list(core.endpoints), "valid_for": PROBE_LIFETIME}

    async def _end_probe(self, public_key: bytes) -> None:
        try:
            await trio.sleep(PROBE_LIFETIME)
        finally:
            self._probes.discard(public_key)
            if self._core.wire is not None:
                self._core.wire.drop_probe(public_key)

    def refuse_if_too_many(self, remote: str) -> None:
        """Count a request of an address. Raises TooMany."""
        if wait := self._of_address.wait_for(source_of(remote), self._core.monotonic()):
            raise TooMany("too many requests from this address", retry_after=wait)

    def _check_key(self, public_key: bytes) -> bytes:
        """The secret shared with the holder of a key. Raises Refused: it is none that an edge can have."""
        if not public_key or public_key == self._core.hub_key:
            raise Refused(422, "bad_pubkey", "pubkey: expected a key of X25519 in base64, another than the hub's")
        if not tokens.is_canonical(public_key):
            # The same key has other spellings, by bits that say nothing: it would be taken for a new one.
            raise Refused(422, "bad_pubkey", "pubkey: not written as keys are: a bit that says nothing is set")
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public_key))
        except ValueError:
            raise Refused(422, "bad_pubkey", "pubkey: that key is of low order") from None

    def _prove(self, request: Request, proof_of: Any) -> tuple[bytes, bytes]:
        shared = self._check_key(request.public_key)
        key = tokens.proof_key(shared)
        if len(request.nonce) != _NONCE or not tokens.same(request.proof, proof_of(key)):
            raise Refused(422, "bad_proof", "the proof does not fit token, key, nonce and time")
        return shared, key

    def _check_protocol(self, request: Request) -> None:
        if request.protocol != PROTOCOL:
            side = "edge" if request.protocol < PROTOCOL else "hub"
            detail = f"the {side} is too old: protocol {request.protocol} of the edge, {PROTOCOL} of the hub"
            raise Refused(426, "version_too_old", detail)

    def _check_clock(self, request: Request, now: float) -> None:
        if abs(request.ts - now) > tokens.CLOCK_TOLERANCE:
            off = request.ts - now
            raise Refused(422, "clock_skew", f"the edge's clock is off by {off / 60:.0f} minutes", now=math.floor(now))


# --- units of work ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Redeemed:
    cluster_id: str
    answer: str
    psk: bytes
    is_new: bool
    uids: tuple[str | None, str | None] = (None, None)  # of the cluster that the row stands for, and another's


@dataclass(frozen=True, slots=True)
class _Misuse:
    """A refusal that must be remembered: it is returned, so that its transaction is committed."""

    tenant_id: str
    cluster_id: str
    detail: str
    is_alert: bool


def _secret_of(connection: Connection, token_id: str) -> bytes | None:
    return connection.execute(
        select(schema.invites.c.secret_hash).where(schema.invites.c.id == token_id)
    ).scalar_one_or_none()


def _redeem(
    connection: Connection, core: Core, request: Request, token_id: str, remote: str, psk: bytes
) -> _Redeemed | _Misuse:
    invites, now = schema.invites, core.now()
    invite = connection.execute(select(invites).where(invites.c.id == token_id).with_for_update()).one()
    if invite.used_at is not None:
        return _repeat(connection, core, request, invite, remote)
    if invite.revoked_at is not None:
        raise Refused(410, "token_revoked", "this token was withdrawn: use the newest invite of this cluster")
    if now >= invite.expires_at:
        raise Refused(410, "token_expired", "this token was not used within its hour: regenerate the invite")
    clusters = schema.clusters
    cluster = connection.execute(
        select(clusters).where(clusters.c.id == invite.cluster_id, clusters.c.deleted_at.is_(None))
    ).one_or_none()
    if cluster is None:
        raise Refused(410, "token_revoked", "the cluster of this token was removed from the hub")
    _refuse_known_key(connection, request.public_key, cluster.id)
    address, address6 = addresses.lease(
        connection, cluster_id=cluster.id, tenant_id=cluster.tenant_id, subnet_id=cluster.subnet_id, now=now
    )
    _put_peer(connection, core, request.public_key, cluster, address, address6, psk, now)
    config = _config(connection, core, cluster, str(address), str(address6) if address6 is not None else None)
    answer = _canonical(config)
    connection.execute(
        update(invites)
        .where(invites.c.id == token_id, invites.c.used_at.is_(None))
        .values(
            used_at=now,
            used_pubkey=request.public_key,
            used_from=remote[:64],
            used_cluster_uid=request.cluster_uid,
            answer=answer,
        )
    )
    uids = _uids(cluster.cluster_uid, request.cluster_uid)
    joined: dict[str, Any] = {"cluster_uid": uids[0], "offered_cluster_uid": uids[1]}
    for name in ("kube_version", "chart_version", "agent_version"):
        if told := getattr(request, name)[:60]:
            joined[name] = told
    if cluster.phase == Phase.INVITED.value:
        joined |= {"phase": Phase.REDEEMED.value, "reason": Reason.NO_UDP_SEEN.value, "since": now}
    connection.execute(update(clusters).where(clusters.c.id == cluster.id).values(**joined))
    add_event(
        connection,
        tenant_id=cluster.tenant_id,
        cluster_id=cluster.id,
        kind="invite.redeemed",
        at=now,
        detail=f"from {remote}; {address}",
    )
    audit.append(connection, _entry(cluster.tenant_id, cluster.id, now, remote, token_id, "ok"))
    return _Redeemed(cluster.id, answer, psk, is_new=True, uids=uids)


def _uids(known: str | None, told: str | None) -> tuple[str | None, str | None]:
    """The cluster that a row stands for, and another one that now comes in its place: its hello will block it (D18)."""
    return (known or told, None) if known is None or told in (None, known) else (known, told)


def _repeat(connection: Connection, core: Core, request: Request, invite: Any, remote: str) -> _Redeemed | _Misuse:
    """A token that was used: the same answer for the same key within a day, and an alert for another key.

    Another key from the same cluster is no theft but a new installation with the old command: an event says so.
    """
    now, peers = core.now(), schema.peers
    is_same_key = tokens.same(invite.used_pubkey, request.public_key)
    if is_same_key and now - invite.used_at <= tokens.RETRY_LIFETIME:
        live = (peers.c.public_key == request.public_key) & peers.c.retired_at.is_(None)
        peer = connection.execute(select(peers).where(live, peers.c.cluster_id == invite.cluster_id)).one_or_none()
        if peer is not None:
            psk = core.envelope.open(peer.psk, invite.cluster_id)
            return _Redeemed(invite.cluster_id, invite.answer, psk, is_new=False)
        raise Refused(410, "token_revoked", "the cluster of this token was removed from the hub, or joined anew since")
    audit.append(connection, _entry(invite.tenant_id, invite.cluster_id, now, remote, invite.id, "token_used"))
    if is_same_key:
        detail = "this token was used by this very cluster more than a day ago: regenerate the invite"
        return _Misuse(invite.tenant_id, invite.cluster_id, detail, is_alert=False)
    if request.cluster_uid and request.cluster_uid == invite.used_cluster_uid:
        detail = "this token was used by this very cluster, which has lost its key since: regenerate the invite"
        add_event(
            connection,
            tenant_id=invite.tenant_id,
            cluster_id=invite.cluster_id,
            kind="invite.needed",
            at=now,
            reason=Reason.NEEDS_NEW_INVITE.value,
            detail=f"from {remote}, with the token that this cluster used already",
        )
        return _Misuse(invite.tenant_id, invite.cluster_id, detail, is_alert=False)
    clusters = schema.clusters
    live_row = select(clusters.c.id).where(clusters.c.id == invite.cluster_id, clusters.c.deleted_at.is_(None))
    is_live = connection.execute(live_row).first() is not None
    told = (
        f"tried from {remote} by cluster {request.cluster_uid or 'unknown'} with another key than the one that "
        f"redeemed it from {invite.used_from} for cluster {invite.used_cluster_uid or 'unknown'}"
    )
    if is_live:
        opened = open_alert(
            connection,
            alert_id=core.id("al"),
            tenant_id=invite.tenant_id,
            cluster_id=invite.cluster_id,
            kind=alerts.Kind.INVITE_USED,
            at=now,
            detail=told,
        )
        if opened:
            add_event(
                connection,
                tenant_id=invite.tenant_id,
                cluster_id=invite.cluster_id,
                kind="invite.misused",
                at=now,
                reason=Reason.INVITE_USED.value,
                detail=told,
            )
    detail = "this token was already used by another cluster, or with another key: regenerate the invite"
    return _Misuse(invite.tenant_id, invite.cluster_id, detail, is_alert=is_live)


def _refuse_known_key(connection: Connection, public_key: bytes, cluster_id: str) -> None:
    """A public key belongs to one cluster of one tenant for ever; tombstones keep theirs."""
    peers = schema.peers
    known = connection.execute(select(peers).where(peers.c.public_key == public_key)).one_or_none()
    if known is not None and (known.cluster_id != cluster_id or known.retired_at is not None):
        raise Refused(422, "bad_pubkey", "pubkey: this key is known already: make a new one")


def _put_peer(
    connection: Connection,
    core: Core,
    public_key: bytes,
    cluster: Any,
    address: IPv4Address,
    address6: IPv6Address | None,
    psk: bytes,
    now: float,
) -> None:
    peers = schema.peers
    sealed = core.envelope.seal(psk, cluster.id)
    mine = (peers.c.public_key == public_key) & peers.c.retired_at.is_(None)
    if connection.execute(update(peers).where(mine).values(psk=sealed)).rowcount:
        return
    # An edge that runs goes on with its key until the new one is used; of two that wait the older one is void.
    is_running = cluster.connected_at is not None
    before = (peers.c.cluster_id == cluster.id) & peers.c.retired_at.is_(None)
    replaced = before & peers.c.is_pending if is_running else before
    connection.execute(update(peers).where(replaced).values(retired_at=now, psk=b""))
    has_key = connection.execute(select(peers.c.public_key).where(before)).first() is not None
    connection.execute(
        insert(peers).values(
            public_key=public_key,
            tenant_id=cluster.tenant_id,
            cluster_id=cluster.id,
            psk=sealed,
            address=str(address),
            address6=str(address6) if address6 is not None else None,
            created_at=now,
            is_pending=has_key,
        )
    )


def _config(connection: Connection, core: Core, cluster: Any, address: str, address6: str | None) -> dict[str, Any]:
    """The public configuration of a cluster, without its sealed key."""
    hub, hub6 = addresses.hub_addresses(connection)[cluster.tenant_id]
    return {
        "cluster_id": cluster.id,
        "address": address,
        "address6": address6,
        "mtu": core.settings.mtu,
        "keepalive": cluster.keepalive,
        "hub": {
            "pubkey": _base64(core.hub_key),
            "endpoints": list(core.endpoints),
            "relay_url": None,
            "address": str(hub),
            "address6": str(hub6) if hub6 is not None and address6 is not None else None,
        },
        "config_revision": cluster.config_revision,
    }


def _about(connection: Connection, core: Core, public_key: bytes) -> dict[str, Any]:
    peers, clusters = schema.peers, schema.clusters
    peer = connection.execute(select(peers).where(peers.c.public_key == public_key)).one_or_none()
    if peer is None:
        return {"state": "unknown", "at": None, "config": None}
    cluster = connection.execute(select(clusters).where(clusters.c.id == peer.cluster_id)).one()
    if cluster.deleted_at is not None:
        return {"state": "deleted", "at": math.floor(cluster.deleted_at), "config": None}
    if peer.retired_at is not None:
        return {"state": "revoked", "at": math.floor(peer.retired_at), "config": None}
    if cluster.phase == Phase.BLOCKED.value:
        return {"state": "blocked", "at": math.floor(cluster.since), "config": None}
    config = _config(connection, core, cluster, peer.address, peer.address6)
    return {"state": "active", "at": None, "config": config}


def _entry(tenant_id: str, cluster_id: str, now: float, remote: str, token_id: str, result: str) -> audit.Entry:
    return audit.Entry(
        chain=tenant_id,
        at=now,
        actor="edge",
        action="invite.redeem",
        result=result,
        cluster_id=cluster_id,
        target=token_id,
        remote=remote,
    )
