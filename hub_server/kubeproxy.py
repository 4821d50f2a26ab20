"""kubectl's door: `/k8s/clusters/<id>/...`, an ASGI application that sends requests through the tunnel.

    ASGI scope -> target, headers (domain.headers) -> authorize -> rooms, grounds -> Upstream -> edge -> API server
    answer     <- allow-list of headers            <- pieces as they come, each sent before the next is taken

A slow reader holds up its own request and nothing else; a reader that hangs up ends the request at the edge at once.
Whatever is refused is answered as a Kubernetes `Status`, which kubectl prints, after the rest of the request was taken.
Redirects are not followed. An answer that breaks off, whoever broke it, is broken off here too (the server below must
speak HTTP/1.1, where that shows), never ended as if it were whole: kubectl then lists again.

Seam: upgrades to WebSocket (exec, attach, port-forward) arrive as scopes of type `websocket`; they are authorized like
every request and then refused as not available yet. Their relay will stand beside `_relay`.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

import trio

from hub_server import supervise
from hub_server.domain.errors import HubError
from hub_server.domain.headers import (
    Impersonating,
    KubeRequest,
    Malformed,
    answer_untrusted,
    content_length_untrusted,
    describe,
    request_untrusted,
    target_untrusted,
    upgrade_untrusted,
)
from hub_server.domain.records import ProxyGrant, ProxyRecord
from hub_server.domain.roles import Right
from hub_server.exchange import Answering, Body, BodyTooLarge, HungUp, Receive, Scope, Send
from hub_server.grounds import Ground, Grounds
from hub_server.nursery import unwrapped
from hub_server.rooms import USUAL, Limits, Rooms
from hub_server.upstream import Answer, EdgeFault, Upstream
from hub_server.wire import Wire

__all__ = ["Asking", "Authorize", "KubeProxy", "Refusal", "identity_fields"]

_PREFIX: Final = re.compile(rb"/k8s/clusters/([0-9A-Za-z_-]{1,64})(/[^?#]*)?")
_BEARER: Final = re.compile(rb"[Bb]earer +([0-9A-Za-z._~+/=-]{1,512})")
# Kubernetes' word for each status of ours.
_REASONS: Final = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict",
    413: "RequestEntityTooLarge", 429: "TooManyRequests", 501: "MethodNotAllowed", 502: "ServiceUnavailable",
    503: "ServiceUnavailable",
}  # fmt: skip
_CLOSE: Final = (b"connection", b"close")
_SPDY: Final = "streaming through Daalu needs kubectl 1.31 or newer"
_NOT_YET: Final = "exec, attach, cp and port-forward through Daalu are not available in this release"
_AS: Final = "acting as somebody else (--as, --as-group, Impersonate-*) is not possible through Daalu"
_SECRETS: Final = (
    b'299 - "Secrets are not among the default read rights of a cluster behind Daalu, and helm keeps its releases in '
    b"them: an admin of the cluster can grant them per namespace (page RBAC of this cluster, Custom rows), never those "
    b'of the namespace of daalu-edge itself"'
)
# kubectl falls back from a refused WebSocket to SPDY at once.
_FALLS_BACK_WITHIN: Final = 60.0
_OLD: Final = re.compile(rb"kubectl/v1\.([0-9]|[12][0-9]|30)\.")
_REMEMBERED: Final = 1024


class Refusal(HubError):
    """A request that is not sent on."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        """Say with which HTTP status, why to people, and with which word of Kubernetes."""
        super().__init__(message, code=reason or _REASONS.get(status, "InternalError"))
        self.status = status


class Asking(NamedTuple):
    """Who asks for what, before anybody is recognised.

    Attributes:
        cluster_id: as in the path.
        token: of the kubeconfig.
        method: HTTP.
        path: below the cluster.
        remote: address it came from.
        request_id: of the request.
    """

    cluster_id: str
    token: str
    method: str = "GET"
    path: str = "/"
    remote: str = ""
    request_id: str = ""


# Raises `Refusal` or any other HubError.
Authorize: TypeAlias = Callable[[Asking], Awaitable[ProxyGrant]]


@dataclass(slots=True)
class _Asked:
    """A request on its way, and what is known of it for the audit."""

    id: str
    started: float
    clock: float
    remote: str
    method: str
    cluster_id: str = ""
    target: str = ""
    kube: KubeRequest = field(default_factory=lambda: KubeRequest(""))
    grant: ProxyGrant | None = None
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
        grounds: Grounds,
        *,
        limits: Limits = USUAL,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Make one.

        Args:
            wire: the tunnels.
            authorize: who asks, and what they may; raises `Refusal` or another HubError.
            record: takes every request for the audit, quickly.
            grounds: end what is open when its right is gone.
            limits: of users and clusters.
            wall_clock: Unix seconds.
        """
        self._upstream = Upstream(wire)
        self._authorize = authorize
        self._record = record
        self._grounds = grounds
        self._limits = limits
        self._rooms = Rooms(limits)
        self._wall_clock = wall_clock
        # When a WebSocket of a user for a path was refused.
        self._sockets_refused: dict[tuple[str, str, str], float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] not in ("http", "websocket"):
            return
        remote = str((scope.get("client") or ("",))[0])
        now = self._wall_clock()
        request_id = scope.get("state", {}).get("request_id") or secrets.token_hex(8)
        asked = _Asked(request_id, now, trio.current_time(), remote, scope.get("method", "GET"))
        answer = Answering(send, "websocket.http.response" if scope["type"] == "websocket" else "http.response")
        headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        body = Body(receive, self._limits.request_body, is_wanted=scope["type"] == "http" and _has_body(headers))
        try:
            await self._serve(scope, headers, body, answer, asked)
        except HungUp:
            asked.reason = "ClientGone"
        except (HubError, Malformed, Impersonating, BodyTooLarge, EdgeFault) as problem:
            asked.reason = _code_of(problem)
            if not answer.has_begun:
                asked.status = _status_of(problem)
                await self._refuse(problem, headers, body, answer, asked)
        except BaseException:
            asked.reason = asked.reason or (None if answer.is_ending else "Stopped")
            raise
        finally:
            self._note(asked, body.octets, "close")

    async def _serve(
        self, scope: Scope, headers: list[tuple[bytes, bytes]], body: Body, answer: Answering, asked: _Asked
    ) -> None:
        found = _PREFIX.fullmatch(scope.get("raw_path") or b"")
        if found is None:
            raise Malformed("the path is not that of a cluster")
        asked.cluster_id = found[1].decode()
        asked.target = target_untrusted(found[2] or b"/", scope.get("query_string", b""))
        asked.kube = describe(asked.method, asked.target)
        path = asked.target.partition("?")[0]
        asking = Asking(asked.cluster_id, _token_of(headers), asked.method, path, asked.remote, asked.id)
        grant = asked.grant = await self._authorize(asking)
        fields = request_untrusted(headers)
        length = content_length_untrusted(headers)
        if length is not None and length > self._limits.request_body:
            raise BodyTooLarge
        if asked.kube.needs_stream and not grant.stream:
            raise Refusal(403, f"{asked.kube.resource} through Daalu needs the right `stream`, which you do not have")
        self._refuse_upgrade(scope, headers, grant, path, asked.kube)
        fields += [(b"daalu-request-id", asked.id.encode()), *identity_fields(grant)]
        right = Right.STREAM if asked.kube.needs_stream else Right.KUBECONFIG
        ground = Ground("kubeconfig", grant.kubeconfig_id, grant.tenant_id, right, grant.cluster_id)
        send_on = body.send_on if _has_body(headers) else None
        ask = self._upstream.request(asked.cluster_id, asked.method, asked.target, fields, send_on, length=length)
        with self._rooms.room(grant, is_long=asked.kube.is_long), self._grounds.standing_on(ground):
            with body.scope, unwrapped():
                async with trio.open_nursery() as nursery:
                    supervise.start_part(nursery, body.watch, answer)
                    try:
                        async with ask as edge:
                            await self._relay(asked, edge, body, answer)
                    except OSError as problem:
                        text = f"the cluster cannot be reached through its tunnel: {problem.strerror or problem}"
                        raise Refusal(502, text) from None
                    nursery.cancel_scope.cancel()
            if body.problem is not None:
                raise body.problem

    async def _relay(self, asked: _Asked, edge: Answer, body: Body, answer: Answering) -> None:
        if 300 <= edge.status < 400 and edge.status != 304:
            text = f"the cluster answered with a redirect ({edge.status}), which is not followed"
            raise Refusal(502, text, "Redirect")
        if edge.status >= 400:
            await body.until_read()  # the edge may have answered before it read everything
        asked.status = edge.status
        kept = answer_untrusted(edge.fields)
        if edge.length is not None and edge.status not in (204, 304):
            kept.append((b"content-length", b"%d" % edge.length))
        if edge.status == 403 and asked.kube.resource.partition("/")[0] == "secrets":
            kept.append((b"warning", _SECRETS))
        await answer.begin(edge.status, [*kept, (b"daalu-request-id", asked.id.encode())])
        if asked.kube.is_long:
            self._note(asked, body.octets, "open")
        while piece := await edge.piece():
            asked.octets_out += len(piece)
            await answer.piece(piece)
        await answer.end()

    def _refuse_upgrade(
        self, scope: Scope, headers: list[tuple[bytes, bytes]], grant: ProxyGrant, path: str, kube: KubeRequest
    ) -> None:
        upgrade = upgrade_untrusted(headers)
        key, now, refused = (grant.user_id, grant.cluster_id, path), trio.current_time(), self._sockets_refused
        if upgrade == "spdy":
            # A newer kubectl tries this where its WebSocket was refused, and prints what it gets here.
            agent = next((value for name, value in headers if name.lower() == b"user-agent"), b"")
            if _OLD.match(agent) or now - refused.get(key, -math.inf) > _FALLS_BACK_WITHIN:
                raise Refusal(400, _SPDY)
            raise Refusal(501, _NOT_YET)
        if upgrade == "none" and scope["type"] != "websocket":
            return
        if not kube.needs_stream:
            raise Malformed("nothing to upgrade to here")
        refused.pop(key, None)
        refused[key] = now
        if len(refused) > _REMEMBERED:
            del refused[next(iter(refused))]
        raise Refusal(501, _NOT_YET)

    async def _refuse(
        self, problem: Exception, headers: list[tuple[bytes, bytes]], body: Body, answer: Answering, asked: _Asked
    ) -> None:
        """Answer with a `Status`; first what is left of the request is taken, so that its sender reads the answer."""
        extra = []
        expects = any(name.lower() == b"expect" for name, _ in headers)
        is_malformed = isinstance(problem, Malformed | Impersonating)
        if expects or is_malformed or not await body.drain():
            extra.append(_CLOSE)
        if (after := getattr(problem, "retry_after", None)) is not None:
            extra.append((b"retry-after", b"%d" % max(1, round(after))))
        if asked.status == 401:
            extra.append((b"www-authenticate", b"Bearer"))
        word = problem.code if isinstance(problem, Refusal) else _REASONS.get(asked.status, "InternalError")
        text = {
            Impersonating: _AS,
            BodyTooLarge: f"a request body has at most {self._limits.request_body} octets",
        }.get(type(problem), str(problem))
        cause = "EdgeFault" if isinstance(problem, EdgeFault) else None
        is_head = asked.method == "HEAD"
        try:
            await answer.refuse(
                asked.status, word, text, request_id=asked.id, is_head=is_head, extra=extra, cause=cause
            )
        except HungUp:
            asked.reason = "ClientGone"

    def _note(self, asked: _Asked, octets_in: int, phase: Literal["open", "close"]) -> None:
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
                octets_in=octets_in,
                octets_out=asked.octets_out,
                started=asked.started,
                seconds=trio.current_time() - asked.clock,
                remote=asked.remote,
                phase=phase,
            )
        )


def _status_of(problem: Exception) -> int:
    if isinstance(problem, HubError):
        return problem.status
    return {Malformed: 400, Impersonating: 403, BodyTooLarge: 413}.get(type(problem), 502)


def _code_of(problem: Exception) -> str:
    if isinstance(problem, HubError):
        return problem.code
    return "RequestEntityTooLarge" if isinstance(problem, BodyTooLarge) else type(problem).__name__


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    found = {name.lower(): value for name, value in headers}
    return b"transfer-encoding" in found or found.get(b"content-length", b"0").strip(b"0 \t") != b""


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
