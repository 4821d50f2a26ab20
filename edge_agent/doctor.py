"""`daalu-edge doctor` and `test`: every hop, one line each, with the fix beside what fails.

    dns      443      tls      clock      udp      api      permissions      secret      handshake

`doctor` asks everything that can be asked from where it runs; `test` asks what `helm test` promises. Nothing is changed
and no token is needed or used: `udp` shakes hands with a key made for this one check (`udpcheck`), so that it tells the
truth before anything is installed. Exit code 0 when no line fails.
"""

from __future__ import annotations

import json
import socket
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import h11
import trio

import wgpy
from edge_agent.dial import Origin, Proxy, dial
from edge_agent.foreign import http_date
from edge_agent.http import Answer, open_connection
from edge_agent.hubapi import HubApi, Stop
from edge_agent.kube import EDGE_TOKEN_REFUSED, TOKEN_REFUSED, Kube, KubeError, Unreachable
from edge_agent.state import Snapshot
from edge_agent.store import open_store
from edge_agent.tunnel import resolve
from edge_agent.udpcheck import Verdict, shake_hands

if TYPE_CHECKING:
    from edge_agent.settings import Settings

__all__ = ["Finding", "Hop", "doctor", "test"]

_TIMEOUT: Final = 10.0
_MOST_SKEW: Final = 600.0
_MOST_ENDPOINTS: Final = 4
_HANDSHAKE_PATIENCE: Final = 60.0
_NO_POD: Final = "not asked: this is no pod, and --api-server is not given"


class Finding(NamedTuple):
    """What one hop says; `is_ok` is None where it could not be asked."""

    is_ok: bool | None
    text: str


Hop = tuple[str, Callable[[], Awaitable[Finding]]]


async def run_hops(hops: list[Hop], *, show: Callable[[str], None], as_json: bool = False) -> int:
    """Ask each, in order, and show one line for it; what depends on a broken hop still says so itself."""
    is_good = True
    for name, ask in hops:
        try:
            finding = await ask()
        except Stop as stop:
            finding = Finding(False, stop.line())
        except KubeError as problem:
            text = f"ApiForbidden: the API server says: {problem}; widen the chart's RBAC"
            finding = Finding(False, f"{EDGE_TOKEN_REFUSED}: {TOKEN_REFUSED}" if problem.status == 401 else text)
        except Unreachable as problem:
            text = f"TunnelUpApiUnreachable: {problem}; a NetworkPolicy may forbid this pod the API server"
            finding = Finding(False, text)
        is_good &= finding.is_ok is not False
        if as_json:
            show(json.dumps({"hop": name, "ok": finding.is_ok, "text": finding.text}))
        else:
            mark = {True: "ok  ", False: "FAIL", None: "-   "}[finding.is_ok]
            show(f"{mark} {name}: {finding.text}")
    return 0 if is_good else 1


