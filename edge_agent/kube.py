"""A thin client of the Kubernetes API: a handful of calls, its own account, never a redirect.

    Kube.connection -> pool of TLS connections -> API server     for the hub's requests too (`apiproxy`)
    get, merge_patch, follow, may                                for the agent itself

The account's token and the cluster's certificate authority are read again when they change: both are rotated below us.
Nothing here dials anything but the one API server.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

import h11
import trio

from edge_agent.dial import Origin, cause_of
from edge_agent.foreign import Document, ForeignError, cleaned
from edge_agent.http import Answer, Connection, open_connection
from edge_agent.tls import client_context

if TYPE_CHECKING:
    from edge_agent.settings import Settings

__all__ = ["EDGE_TOKEN_REFUSED", "TOKEN_REFUSED", "Kube", "KubeError", "Unreachable"]

# A reason code of the product, and what it means: whoever asked through the edge did nothing wrong.
EDGE_TOKEN_REFUSED: Final = "EdgeTokenRefused"
TOKEN_REFUSED: Final = (
    "the API server refused the edge's own service-account token (401), not yours: it expired or its account was "
    "deleted; look at the ServiceAccount of the edge, and restart the edge's pod"
)

_TIMEOUT: Final = 10.0
_CONNECT_TIMEOUT: Final = 10.0
# An answer of our own calls; nodes come in pages.
_MOST: Final = 32 * 2**20
_KEPT: Final = 8
_KEPT_FOR: Final = 60.0
_TOKEN_AGE: Final = 10.0
# A watch is ended by the server after this long, and by us soon after.
_WATCH_SECONDS: Final = 240
# Between one watch and the next, for a server that ends each at once; and after failures, growing.
_PAUSE: Final = 0.2
_RETRY: Final = (1.0, 30.0)
_PAGE: Final = 250
# One event of a watch, and the token.
_MOST_EVENT: Final = 4 * 2**20
_MOST_TOKEN: Final = 65536


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
        self._token_read_at = -math.inf
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
            context = client_context(settings.api_ca or None)
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
                    self._token = file.read(_MOST_TOKEN).strip()
            except (OSError, ValueError):
                self._token = ""
            self._token_read_at = now
        return [(b"authorization", f"Bearer {self._token}".encode())] if self._token else []

    def forget_token(self) -> None:
        """Read the token anew before the next request: it was refused."""
        self._token_read_at = -math.inf

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
            except (OSError, trio.TooSlowError, trio.BrokenResourceError, h11.ProtocolError) as problem:
                raise Unreachable(problem) from problem
            except ValueError as problem:
                raise KubeError(502, str(problem), "BadAnswer") from None
            if answer.status == 401 and attempt == 1:
                self.forget_token()
                continue
            break
        if not 200 <= answer.status < 300:
            raise _error(answer.status, answer.body)
        return answer

    async def get(self, path: str) -> Document:
        """The document at a path; raises like `request`."""
        return _document((await self.request("GET", path)).body)

    async def merge_patch(self, path: str, document: Mapping[str, Any]) -> Document:
        """Change the fields that the document names; raises like `request`."""
        body = json.dumps(document).encode()
        answer = await self.request("PATCH", path, body=body, content_type="application/merge-patch+json")
        return _document(answer.body)

    async def post(self, path: str, document: Mapping[str, Any]) -> Document:
        """Create, or ask by creating; raises like `request`."""
        answer = await self.request("POST", path, body=json.dumps(document).encode(), content_type="application/json")
        return _document(answer.body)

    # --- following a list --------------------------------------------------------------------------------------------

    async def follow(
        self,
        path: str,
        *,
        name: str = "",
        listed: Callable[[list[Document]], None],
        changed: Callable[[str, Document], None],
        failed: Callable[[KubeError | Unreachable], None],
        most: int = 10_000,
    ) -> NoReturn:
        """Keep somebody informed of a list, for ever: list it, watch from there, list again when the watch is lost.

        A watch begins at the version of the list, which is that of the whole store and young, and that of one object at
        whatever the server has in mind; an object's own version may be older than all that it remembers. While watches
        end in order, each begins where the last one was (bookmarks tell, too). A version that is too old (410) makes a
        fresh beginning, with growing pauses.

        Args:
            path: of the collection.
            name: of the one object that is wanted; empty for all.
            listed: is given all objects, at the beginning and after a gap.
            changed: is given ADDED, MODIFIED or DELETED with the object.
            failed: is told why there is a gap; may raise, which ends this.
            most: objects that are read of a list.
        """
        delay, longest = _RETRY
        while True:
            try:
                objects, version = await self._begin(path, name, most)
                listed(objects)
                while True:
                    version, has_news = await self._watch(path, name, version, changed)
                    if has_news:
                        delay = _RETRY[0]
                    await trio.sleep(_PAUSE)
            except (KubeError, Unreachable) as problem:
                failed(problem)
            await trio.sleep(delay)
            delay = min(delay * 2, longest)

    async def _begin(self, path: str, name: str, most: int) -> tuple[list[Document], str]:
        """What is there now, and the version to watch from; raises like `request`."""
        if not name:
            return await self._list(path, most)
        # Rights by name are get and watch, and no list. From version 0 the server begins with what it has in mind: it
        # knows no such version as too old, nor waits, as for none at all, until it is sure to have the newest.
        try:
            return [await self.get(f"{path}/{name}")], "0"
        except KubeError as problem:
            if problem.status != 404:
                raise
            return [], "0"

    async def _list(self, path: str, most: int) -> tuple[list[Document], str]:
        """The objects of a collection, in pages, and the version of the list; raises like `request`."""
        objects: list[Document] = []
        following = ""
        while True:
            page = {"limit": str(_PAGE), **({"continue": following} if following else {})}
            answer = await self.get(f"{path}?{urllib.parse.urlencode(page)}")
            try:
                objects += answer.items("items")
                following = answer.text("metadata", "continue", most=65536)
                version = answer.text("metadata", "resourceVersion")
            except ForeignError as problem:
                raise _bad_answer(problem) from None
            if not following or len(objects) >= most:
                return objects[:most], version

    async def _watch(
        self, path: str, name: str, version: str, changed: Callable[[str, Document], None]
    ) -> tuple[str, bool]:
        """Pass events on until the server ends them; the newest version, and whether there was an event at all.

        Raises:
            KubeError: also for an ERROR event, such as 410 for a version that is too old.
            Unreachable: the connection broke.
        """
        newest, has_news = version, False
        words = {
            **_selected(name),
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        with trio.move_on_after(_WATCH_SECONDS + 20):
            try:
                async with self.connection() as connection:
                    target = f"{path}?{urllib.parse.urlencode(words)}"
                    await connection.send(
                        h11.Request(method="GET", target=target, headers=self.headers()), h11.EndOfMessage()
                    )
                    with trio.fail_after(_TIMEOUT):
                        head = await connection.receive_head()
                        if head.status_code == 401:
                            self.forget_token()
                        if head.status_code != 200:
                            raise _error(head.status_code, await connection.receive_rest(_MOST))
                    async for line in connection.lines():
                        kind, one = _event(line)
                        newest = one.text("metadata", "resourceVersion") or newest
                        has_news = True
                        if kind in ("ADDED", "MODIFIED", "DELETED"):
                            changed(kind, one)
            except (OSError, trio.TooSlowError, trio.BrokenResourceError, h11.ProtocolError) as problem:
                raise Unreachable(problem) from problem
            except ForeignError as problem:
                raise _bad_answer(problem) from None
        return newest, has_news

    # --- questions ---------------------------------------------------------------------------------------------------

    async def version(self) -> str:
        """Of the API server, such as v1.36.3; raises like `request`."""
        return cleaned(_text(await self.get("/version"), "gitVersion"), 60)

    async def cluster_uid(self) -> str:
        """The uid of the namespace kube-system, which stands for the cluster; raises like `request`."""
        return cleaned(_text(await self.get("/api/v1/namespaces/kube-system"), "metadata", "uid"), 60)

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
        try:
            return review.truth("status", "allowed")
        except ForeignError as problem:
            raise _bad_answer(problem) from None


def _selected(name: str) -> dict[str, str]:
    return {"fieldSelector": f"metadata.name={name}"} if name else {}


def _document(body: bytes) -> Document:
    try:
        return Document.parse(body, _MOST)
    except ForeignError as problem:
        raise _bad_answer(problem) from None


def _text(document: Document, *path: str) -> str:
    try:
        return document.text(*path)
    except ForeignError as problem:
        raise _bad_answer(problem) from None


def _bad_answer(problem: ForeignError) -> KubeError:
    return KubeError(502, f"the API server answered with something unexpected: {problem}", "BadAnswer")


def _event(line: bytes) -> tuple[str, Document]:
    """Kind and object of an event of a watch. Raises KubeError for an ERROR, ForeignError for what is none."""
    event = Document.parse(line, _MOST_EVENT)
    kind, one = event.text("type"), event.get("object")
    if kind == "ERROR":
        code = one.integer("code", least=100, most=599) or 500
        raise KubeError(code, cleaned(one.text("message"), 500), cleaned(one.text("reason"), 100))
    return kind, one


def _error(status: int, body: bytes) -> KubeError:
    try:
        document = Document.parse(body, _MOST)
        return KubeError(status, document.text("message") or "no explanation", cleaned(document.text("reason"), 100))
    except ForeignError:
        return KubeError(status, cleaned(body[:200].decode(errors="replace").strip(), 200) or "no explanation", "")
