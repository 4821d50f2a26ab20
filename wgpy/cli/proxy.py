"""`wgpy proxy`: SOCKS5, HTTP and forwards into a tunnel, without an interface and without root."""

from __future__ import annotations

import os
import secrets
import signal
from typing import TYPE_CHECKING, Any

from wgpy.cli.conf import read_conf
from wgpy.cli.parser import add_command, count, pause
from wgpy.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from wgpy.adapters.proxies.gate import Credentials
    from wgpy.adapters.proxies.service import Doors
    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to"]

_PASSWORD_VARIABLE = "WGPY_PROXY_PASSWORD"


def add_to(commands: Commands[Parser]) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "proxy",
        _proxy,
        "offer a tunnel as SOCKS5 or HTTP proxy and by forwarded ports; no root needed",
        examples="  wgpy proxy office.conf --socks5 1080\n"
        "  curl --proxy socks5h://127.0.0.1:1080 http://intranet.example/\n"
        "  wgpy proxy office.conf --http 8080 --ready 8081 --metrics 8081\n"
        "  wgpy proxy office.conf -L 5432:db.internal:5432 -R 8000:127.0.0.1:8000 --udp 5353:10.0.0.53:53\n"
        "  WGPY_PROXY_PASSWORD=... wgpy proxy office.conf --socks5 192.168.1.5:1080 --user me\n"
        "\n"
        "It stays in the foreground. SIGTERM and Ctrl-C let connections finish (--grace), a second one does not wait.\n"
        "Names are resolved in the tunnel, by the DNS servers of the configuration, never by this machine. A systemd\n"
        "unit with Type=notify is told when every door is open.\n",
    )
    add = parser.add_argument
    add("conf", metavar="CONF", help="a file NAME.conf, or the NAME of one in /etc/wireguard")
    where = "PORT on 127.0.0.1, or ADDRESS:PORT; port 0 for any"
    add("--socks5", metavar="ADDR", action="append", default=[], help=f"SOCKS5: CONNECT, UDP ASSOCIATE; {where}")
    add("--http", metavar="ADDR", action="append", default=[], help=f"HTTP: CONNECT and plain requests; {where}")
    shape = "[BIND:]PORT:HOST:HOSTPORT"
    for flags, about in (
        (("-L", "--local"), "TCP port here that leads into the tunnel"),
        (("-R", "--remote"), "TCP port in the tunnel that leads here"),
        (("-U", "--udp"), "UDP port here that leads into the tunnel"),
    ):
        add(*flags, metavar=shape, action="append", default=[], help=about)
    add("--proxy-protocol", action="store_true", help="tell the servers of -R who their clients are (PROXY, version 1)")
    add("--ready", metavar="ADDR", help="answer GET /ready with 200 while the tunnel stands, else 503")
    add("--metrics", metavar="ADDR", help="answer GET /metrics for Prometheus")
    add("--user", metavar="NAME", help=f"ask clients for this user and the password of {_PASSWORD_VARIABLE}")
    add("--open", action="store_true", help="let everybody in on addresses that others can reach")
    add("--connections", metavar="N", type=count(10**6, least=1), default=512, help="clients at once (512)")
    add(
        "--idle",
        metavar="SECONDS",
        type=pause,
        default=7440.0,
        help="end a connection that is silent so long (7440); 0 for never",
    )
    add("--grace", metavar="SECONDS", type=pause, default=10.0, help="let connections finish when told to stop (10)")


def _proxy(options: argparse.Namespace) -> int:
    import trio

    doors = _doors(options)
    config = read_conf(options.conf)
    credentials = _credentials(options, doors)
    return trio.run(_serve, config, doors, credentials, options)


def _doors(options: argparse.Namespace) -> Doors:
    from wgpy.adapters.proxies.forwards import Forward, parse_bind
    from wgpy.adapters.proxies.service import Doors

    def each(option: str, parse: Callable[[str], Any]) -> tuple[Any, ...]:
        try:
            return tuple(parse(text) for text in getattr(options, option))
        except ConfigError as problem:
            raise ConfigError(problem.message, field=f"--{option}") from None

    options.observers = [address for address in (options.ready, options.metrics) if address]
    doors = Doors(
        socks5=each("socks5", parse_bind),
        http=each("http", parse_bind),
        local=each("local", Forward.parse),
        remote=each("remote", Forward.parse),
        names_clients=options.proxy_protocol,
        udp=each("udp", Forward.parse),
        observers=each("observers", parse_bind),
    )
    if not (doors.socks5 or doors.http or doors.local or doors.remote or doors.udp):
        raise ConfigError("nothing to do: give --socks5, --http, -L, -R or --udp; see wgpy proxy --help")
    return doors


def _credentials(options: argparse.Namespace, doors: Doors) -> Credentials | None:
    from wgpy.adapters.proxies.forwards import is_loopback
    from wgpy.adapters.proxies.gate import Credentials

    if options.user:
        password = os.environ.get(_PASSWORD_VARIABLE, "")
        if not password:
            password = secrets.token_urlsafe(16)
            print(f"{_PASSWORD_VARIABLE} is not set; the password of {options.user} is {password}", flush=True)
        return Credentials(options.user, password)
    exposed = [host for host, _ in (*doors.socks5, *doors.http) if not is_loopback(host)]
    if exposed and not options.open:
        raise ConfigError(
            f"whoever can reach {exposed[0]} could use the tunnel: give --user, or --open if that is what you want"
        )
    return None


async def _serve(config: Any, doors: Doors, credentials: Credentials | None, options: argparse.Namespace) -> int:
    import trio

    from wgpy.adapters.proxies.gate import Gate, Limits
    from wgpy.adapters.proxies.observe import Observer
    from wgpy.adapters.proxies.service import run_service
    from wgpy.runtime.groups import unwrapped
    from wgpy.runtime.tunnel import open_tunnel

    gate = Gate(
        limits=Limits(connections=options.connections, idle_timeout=options.idle or float("inf")),
        credentials=credentials,
    )
    stop = trio.Event()

    async def stop_at_signal() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if stop.is_set():
                    os._exit(1)  # somebody is in a hurry
                stop.set()

    def show(lines: list[str]) -> None:
        print("\n".join(lines), flush=True)

    with unwrapped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_at_signal)
            async with open_tunnel(config) as tunnel:
                observer = Observer(config, tunnel.device, tunnel.net, gate)
                await run_service(
                    *(doors, tunnel.net, gate), stop=stop, observer=observer, grace=options.grace, on_open=show
                )
            nursery.cancel_scope.cancel()
    return 0
