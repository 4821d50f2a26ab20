"""The hub put together, and taken apart in order. No decisions in here: settings come in, every part gets its values.

    keys, database, certificate -> Core -> Presence -> wire -> control
                                        -> Services -> pages, JSON API, bootstrap, kubectl's door -> one HTTPS port

Stopping: no new connections, pages are told to end, open requests get `drain` seconds, then the tunnels close and what
is left in memory is written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anycorn
import trio
from anycorn.typing import Framework
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import hub_server
import wgpy
from hub_server import api, bootstrap, jobs, supervise, tls, web
from hub_server.auth.middleware import Authentication
from hub_server.auth.passwords import Passwords
from hub_server.control import serve_control
from hub_server.domain.errors import Unavailable
from hub_server.keyfiles import ensure_secret, lock_folder
from hub_server.kubeproxy import KubeProxy
from hub_server.misplaced import is_misplaced, serve_hint
from hub_server.rooms import USUAL, Limits, Share
from hub_server.services import Services, build
from hub_server.services.core import Core
from hub_server.services.joining import Joining
from hub_server.services.live import Live
from hub_server.services.presence import Presence
from hub_server.settings import Settings, host_and_port
from hub_server.store import migrate
from hub_server.store.database import Database, sqlite_url
from hub_server.store.envelope import Envelope
from hub_server.wire import open_wire

__all__ = ["Hub", "open_hub", "open_store", "serve"]

_log = logging.getLogger("hub")

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub that runs.

    Attributes:
        url: where it answers.
        core: the ground of its services.
        services: everything that it can do.
        presence: its rows.
        first_password: of the administrator that this very start made; None otherwise.
    """

    url: str
    core: Core
    services: Services
    presence: Presence
    first_password: str | None


class Door:
    """The one HTTPS port: kubectl's requests go to its door as they are, everything else to pages and API."""

    def __init__(self, site: Application, kubectl: Application, trusted: frozenset[str], public_url: str) -> None:
        """Take the two applications, the proxies whose word about the visitor's address is taken, and our own name."""
        self._site = site
        self._kubectl = kubectl
        self._trusted = trusted
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        scope["client"] = self._visitor(scope)
        if scope["path"].startswith("/k8s/"):
            await self._kubectl(scope, receive, send)
        elif is_misplaced(scope):
            await serve_hint(scope, receive, send, self._public_url)
        else:
            await self._site(scope, receive, send)

    def _visitor(self, scope: Scope) -> tuple[str, int]:
        """Who is at the other end: of proxies that we trust, the one that none of them is."""
        client = scope.get("client") or ("", 0)
        host, port = str(client[0]), int(client[1] or 0)
        if host not in self._trusted:
            return host, port
        named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        for hop in reversed([hop.strip() for line in named for hop in line.split(",")]):
            host, port = hop[:64], 0
            if hop not in self._trusted:
                break
        return host, port


async def _live(receive: Receive, send: Send) -> None:
    """What is to be started and stopped is `open_hub`'s: the server's own beginning and end have no meaning here."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


class _HttpConfig(anycorn.Config):
    """The server's configuration, from ours; keeps its TLS context where the certificate can be changed."""

    def __init__(self, listener: socket.socket, certificate: tls.Certificate | None, drain: float) -> None:
        super().__init__()
        self.bind = [f"fd://{listener.detach()}"]
        # HTTP/1.1 alone: an answer that breaks off must look broken to kubectl, and upgrades must be possible.
        self.alpn_protocols = ["http/1.1"]
        self.include_server_header = False
        self.graceful_timeout = drain
        self.shutdown_timeout = drain + 5
        self.errorlog = logging.getLogger("hub.http")
        self.accesslog = None
        self.h11_max_incomplete_size = 64 * 1024
        self.ssl_handshake_timeout = 10
        self.keep_alive_timeout = 75
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.certfile, self.keyfile = str(certificate.chain), str(certificate.key)

    def create_ssl_context(self) -> ssl.SSLContext | None:
        """The context of the listener."""
        self.context = super().create_ssl_context()
        return self.context


def open_store(settings: Settings) -> tuple[Database, Envelope]:
    """The database at its newest schema, and the key under which its secrets are sealed.

    Raises:
        OSError, ValueError: a file of the data folder cannot be used.
    """
    master = ensure_secret(settings.data / "master.key")
    database = Database(settings.database or sqlite_url(settings.database_file))
    before, after = migrate.upgrade(database)
    if before != after:
        _log.info("the database was brought from %s to %s", before or "nothing", after)
    return database, Envelope(master)


def _listen(address: str) -> socket.socket:
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listener.setblocking(False)
    return listener


def _certificate(settings: Settings) -> tuple[tls.Certificate | None, tuple[Path, tuple[str, ...]] | None]:
    """What to serve, and for a certificate of our own: how to renew it."""
    if not settings.tls:
        return None, None
    if settings.tls_cert is not None and settings.tls_key is not None:
        ca = settings.tls_ca.read_text() if settings.tls_ca is not None else None
        given = tls.Certificate(settings.tls_cert, settings.tls_key, ca)
        given.check()
        return given, None
    names = tuple(dict.fromkeys((settings.public_host, "localhost", "127.0.0.1", "::1")))
    folder = settings.data / "tls"
    return tls.ensure_own(folder, names), (folder, names)


