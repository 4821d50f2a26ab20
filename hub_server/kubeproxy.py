"""kubectl's door: `/k8s/clusters/<id>/...`, an ASGI application that sends requests through the tunnel.

    ASGI scope -> target and headers (domain.headers) -> authorize -> limits -> Upstream.request -> edge -> API server
    answer     <- allow-list of headers               <- pieces as they come, each sent before the next is taken

A slow reader holds up its own request and nothing else; a reader that hangs up ends the request at the edge at once.
Whatever is refused is answered as a Kubernetes `Status`, which kubectl prints. Redirects are not followed. An answer
that breaks off is broken off here too (the server below must speak HTTP/1.1, where that shows), never ended as if it
were whole.

Seam: upgrades to WebSocket (exec, attach, port-forward) arrive as scopes of type `websocket`; they are authorized like
every request and then refused as not available yet. Their relay will stand beside `_relay`.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import trio

from hub_server import supervise
from hub_server.domain.errors import HubError, TooMany
from hub_server.domain.headers import (
    Impersonating,
    KubeRequest,
    Malformed,
    answer_untrusted,
    content_length_untrusted,
    describe,
    request_untrusted,
    status_document,
    target_untrusted,
    upgrade_untrusted,
)
from hub_server.domain.records import ProxyGrant, ProxyRecord
from hub_server.http import HungUp
from hub_server.nursery import unwrapped
from hub_server.upstream import EdgeFault, Upstream
from hub_server.wire import Wire

__all__ = ["Authorize", "KubeProxy", "Limits", "Refusal", "identity_fields"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# cluster id, bearer token, method, path below the cluster; raises `Refusal` or any other HubError.
Authorize: TypeAlias = Callable[[str, str, str, str], Awaitable[ProxyGrant]]

_PREFIX: Final = re.compile(rb"/k8s/clusters/([0-9A-Za-z_-]{1,64})(/[^?#]*)?")
_BEARER: Final = re.compile(rb"[Bb]earer +([0-9A-Za-z._~+/=-]{1,512})")
# Kubernetes' word for each status of ours.
_REASONS: Final = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict",
    413: "RequestEntityTooLarge", 429: "TooManyRequests", 501: "MethodNotAllowed", 502: "ServiceUnavailable",
    503: "ServiceUnavailable",
}  # fmt: skip
_SPDY: Final = "streaming through Daalu needs kubectl 1.31 or newer"
_NOT_YET: Final = "exec, attach, cp and port-forward through Daalu are not available in this release"
_AS: Final = "acting as somebody else (--as, --as-group, Impersonate-*) is not possible through Daalu"


class Refusal(HubError):
    """A request that is not sent on."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        """Say with which HTTP status, why to people, and with which word of Kubernetes."""
        super().__init__(message, code=reason or _REASONS.get(status, "InternalError"))
        self.status = status


class _BodyTooLarge(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one user or one cluster may hold.

    Attributes:
        request_body: octets.
        per_user: requests at once, streams among them.
        per_cluster: likewise.
    """

    request_body: int = 3 * 2**20
    per_user: int = 64
    per_cluster: int = 512


@dataclass(slots=True)
class _Asked:
    """A request on its way, and what is known of it for the audit."""

    id: str
    started: float
    clock: float
    cluster_id: str = ""
    method: str = ""
    target: str = ""
    kube: KubeRequest = field(default_factory=lambda: KubeRequest(""))
    grant: ProxyGrant | None = None
    octets_in: int = 0
    octets_out: int = 0
    status: int = 0
    reason: str | None = None