class _Checks:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kube = Kube(settings)
        self._store = open_store(settings, self._kube)
        parts = urllib.parse.urlsplit(settings.hub_url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._hub: Answer | None = None
        self._asked_at = 0.0

    async def run(self, hops: list[Hop]) -> int:
        try:
            return await run_hops(hops, show=_show, as_json=self._settings.json)
        finally:
            await self._kube.aclose()

    async def dns(self) -> Finding:
        try:
            infos = await trio.socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as problem:
            if HubApi(self._settings).proxy() is not None:
                return Finding(None, f"{self._host} has no address here: the proxy may know one")
            raise Stop("dns", f"{self._host}: {problem.strerror or problem}") from None
        addresses = sorted({str(info[4][0]) for info in infos})
        return Finding(True, f"{self._host} is {', '.join(addresses)}")

    async def port(self) -> Finding:
        proxy = HubApi(self._settings).proxy()
        host, port = (self._host, self._port) if proxy is None else proxy.origin[:2]
        try:
            with trio.fail_after(_TIMEOUT):
                await trio.aclose_forcefully(await dial(host, port))
        except (OSError, trio.TooSlowError) as problem:
            raise Stop("network", f"{host}:{port}: {problem or 'no answer'}") from None
        way = "" if proxy is None else f", the proxy of HTTPS_PROXY on the way to {self._host}:{self._port}"
        return Finding(True, f"{host}:{port} accepts connections{way}")

    async def tls(self) -> Finding:
        hub = HubApi(self._settings)
        origin = hub.origin()
        answer = await _get(origin, "/healthz", hub.proxy())
        self._hub, self._asked_at = answer, time.time()
        if origin.tls is None:
            return Finding(None, "this hub is on the loopback interface, without TLS")
        return Finding(True, "the hub's certificate is trusted")

    async def clock(self) -> Finding:
        date = http_date(self._hub.header("date")) if self._hub is not None else None
        if date is None:
            return Finding(None, "the hub did not say what time it is")
        skew = self._asked_at - date
        if abs(skew) > _MOST_SKEW:
            raise Stop("clock_skew", f"{skew:+.0f} s")
        return Finding(True, f"{skew:+.0f} s beside the hub's")

    async def udp(self) -> Finding:
        """Shake hands at every address of the hub, with a key made for this; one that answers is enough."""
        key = wgpy.PrivateKey.generate()
        try:
            probe = await HubApi(self._settings).probe(bytes(key.public_key))
        except Stop as stop:
            if stop.code == "unexpected_answer":
                return Finding(None, f"not asked: this hub is too old for it, or none ({stop.detail})")
            if stop.code in ("dns", "network", "proxy", "tls"):
                return Finding(None, "not asked: the hub says over HTTPS where it listens, and that fails above")
            raise
        try:
            found = await resolve(probe.endpoints)
        except (OSError, wgpy.ConfigError) as problem:
            raise Stop("dns", f"{', '.join(probe.endpoints)}: {problem}") from None
        verdicts: dict[str, Verdict] = {}

        for endpoint in found[:_MOST_ENDPOINTS]:
            verdict = verdicts[str(endpoint)] = await shake_hands(bytes(key), probe.hub_key, endpoint)
            if verdict == "answered":
                break
        text = ", ".join(f"{verdict} from {place}" for place, verdict in verdicts.items())
        if "answered" in verdicts.values():
            return Finding(True, f"a WireGuard handshake was {text}")
        fix = "allow egress to the hub on its UDP port, and the answers back in"
        if "refused" in verdicts.values():
            fix = "a firewall rejects it, or the hub listens elsewhere: allow egress, and check the hub's UDP port"
        return Finding(False, f"NoUdpSeen: a WireGuard handshake got {text}; {fix}")

    async def secret(self) -> Finding:
        if not self._kube.is_known and not self._settings.state_dir:
            return Finding(None, _NO_POD)
        snapshot = Snapshot.of(await self._store.secret(), await self._store.config())
        if snapshot.identity is None:
            return Finding(False, f"{snapshot.code}: {snapshot.problem}")
        if snapshot.config is None:
            return Finding(False, snapshot.problem)
        return Finding(True, f"ready: {snapshot.config.cluster_id} at {snapshot.config.address}")

    async def not_installed(self) -> Finding:
        """In any pod but the edge's own: its account says nothing about the one that will be installed."""
        return Finding(None, "not asked: this is not the edge's pod")

    async def handshake(self) -> Finding:
        """Ask the running edge beside us how its own goes."""
        try:
            url = await self._edge()
        except KubeError as problem:
            if problem.status == 403 and self._settings.read_namespaces:
                return Finding(None, "pods of this namespace may not be listed: ask for it in the edge's own pod")
            raise
        if url is None and not self._kube.is_known:
            return Finding(None, _NO_POD)
        if url is None:
            return Finding(False, "no edge pod is running; look at `kubectl get pods` in the edge's namespace")
        try:
            metrics = (await _get(url, "/metrics")).body.decode(errors="replace")
            ready = await _get(url, "/readyz")
        except Stop as stop:
            return Finding(False, f"the edge pod's probe port does not answer: {stop.detail}")
        lines = (line.rpartition(" ") for line in metrics.splitlines())
        age = next((value for name, _, value in lines if name == "daalu_edge_handshake_age_seconds"), None)
        if age is None:
            return Finding(False, "NoUdpSeen: no handshake yet; allow egress to the hub on its UDP port (51820)")
        if ready.status != 200:
            return Finding(False, ready.body.decode(errors="replace").strip().replace("\n", "; "))
        return Finding(True, f"{age.partition('.')[0][:20]} s ago, and the hub answers heartbeats")

    async def handshake_patiently(self) -> Finding:
        """The same, for an installation that has just been made."""
        ends_at = trio.current_time() + _HANDSHAKE_PATIENCE
        while True:
            finding = await self.handshake()
            if finding.is_ok is not False or trio.current_time() > ends_at:
                return finding
            await trio.sleep(2)

    async def api(self) -> Finding:
        if not self._kube.is_known:
            return Finding(None, _NO_POD)
        return Finding(True, f"the API server is {await self._kube.version()}")

    async def permissions(self) -> Finding:
        if not self._kube.is_known:
            return Finding(None, _NO_POD)
        wanted = [("list", "pods", ""), ("list", "deployments", "apps"), ("get", "pods/log", "")]
        places = [one for one in self._settings.read_namespaces.split(",") if one] or [""]
        missing = [] if await self._kube.may("list", "nodes") else ["list nodes"]
        for place in places:
            where = f" in {place}" if place else ""
            for verb, what, group in wanted:
                if not await self._kube.may(verb, what, group=group, namespace=place):
                    missing.append(f"{verb} {what}{where}")
        if missing:
            return Finding(
                False, f"ApiForbidden: our account may not {', '.join(missing)}; see rbac in the chart's values"
            )
        return Finding(True, "the default reading rights are there")

    async def _edge(self) -> Origin | None:
        """The probe port of the edge: ours if we run in its pod, else that of the pod with its labels."""
        here = Origin("127.0.0.1", self._settings.health_port, None)
        try:
            if (await _get(here, "/livez")).status == 200:
                return here
        except Stop:
            pass
        if not self._kube.is_known or self._settings.state_dir:
            return None
        selector = urllib.parse.quote(self._settings.selector, safe="")
        pods = await self._kube.get(f"/api/v1/namespaces/{self._settings.namespace}/pods?labelSelector={selector}")
        for pod in pods.items("items"):
            if address := pod.text("status", "podIP", most=64):
                return Origin(address, self._settings.health_port, None)
        return None


async def _get(origin: Origin, path: str, proxy: Proxy | None = None) -> Answer:
    from edge_agent.hubapi import stop_of

    try:
        with trio.fail_after(_TIMEOUT):
            connection = await open_connection(origin, proxy)
            try:
                headers = [(b"host", origin.authority.encode()), (b"connection", b"close")]
                return await connection.ask("GET", path, headers, most=1 << 20)
            finally:
                await connection.aclose()
    except (OSError, trio.TooSlowError, trio.BrokenResourceError) as problem:
        raise stop_of(problem, origin.authority) from None
    except (h11.RemoteProtocolError, ValueError) as problem:
        raise Stop("unexpected_answer", f"{origin.authority}: {problem}") from None


async def doctor(settings: Settings) -> int:
    """Every hop."""
    checks = _Checks(settings)
    hops: list[Hop] = []
    if not settings.hub_url and not settings.api_server and not settings.state_dir:
        _show("bad_setting: there is nothing to look at: this is no pod, and --hub-url is not given")
        return 2
    if settings.hub_url:
        hops += [("dns", checks.dns), ("443", checks.port), ("tls", checks.tls), ("clock", checks.clock)]
        hops += [("udp", checks.udp)]
    hops.append(("api", checks.api))
    if settings.deployment or settings.secret_dir or settings.state_dir or not settings.hub_url:
        hops += [("permissions", checks.permissions), ("secret", checks.secret), ("handshake", checks.handshake)]
    else:
        hops += [(name, checks.not_installed) for name in ("permissions", "secret", "handshake")]
    return await checks.run(hops)


async def test(settings: Settings) -> int:
    """Secret, handshake, API server."""
    if not settings.api_server:
        _show(f"bad_setting: {_NO_POD}")
        return 2
    checks = _Checks(settings)
    hops: list[Hop] = [("secret", checks.secret), ("handshake", checks.handshake_patiently), ("api", checks.api)]
    return await checks.run(hops)


def _show(line: str) -> None:
    print(line, flush=True)