@contextlib.asynccontextmanager
async def open_hub(settings: Settings, *, now: Callable[[], float] = time.time) -> AsyncIterator[Hub]:
    """Run a hub until the block ends; then open requests have their time, `settings.drain`.

    Args:
        settings: all of them.
        now: the hub's clock, Unix seconds.

    Raises:
        AlreadyRunning: another hub has this data folder.
        OSError: a port is taken, a file cannot be used.
        ValueError: a file of the data folder holds something else.
    """
    lock = await trio.to_thread.run_sync(lock_folder, settings.data)
    try:
        with _listen(settings.listen) as listener:
            port = listener.getsockname()[1]
            if not settings.public_url:
                scheme = "https" if settings.tls else "http"
                settings = settings.model_copy(update={"public_url": f"{scheme}://localhost:{port}"})
            certificate, own = await trio.to_thread.run_sync(_certificate, settings)
            database, envelope = await trio.to_thread.run_sync(open_store, settings)
            with contextlib.closing(database):
                key = wgpy.PrivateKey(ensure_secret(settings.data / "wireguard.key"))
                core = Core(
                    database=database,
                    envelope=envelope,
                    settings=settings,
                    now=now,
                    live=Live(now),
                    passwords=Passwords(),
                    hub_key=bytes(key.public_key),
                    endpoints=settings.wireguard_endpoints,
                    ca_pem=certificate.ca_pem if certificate is not None else None,
                )
                async with _running(core, bytes(key), _HttpConfig(listener, certificate, settings.drain)) as (
                    hub,
                    config,
                    nursery,
                ):
                    if certificate is not None and config.context is not None:
                        supervise.start_kept(nursery, "certificate", tls.keep_fresh, certificate, config.context, own)
                    yield hub
    finally:
        os.close(lock)


@contextlib.asynccontextmanager
async def _running(
    core: Core, private_key: bytes, config: _HttpConfig
) -> AsyncIterator[tuple[Hub, _HttpConfig, trio.Nursery]]:
    settings = core.settings
    presence = Presence(core)
    services = build(core, presence)
    joining = Joining(core, presence, private_key)
    password = await services.accounts.ensure_first_administrator()
    realms, peers = await presence.load()
    async with (
        open_wire(private_key, settings.wireguard_port, realms, peers, presence, wall_clock=core.now) as wire,
        trio.open_nursery() as nursery,
    ):
        core.wire = wire
        if not core.endpoints:
            core.endpoints = (f"{_bracketed(settings.public_host)}:{wire.port}",)
        joining.start = lambda work, *args: supervise.start_once(nursery, "check of the way", work, *args)
        supervise.start_kept(nursery, "rows", presence.run)
        control = await supervise.start_server(nursery, "the control ports", serve_control, wire, presence)
        core.config_changed = lambda cluster_id: supervise.start_once(
            nursery, "push of a configuration", control.config_changed, cluster_id, victim=cluster_id
        )
        supervise.start_kept(nursery, "jobs", jobs.run_jobs, core)
        supervise.start_kept(nursery, "writes that wait", core.later.run)
        supervise.start_kept(nursery, "grounds of streams", core.grounds.run)
        supervise.start_kept(nursery, "sums of refusals", services.kubectl.sum_refusals)
        kubectl = services.kubectl
        proxy = KubeProxy(
            wire, kubectl.authorize, kubectl.record, core.grounds, limits=_limits(settings), wall_clock=core.now
        )
        door = Door(site(core, joining, services), proxy, frozenset(settings.trusted_proxies), settings.public_url)

        shutdown, drained = trio.Event(), trio.Event()

        async def stop() -> None:
            await shutdown.wait()
            core.live.close()

        async def serve_http(task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
            await anycorn.serve(_framework(door), config, shutdown_trigger=stop, task_status=task_status, mode="asgi")
            drained.set()

        await supervise.start_server(nursery, "the HTTPS port", serve_http)
        yield Hub(settings.public_url, core, services, presence, password), config, nursery
        shutdown.set()
        await drained.wait()
        nursery.cancel_scope.cancel()


def _limits(settings: Settings) -> Limits:
    """How many requests of kubectl may be open at once."""
    return Limits(
        request_body=USUAL.request_body,
        requests=Share(
            settings.kubectl_requests_per_user,
            settings.kubectl_requests_per_user_cluster,
            settings.kubectl_requests_per_cluster,
        ),
        watches=Share(
            settings.kubectl_watches_per_user,
            settings.kubectl_watches_per_user_cluster,
            settings.kubectl_watches_per_cluster,
        ),
    )


def _framework(application: Application) -> Framework:
    """Our ASGI types are Starlette's, the server's are its own; they mean the same."""
    result: Any = application
    return result  # type: ignore[no-any-return]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def site(core: Core, joining: Joining, services: Services) -> Application:
    """Everything but kubectl's door."""

    async def alive(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        try:
            await core.database.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar_one())
        except Unavailable as problem:
            return PlainTextResponse(f"not ready: {problem.code}: {problem.detail}\n", 503)
        if (trouble := core.database.trouble) is not None:
            return PlainTextResponse(f"not ready: {trouble.code}: {trouble.text}\n", 503)
        return PlainTextResponse(f"daalu-hub {hub_server.__version__} ready\n")

    routes = [
        Route("/healthz", alive),
        Route("/readyz", ready),
        *bootstrap.routes(joining),
        *api.routes(services),
        *web.routes(services),
    ]
    return Authentication(Starlette(routes=routes), services.accounts)


async def serve(settings: Settings, announce: Callable[[Hub], None], stopping: trio.Event) -> None:
    """Run a hub until `stopping` is set: then drain and end."""
    async with open_hub(settings) as hub:
        announce(hub)
        await stopping.wait()
        _log.info("stopping: open requests have %g s", settings.drain)
