"""The probes' port: `/livez`, `/readyz` and `/metrics`; reads facts, changes nothing.

Liveness knows the process only: a hub that is away must not restart the pod. Readiness says in words what is missing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import h11
import trio

from edge_agent import __version__, supervise

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.facts import Facts

__all__ = ["METRICS", "metrics_of", "respond", "serve_health"]

_log = logging.getLogger("edge.health")
_TIMEOUT: Final = 5.0

# Name, kind, meaning.
METRICS: Final = {
    "daalu_edge_info": ("gauge", "Always 1; version and mode are labels."),
    "daalu_edge_connected": ("gauge", "1 while the hub answered a heartbeat less than 15 s ago."),
    "daalu_edge_last_seen_age_seconds": ("gauge", "Seconds since the hub last answered a heartbeat."),
    "daalu_edge_handshake_age_seconds": ("gauge", "Seconds since the last WireGuard handshake."),
    "daalu_edge_handshakes_total": ("counter", "Handshakes that completed."),
    "daalu_edge_reopened_total": ("counter", "Times the tunnel was taken for lost and opened anew."),
    "daalu_edge_rtt_seconds": ("gauge", "Round-trip time of the last heartbeat."),
    "daalu_edge_mtu_octets": ("gauge", "Inner MTU."),
    "daalu_edge_received_octets_total": ("counter", "Octets from the hub, encrypted."),
    "daalu_edge_sent_octets_total": ("counter", "Octets to the hub, encrypted."),
    "daalu_edge_api_reachable": ("gauge", "1 while the API server answers."),
    "daalu_edge_streams": ("gauge", "Requests of the hub that are being answered."),
    "daalu_edge_requests_total": ("counter", "Requests of the hub."),
    "daalu_edge_clock_skew_seconds": ("gauge", "How far the node's clock is ahead of the hub's; 0 within 10 minutes."),
    "daalu_edge_failures_total": ("counter", "Parts of the edge that failed and were begun again, by their name."),
}


def metrics_of(facts: Facts) -> str:
    """Prometheus' text format."""
    values: dict[str, float | None] = {
        "daalu_edge_info": 1,
        "daalu_edge_connected": 1 if facts.is_seen else 0,
        "daalu_edge_last_seen_age_seconds": facts.seen_ago(),
        "daalu_edge_handshake_age_seconds": facts.handshake_age(),
        "daalu_edge_handshakes_total": facts.handshakes,
        "daalu_edge_reopened_total": facts.reopened,
        "daalu_edge_rtt_seconds": facts.rtt,
        "daalu_edge_mtu_octets": facts.mtu,
        "daalu_edge_received_octets_total": facts.rx_bytes,
        "daalu_edge_sent_octets_total": facts.tx_bytes,
        "daalu_edge_api_reachable": 1 if facts.api.state == "ok" else 0,
        "daalu_edge_streams": facts.streams,
        "daalu_edge_requests_total": facts.requests,
        "daalu_edge_clock_skew_seconds": facts.clock_skew or 0,
    }
    lines: list[str] = []
    for name, value in values.items():
        kind, text = METRICS[name]
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        if value is not None:
            labels = f'{{version="{__version__}",mode="{facts.mode}"}}' if name == "daalu_edge_info" else ""
            lines.append(f"{name}{labels} {value:g}" if isinstance(value, float) else f"{name}{labels} {value}")
    name = "daalu_edge_failures_total"
    kind, text = METRICS[name]
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    lines += [f'{name}{{task="{task}"}} {count}' for task, count in sorted(supervise.failures.items())]
    return "\n".join(lines) + "\n"


def respond(path: str, facts: Facts, *, refresh: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """Status and text for a path."""
    match path:
        case "/livez":
            return 200, "ok\n"
        case "/readyz":
            reasons = facts.why_not_ready()
            return (503, "\n".join(reasons) + "\n") if reasons else (200, "ok\n")
        case "/metrics":
            refresh()
            return 200, metrics_of(facts)
        case _:
            return 404, "there is /livez, /readyz and /metrics\n"


async def serve_health(
    host: str,
    port: int,
    facts: Facts,
    *,
    refresh: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer probes for ever; says which port it is."""

    async def answer(stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=8192)
        with trio.move_on_after(_TIMEOUT):
            try:
                while (event := http.next_event()) is h11.NEED_DATA:
                    http.receive_data(await stream.receive_some(8192))
                if not isinstance(event, h11.Request):
                    return
                status, text = respond(event.target.decode("latin-1").partition("?")[0], facts, refresh=refresh)
                if event.method not in (b"GET", b"HEAD"):
                    status, text = 405, "GET only\n"
                body = text.encode()
                fields = [
                    ("content-type", "text/plain; charset=utf-8"),
                    ("content-length", str(len(body))),
                    ("connection", "close"),
                ]
                head = http.send(h11.Response(status_code=status, headers=fields))
                await stream.send_all((head or b"") + (b"" if event.method == b"HEAD" else body))
                await stream.send_eof()
                await stream.receive_some(1)
            except (h11.ProtocolError, trio.BrokenResourceError, OSError):
                return

    async def handle(stream: trio.SocketStream) -> None:
        await supervise.run_once("probe", answer, stream)

    try:
        listeners = await trio.open_tcp_listeners(port, host=host or None)
    except OSError as problem:
        raise supervise.PortLost(f"port {port} for the probes cannot be had: {problem}") from problem
    task_status.started(listeners[0].socket.getsockname()[1])
    try:
        await trio.serve_listeners(handle, listeners)
    except OSError as problem:
        raise supervise.PortLost(f"port {port} for the probes was lost: {problem}") from problem
