"""A thin client of the Kubernetes API: a handful of calls, its own account, never a redirect.

    Kube.connection -> pool of TLS connections -> API server     for the hub's requests too (`apiproxy`)
    get, merge_patch, watch, review                              for the agent itself

The account's token and the cluster's certificate authority are read again when they change: both are rotated below us.
Nothing here dials anything but the one API server.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import h11
import trio

from edge_agent.http import Answer, Connection, Origin, cause_of, open_connection

if TYPE_CHECKING:
    from edge_agent.settings import Settings

__all__ = ["Kube", "KubeError", "Unreachable"]

_TIMEOUT: Final = 10.0
_CONNECT_TIMEOUT: Final = 10.0
# An answer of our own calls; nodes come in pages.
_MOST: Final = 32 * 2**20
_KEPT: Final = 8
_KEPT_FOR: Final = 60.0
_TOKEN_AGE: Final = 10.0
# A watch is ended by the server after this long, and by us soon after: a dead path shows itself then.
_WATCH_SECONDS: Final = 240


class KubeError(Exception):
    """The API server answered, and not with success.

    Attributes:
        status: of HTTP.
        message: the API server's own words.
        reason: such as NotFound.
    """

    def __init__(self, status: int, message: str, reason: str) -> None:
        """Keep what the API server said."""
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.message = message
        self.reason = reason


class Unreachable(Exception):
    """The API server did not answer.

    Attributes:
        errno_name: such as ECONNREFUSED; TLS for a certificate that does not fit, DNS for a name without address.
        detail: for people.
    """

    def __init__(self, problem: BaseException) -> None:
        """Say why in one word and in one sentence."""
        import errno
        import socket

        cause = cause_of(problem)
        if isinstance(cause, ssl.SSLError):
            self.errno_name = "TLS"
        elif isinstance(cause, socket.gaierror):
            self.errno_name = "DNS"
        else:
            self.errno_name = errno.errorcode.get(cause.errno or 0, "EIO")
        self.detail = getattr(cause, "verify_message", "") or cause.strerror or str(cause)
        super().__init__(f"{self.errno_name}: {self.detail}")


class Kube:
    """The API server, as our account sees it."""

    def __init__(self, settings: Settings) -> None:
        """Remember where it is; nothing is read or dialled yet."""
        parts = urllib.parse.urlsplit(settings.api_server)
        self._settings = settings
        self._host = parts.hostname or ""
        self._port = parts.port or (80 if parts.scheme == "http" else 443)
        self._is_tls = parts.scheme == "https"
        self._tls: ssl.SSLContext | None = None
        self._tls_stamp: tuple[float, ...] = ()
        self._token = ""
        self._token_read_at = float("-inf")
        self._idle: list[Connection] = []

    @property
    def is_known(self) -> bool:
        """Whether there is an API server at all."""
        return bool(self._host)

    # --- connections -------------------------------------------------------------------------------------------------

    @property
    def authority(self) -> bytes:
        """Host and port, for the Host field."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return (host if self._port == (443 if self._is_tls else 80) else f"{host}:{self._port}").encode()

    def origin(self) -> Origin:
        """Whom to dial, with a context that trusts the cluster's authority of this moment."""
        if not self._is_tls:
            return Origin(self._host, self._port, None)
        settings = self._settings
        paths = [path for path in (settings.api_ca, settings.api_cert, settings.api_key) if path]
        stamp = tuple(os.stat(path).st_mtime for path in paths)
        if self._tls is None or stamp != self._tls_stamp:
            context = ssl.create_default_context(cafile=settings.api_ca or None)
            context.set_alpn_protocols(["http/1.1"])
            if settings.api_cert:
                context.load_cert_chain(settings.api_cert, settings.api_key or None)
            self._tls, self._tls_stamp = context, stamp
        return Origin(self._host, self._port, self._tls)

    def authorization(self) -> list[tuple[bytes, bytes]]:
        """Our account's token as a header, read again now and then: the kubelet replaces it."""
        now = trio.current_time()
        if now - self._token_read_at > _TOKEN_AGE:
            try:
                with open(self._settings.api_token, encoding="ascii") as file:
                    self._token = file.read().strip()
            except OSError:
                self._token = ""
            self._token_read_at = now
        return [(b"authorization", f"Bearer {self._token}".encode())] if self._token else []

    def forget_token(self) -> None:
        """Read the token anew before the next request: it was refused."""
        self._token_read_at = float("-inf")

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one request, kept for the next one if it ends well.

        Raises:
            Unreachable: nobody answered.
        """
        connection = await self._take()
        is_reusable = False
        try:
            yield connection
            is_reusable = len(self._idle) < _KEPT and connection.begin_next()
        finally:
            if is_reusable:
                self._idle.append(connection)
            else:
                await connection.aclose()

    async def _take(self) -> Connection:
        now = trio.current_time()
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since < _KEPT_FOR and not connection.is_stale():
                return connection
            await connection.aclose()
        try:
            with trio.fail_after(_CONNECT_TIMEOUT):
                return await open_connection(self.origin())
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as problem:
            raise Unreachable(problem) from problem

    async def aclose(self) -> None:
        """Hang up on what is idle."""
        while self._idle:
            await self._idle.pop().aclose()

    # --- calls -------------------------------------------------------------------------------------------------------

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every request of ours begins with."""
        return [
            (b"host", self.authority),
            (b"user-agent", b"daalu-edge"),
            (b"accept", b"application/json"),
            *self.authorization(),
        ]

    async def request(self, method: str, path: str, *, body: bytes = b"", content_type: str = "") -> Answer:
        """One whole request as our account.

        Raises:
            KubeError: not a success; redirects are none.
            Unreachable: nobody answered.
        """
        for attempt in (1, 2):
            headers = self.headers()
            if content_type:
                headers.append((b"content-type", content_type.encode()))
            try:
                with trio.fail_after(_TIMEOUT):
                    async with self.connection() as connection:
                        answer = await connection.ask(method, path, headers, body, most=_MOST)
            except (OSError, trio.TooSlowError, trio.BrokenResourceError, h11.ProtocolError, ValueError) as problem:
                raise Unreachable(problem) from problem
            if answer.status == 401 and attempt == 1:
                self.forget_token()
                continue
            break
        if not 200 <= answer.status < 300:
            raise _error(answer.status, answer.body)
        return answer

    async def get(self, path: str) -> dict[str, Any]:
        """The document at a path; raises like `request`."""
        return _document((await self.request("GET", path)).body)

    async def merge_patch(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Change the fields that the document names; raises like `request`."""
        body = json.dumps(document).encode()
        answer = await self.request("PATCH", path, body=body, content_type="application/merge-patch+json")
        return _document(answer.body)

    async def post(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Create, or ask by creating; raises like `request`."""
        answer = await self.request("POST", path, body=json.dumps(document).encode(), content_type="application/json")
        return _document(answer.body)

    async def watch(self, path: str, query: Mapping[str, str], handle: Callable[[dict[str, Any]], None]) -> None:
        """Call `handle` with the events of a list, until the server ends them; raises like `request`.

        Raises:
            KubeError: also for an ERROR event, such as 410 for a version that is too old.
        """
        words = urllib.parse.urlencode({**query, "watch": "1", "timeoutSeconds": str(_WATCH_SECONDS)})
        with trio.move_on_after(_WATCH_SECONDS + 20):
            try:
                async with self.connection() as connection:
                    await connection.send_head("GET", f"{path}?{words}", self.headers())
                    await connection.end_request()
                    with trio.fail_after(_TIMEOUT):
                        head = await connection.receive_head()
                        if head.status_code == 401:
                            self.forget_token()
                        if head.status_code != 200:
                            raise _error(head.status_code, await _rest(connection))
                    async for line in connection.lines():
                        handle(_checked_event(_document(line)))
            except (OSError, trio.TooSlowError, trio.BrokenResourceError, h11.ProtocolError) as problem:
                raise Unreachable(problem) from problem

    async def version(self) -> str:
        """Of the API server, such as v1.36.3; raises like `request`."""
        return str((await self.get("/version")).get("gitVersion", ""))

    async def cluster_uid(self) -> str:
        """The uid of the namespace kube-system, which stands for the cluster; raises like `request`."""
        return str((await self.get("/api/v1/namespaces/kube-system"))["metadata"]["uid"])

    async def may(self, verb: str, resource: str, *, group: str = "", namespace: str = "", name: str = "") -> bool:
        """Whether our account may do this; raises like `request`."""
        resource, _, subresource = resource.partition("/")
        attributes = {
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        review = await self.post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
        )
        return bool((review.get("status") or {}).get("allowed"))


async def _rest(connection: Connection) -> bytes:
    body = b""
    while len(body) < _MOST and (piece := await connection.receive_data()) is not None:
        body += piece
    return body


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        raise KubeError(502, "the API server answered with something that is no JSON", "BadAnswer") from None
    if not isinstance(document, dict):
        raise KubeError(502, "the API server answered with something that is no object", "BadAnswer")
    return document


def _checked_event(event: dict[str, Any]) -> dict[str, Any]:
    if event.get("type") == "ERROR":
        status = event.get("object") or {}
        raise KubeError(int(status.get("code") or 500), str(status.get("message", "")), str(status.get("reason", "")))
    return event


def _error(status: int, body: bytes) -> KubeError:
    try:
        document = json.loads(body)
        return KubeError(status, str(document["message"]), str(document.get("reason", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return KubeError(status, body[:200].decode(errors="replace").strip() or "no explanation", "")