class KubeProxy:
    """The ASGI application."""

    def __init__(
        self,
        wire: Wire,
        authorize: Authorize,
        record: Callable[[ProxyRecord], None],
        *,
        limits: Limits = Limits(),
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Make one.

        Args:
            wire: the tunnels.
            authorize: who asks, and what they may; raises `Refusal` or another HubError.
            record: takes every request for the audit, quickly.
            limits: of users and clusters.
            wall_clock: Unix seconds.
        """
        self._upstream = Upstream(wire)
        self._authorize = authorize
        self._record = record
        self._limits = limits
        self._wall_clock = wall_clock
        self._of_user: Counter[str] = Counter()
        self._of_cluster: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] not in ("http", "websocket"):
            return
        request_id = scope.get("state", {}).get("request_id") or secrets.token_hex(8)
        asked = _Asked(request_id, self._wall_clock(), trio.current_time())
        answer = _Answering(send, "websocket.http.response" if scope["type"] == "websocket" else "http.response")
        try:
            await self._serve(scope, receive, answer, asked)
        except HubError as refusal:
            asked.status, asked.reason = refusal.status, refusal.code
            extra = []
            if (after := getattr(refusal, "retry_after", None)) is not None:
                extra.append((b"retry-after", b"%d" % max(1, round(after))))
            if refusal.status == 401:
                extra.append((b"www-authenticate", b"Bearer"))
            word = refusal.code if isinstance(refusal, Refusal) else _REASONS.get(refusal.status, "InternalError")
            await answer.refuse(asked, word, refusal.detail, extra)
        except (Malformed, Impersonating) as problem:
            status, text = (400, str(problem)) if isinstance(problem, Malformed) else (403, _AS)
            asked.status, asked.reason = status, type(problem).__name__
            await answer.refuse(asked, _REASONS[status], text, [(b"connection", b"close")])
        except _BodyTooLarge:
            asked.status, asked.reason = 413, "RequestEntityTooLarge"
            text = f"a request body has at most {self._limits.request_body} octets"
            await answer.refuse(asked, asked.reason, text, [(b"connection", b"close")])
        except HungUp:
            asked.reason = asked.reason or "ClientGone"
        except EdgeFault as fault:
            asked.reason = "EdgeFault"
            if not answer.has_begun:
                asked.status = 502
            await answer.refuse(asked, "ServiceUnavailable", str(fault), cause="EdgeFault")
        finally:
            self._note(asked, "close")

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answering, asked: _Asked) -> None:
        asked.method = scope.get("method", "GET")
        headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        found = _PREFIX.fullmatch(scope.get("raw_path") or b"")
        if found is None:
            raise Malformed("the path is not that of a cluster")
        asked.cluster_id = found[1].decode()
        asked.target = target_untrusted(found[2] or b"/", scope.get("query_string", b""))
        asked.kube = describe(asked.method, asked.target)
        path = asked.target.partition("?")[0]
        grant = asked.grant = await self._authorize(asked.cluster_id, _token_of(headers), asked.method, path)
        fields = request_untrusted(headers)
        length = content_length_untrusted(headers)
        if length is not None and length > self._limits.request_body:
            raise _BodyTooLarge
        upgrade = upgrade_untrusted(headers)
        if asked.kube.needs_stream and not grant.stream:
            raise Refusal(403, f"{asked.kube.resource} through Daalu needs the right `stream`, which you do not have")
        if upgrade == "spdy":
            raise Refusal(400, _SPDY)
        if upgrade != "none" or scope["type"] == "websocket":
            raise Refusal(501, _NOT_YET) if asked.kube.needs_stream else Malformed("nothing to upgrade to here")
        fields += [(b"daalu-request-id", asked.id.encode())]
        fields += identity_fields(grant)
        has_body = bool(length) or any(name.lower() == b"transfer-encoding" for name, _ in headers)
        body = _Body(receive, self._limits.request_body, asked, is_wanted=has_body)
        with self._room(grant), unwrapped():
            async with trio.open_nursery() as nursery:
                supervise.start_part(nursery, body.watch)
                await self._relay(asked, fields, body if has_body else None, length, answer)
                nursery.cancel_scope.cancel()

    async def _relay(
        self,
        asked: _Asked,
        fields: list[tuple[bytes, bytes]],
        body: _Body | None,
        length: int | None,
        answer: _Answering,
    ) -> None:
        ask = self._upstream.request(
            asked.cluster_id,
            asked.method,
            asked.target,
            fields,
            None if body is None else body.send_on,
            length=length,
        )
        try:
            async with ask as edge:
                asked.status = edge.status
                if 300 <= edge.status < 400 and edge.status != 304:
                    raise Refusal(502, "the cluster answered with a redirect, which is not followed", "Redirect")
                kept = answer_untrusted(edge.fields)
                if edge.length is not None:
                    kept.append((b"content-length", b"%d" % edge.length))
                await answer.begin(edge.status, [*kept, (b"daalu-request-id", asked.id.encode())])
                if asked.kube.is_long:
                    self._note(asked, "open")
                while piece := await edge.piece():
                    asked.octets_out += len(piece)
                    await answer.piece(piece)
                await answer.end()
        except HungUp:  # an OSError that has nothing to do with the cluster
            raise
        except OSError as problem:
            text = f"cluster {asked.cluster_id} cannot be reached through its tunnel: {problem.strerror or problem}"
            raise Refusal(502, text, "ServiceUnavailable") from None

    @contextmanager
    def _room(self, grant: ProxyGrant) -> Iterator[None]:
        user, cluster, limits = grant.user_id, grant.cluster_id, self._limits
        if self._of_user[user] >= limits.per_user:
            raise TooMany(f"you have {limits.per_user} requests open already", retry_after=1)
        if self._of_cluster[cluster] >= limits.per_cluster:
            raise TooMany(f"this cluster has {limits.per_cluster} requests open already", retry_after=1)
        self._of_user[user] += 1
        self._of_cluster[cluster] += 1
        try:
            yield
        finally:
            for counter, key in ((self._of_user, user), (self._of_cluster, cluster)):
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]

    def _note(self, asked: _Asked, phase: Literal["open", "close"]) -> None:
        grant, kube = asked.grant, asked.kube
        path, _, query = asked.target.partition("?")
        self._record(
            ProxyRecord(
                request_id=asked.id,
                user_id=grant.user_id if grant else "",
                tenant_id=grant.tenant_id if grant else "",
                cluster_id=asked.cluster_id,
                method=asked.method,
                path=path,
                query=query,
                verb=kube.verb,
                resource=kube.resource,
                namespace=kube.namespace,
                name=kube.name,
                identity=_user(grant) if grant and grant.identity_mode == "per-user" else "service-account",
                status=asked.status,
                reason=asked.reason,
                octets_in=asked.octets_in,
                octets_out=asked.octets_out,
                started=asked.started,
                seconds=trio.current_time() - asked.clock,
                phase=phase,
            )
        )


class _Answering:
    """The answer to who asked, over HTTP or in place of a WebSocket."""

    def __init__(self, send: Send, kind: str) -> None:
        self._send = send
        self._kind = kind
        self.has_begun = False

    async def begin(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.has_begun = True
        await self._send({"type": f"{self._kind}.start", "status": status, "headers": fields})

    async def piece(self, octets: bytes) -> None:
        await self._send({"type": f"{self._kind}.body", "body": octets, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": f"{self._kind}.body", "body": b"", "more_body": False})

    async def refuse(
        self,
        asked: _Asked,
        reason: str,
        message: str,
        extra: list[tuple[bytes, bytes]] | None = None,
        *,
        cause: str | None = None,
    ) -> None:
        """A `Status` with what is known; nothing when the answer began already: it then breaks off."""
        if self.has_begun:
            return
        document = status_document(asked.status, reason, message, cause=cause)
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(document)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"daalu-request-id", asked.id.encode()),
        ]
        await self.begin(asked.status, fields + (extra or []))
        if asked.method != "HEAD":
            await self.piece(document)
        await self.end()


class _Body:
    """The body of a request as ASGI gives it; and afterwards the news that who asked has hung up."""

    def __init__(self, receive: Receive, most: int, asked: _Asked, *, is_wanted: bool) -> None:
        self._receive = receive
        self._most = most
        self._asked = asked
        self._is_read = trio.Event()
        if not is_wanted:
            self._is_read.set()

    async def send_on(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send every piece on before the next is taken."""
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise HungUp
            piece = message.get("body", b"")
            self._asked.octets_in += len(piece)
            if self._asked.octets_in > self._most:
                raise _BodyTooLarge
            if piece:
                await send(piece)
            if not message.get("more_body", False):
                self._is_read.set()
                return

    async def watch(self) -> None:
        """Wait until who asked hangs up.

        Raises:
            HungUp: they did.
        """
        await self._is_read.wait()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise HungUp


def _token_of(headers: list[tuple[bytes, bytes]]) -> str:
    found = [value for name, value in headers if name.lower() == b"authorization"]
    if len(found) > 1:
        raise Malformed("authorization is there twice")
    match = _BEARER.fullmatch(found[0].strip()) if found else None
    if match is None:
        raise Refusal(401, "this needs the token of a kubeconfig that this hub issued")
    return match[1].decode()


def _user(grant: ProxyGrant) -> str:
    return f"daalu:{grant.email}"


def identity_fields(grant: ProxyGrant) -> list[tuple[bytes, bytes]]:
    """The private header that names whom a request runs as; none where it is the edge's own account."""
    if grant.identity_mode != "per-user":
        return []
    groups = [f"daalu:tenant:{grant.tenant_slug}", f"daalu:role:{grant.role}"]
    groups += [f"daalu:group:{group}" for group in grant.groups]
    return [(b"daalu-identity", json.dumps({"user": _user(grant), "groups": groups}).encode())]
