"""The hub put together, and taken apart in order. No decisions in here: settings come in, every part gets its values.

    keys, database, certificate -> Core -> Presence -> wire -> control
                                        -> Services -> pages, JSON API, bootstrap, kubectl's door -> one HTTPS port

Stopping: no new connections, pages are told to end, open requests get `drain` seconds, then the tunnels close and what
is left in memory is written.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import hub_server
import wgpy
from hub_server import api, bootstrap, http, jobs, keys, supervise, tls, web
from hub_server.auth.middleware import Authentication
from hub_server.auth.passwords import Passwords
from hub_server.control import serve_control
from hub_server.domain.errors import Unavailable
from hub_server.door import Door, application, explaining, limits_of
from hub_server.keyfiles import lock_folder
from hub_server.kubeproxy import KubeProxy
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

_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub that runs.

    Attributes:
        url: where it answers.
        core: the ground of its services.
        services: everything that it can do.
        presence: its rows.
        server: its HTTPS port.
        first_password: of the administrator that this very start made; None otherwise.
    """

    url: str
    core: Core
    services: Services
    presence: Presence
    server: http.Server
    first_password: str | None


def open_store(settings: Settings) -> tuple[Database, Envelope]:
    """The database at its newest schema, and the key under which its secrets are sealed.

    Raises:
        OSError, ValueError: a file of the data folder cannot be used.
        KeyLost: the master key is not the one that the database was written with.
    """
    if not settings.data.is_dir():
        raise FileNotFoundError(errno.ENOENT, "data: there is no such folder", str(settings.data))
    has_keys = (settings.data / keys.MASTER).exists()
    database = Database(settings.database or sqlite_url(settings.database_file))
    before, after = migrate.upgrade(database)
    if before != after:
        _log.info("the database was brought from %s to %s", before or "nothing", after)
    if before is None and has_keys:
        _log.warning("the data folder has keys but had no database: this is a new hub; was hub.db lost?")
    return database, Envelope(keys.known_secret(database, settings.data, keys.MASTER))


def _listen(address: str) -> socket.socket:
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as problem:  # an errno, or that the host is no address here
        number = problem.errno or 0
        why = os.strerror(number) if number > 0 else problem.strerror
        raise OSError(number, f"listen: {address}: {why}") from None
    listener.setblocking(False)
    return listener


def _certificate(
    settings: Settings, database: Database
) -> tuple[tls.Certificate | None, tuple[Path, tuple[str, ...]] | None]:
    """What to serve, and for a certificate of our own: how to renew it."""
    if not settings.tls:
        return None, None
    if settings.tls_cert is not None and settings.tls_key is not None:
        ca = tls.read_ca(settings.tls_ca) if settings.tls_ca is not None else None
        given = tls.Certificate(settings.tls_cert, settings.tls_key, ca)
        given.check()
        for warning in given.warnings(settings.public_host):
            _log.warning("clients will refuse the certificate in %s: %s", given.chain, warning)
        return given, None
    names = tuple(dict.fromkeys((settings.public_host, "localhost", "127.0.0.1", "::1")))
    return keys.known_authority(database, settings.data, names), (settings.data / "tls", names)


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
        Fatal: data, key or port lost, at the start or later.
    """
    lock = await trio.to_thread.run_sync(lock_folder, settings.data)
    try:
        with _listen(settings.listen) as listener:
            port = listener.getsockname()[1]
            if not settings.public_url:
                scheme = "https" if settings.tls else "http"
                settings = settings.model_copy(update={"public_url": f"{scheme}://localhost:{port}"})
            database, envelope = await trio.to_thread.run_sync(open_store, settings)
            with contextlib.closing(database):
                certificate, own = await trio.to_thread.run_sync(_certificate, settings, database)
                key = wgpy.PrivateKey(keys.known_secret(database, settings.data, keys.WIREGUARD))
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
                context = tls.server_context(certificate) if certificate is not None else None
                async with _running(core, bytes(key), listener, context) as (hub, nursery):
                    if certificate is not None and context is not None:
                        supervise.start_kept(nursery, "certificate", tls.keep_fresh, certificate, context, own)
                    yield hub
    finally:
        os.close(lock)


@contextlib.asynccontextmanager
async def _running(
    core: Core, private_key: bytes, listener: socket.socket, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[Hub, trio.Nursery]]:
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
            wire,
            kubectl.authorize,
            kubectl.record,
            core.grounds,
            limits=limits_of_kubectl(settings),
            wall_clock=core.now,
        )
        server = _server(core, services, site(core, joining, services), proxy, context)
        shutdown, drained = trio.Event(), trio.Event()

        async def serve_http(*, task_status: trio.TaskStatus[None]) -> None:
            await server.serve([listener], shutdown, task_status=task_status)
            drained.set()

        await supervise.start_server(nursery, "the HTTPS port", serve_http)
        yield Hub(settings.public_url, core, services, presence, server, password), nursery
        core.live.close()
        shutdown.set()
        await drained.wait()
        nursery.cancel_scope.cancel()


def _server(
    core: Core, services: Services, pages: http.Application, kubectl: http.Application, context: ssl.SSLContext | None
) -> http.Server:
    """The server of the HTTPS port, with as many places as there are descriptors to spare."""
    settings = core.settings
    descriptors = http.raise_descriptor_limit()
    most = http.places(descriptors, settings.connections)
    if most < settings.connections:
        _log.warning("connections: %d fit under the limit of %d descriptors; raise that limit", most, descriptors)
    room = http.Room(most, settings.connections_per_source or max(1, most // 4), settings.trusted_proxies)
    service = http.Service(
        Door(pages, kubectl, frozenset(settings.trusted_proxies), settings.public_url),
        limits_of(settings),
        explaining(services),
        core.now,
    )
    return http.Server(service, room, context=context, drain=settings.drain)


def limits_of_kubectl(settings: Settings) -> Limits:
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


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def site(core: Core, joining: Joining, services: Services) -> http.Application:
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
    return Authentication(application(routes, explaining(services)), services.accounts)


async def serve(settings: Settings, announce: Callable[[Hub], None], stopping: trio.Event) -> None:
    """Run a hub until `stopping` is set: then drain and end."""
    async with open_hub(settings) as hub:
        announce(hub)
        await stopping.wait()
        _log.info("stopping: open requests have %g s", settings.drain)
