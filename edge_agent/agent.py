"""`daalu-edge run`: everything that works while the pod lives, each part for itself (`supervise`).

health ---------- answers from the first moment on
state ----------- Secret and ConfigMap; while there is no key the pod waits, alive and not ready
probe, nodes ---- how the API server answers, and the cluster's nodes
tunnel ---------- opened for the newest identity; in it: beats, control, apiproxy
heal ------------ asks the hub over HTTPS what became of us when it has been silent for long
SIGTERM --------- no new work, goodbye, close, all within two seconds
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import signal
from typing import TYPE_CHECKING, Final

import trio

from edge_agent import supervise
from edge_agent.apiproxy import ApiProxy
from edge_agent.contract import HubConfig
from edge_agent.control import BEAT_PORT, Beats, Control, beat_interval, say_goodbye
from edge_agent.facts import ApiState, Facts
from edge_agent.foreign import ForeignError, iso
from edge_agent.health import serve_health
from edge_agent.kube import EDGE_TOKEN_REFUSED, TOKEN_REFUSED, Kube, KubeError, Unreachable
from edge_agent.nodes import NodeTable, follow_nodes
from edge_agent.state import CONFIG, Identity, State
from edge_agent.store import open_store
from edge_agent.supervise import Fatal, leaves_of
from edge_agent.tunnel import HubTunnel, Udp, check_endpoints, open_hub_tunnel

if TYPE_CHECKING:
    from edge_agent.settings import Settings

__all__ = ["Agent", "run_agent"]

_log = logging.getLogger("edge.agent")

_PROBE_GOOD: Final = 10.0
_PROBE_BAD: Final = 3.0
_PROBE_TIMEOUT: Final = 5.0
# Silent for so long, the hub is asked over HTTPS; then twice as long each time, at most every 10 minutes.
_HEAL: Final = (30.0, 600.0)
_REASON_TIMEOUT: Final = 0.7
_GOODBYE_TIMEOUT: Final = 0.5
_CLOSE_TIMEOUT: Final = 0.5
_GONE: Final = ("deleted", "revoked")
# What the hub says of a key that it neither serves nor has buried: blocked, or unknown after a restored backup.
_UNWELCOME: Final = "HandshakeRejected"
_REOPEN: Final = 5.0
# Secret and ConfigMap are read apart: one without the other is given so long before it counts as lost.
_GRACE: Final = 5.0


class Agent:
    """The running agent.

    Attributes:
        facts: what is known of it.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is opened yet."""
        self._settings = settings
        self._kube = Kube(settings)
        self._store = open_store(settings, self._kube)
        self._state = State(settings, self._kube)
        self._nodes = NodeTable()
        self.facts = Facts(boot_id=secrets.token_hex(8))
        self._tunnel: HubTunnel | None = None
        self._udp: Udp | None = None
        self._config: HubConfig | None = None
        # One that the hub's signed word replaced, though its revision is higher.
        self._overruled: HubConfig | None = None
        self._is_in_doubt = False
        self._look_at_api = trio.Event()
        self._saw_deployment = False
        # The hub said that our key is good for nothing any more.
        self._is_gone = False
        self._tunnel_scope = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until SIGTERM or SIGINT."""
        try:
            await self._work(task_status)
        finally:
            with trio.CancelScope(deadline=trio.current_time() + _CLOSE_TIMEOUT, shield=True):
                await self._kube.aclose()

    async def _work(self, task_status: trio.TaskStatus[int]) -> None:
        settings = self._settings
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                port = await nursery.start(
                    lambda task_status: serve_health(
                        settings.health_host,
                        settings.health_port,
                        self.facts,
                        refresh=self._count,
                        task_status=task_status,
                    )
                )
                _log.info("probes are answered on port %d", port)
                supervise.start_kept(nursery, "state", self._state.run)
                supervise.start_kept(nursery, "tunnel", self._hold_tunnel)
                supervise.start_kept(nursery, "questions about ourselves", self._heal)
                if self._kube.is_known:
                    supervise.start_kept(nursery, "look at the API server", self._probe)
                    supervise.start_kept(nursery, "watch of the nodes", self._follow_nodes)
                task_status.started(port)
                async for number in signals:
                    _log.info("stopping: %s", signal.Signals(number).name)
                    break
                await supervise.run_once("goodbye", self.stop)
                nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        """Take no new work, say goodbye, close: within two seconds."""
        self.facts.is_stopping = True
        if self._udp is not None:
            reason = await self._why_stopped()
            _log.info("goodbye: %s", reason)
            with trio.move_on_after(_GOODBYE_TIMEOUT), contextlib.suppress(OSError, trio.ClosedResourceError):
                await say_goodbye(self._udp, reason)

    # --- the tunnel --------------------------------------------------------------------------------------------------

    async def _hold_tunnel(self) -> None:
        """One tunnel at a time, for the newest identity; a Secret that was emptied does not end it."""
        while True:
            snapshot = self._state.snapshot
            if snapshot.identity is None:
                self._say_problem(snapshot.problem, snapshot.code)
                await self._state.wait()
                continue
            if snapshot.config is None:
                await self._ask_for_config(snapshot.identity)
                continue
            self._say_problem("", "")
            try:
                with trio.CancelScope() as self._tunnel_scope:
                    await self._hold(snapshot.identity, snapshot.config)
            except (OSError, BaseExceptionGroup) as problem:
                refused = [one for one in leaves_of(problem) if isinstance(one, OSError)]
                if not refused:
                    raise
                _log.error("the tunnel cannot be opened: %s", refused[0])
                await trio.sleep(_REOPEN)
            await self._stay_away(snapshot.identity)

    async def _ask_for_config(self, identity: Identity) -> None:
        """The Secret is whole and the ConfigMap is not: the hub signs what stood there."""
        if self._state.snapshot.problem != self.facts.problem:
            with trio.move_on_after(_GRACE):
                await self._state.wait()
                return
        self._say_problem(self._state.snapshot.problem, self._state.snapshot.code)
        await self._ask_self(identity)
        if self._state.snapshot.config is None:
            with trio.move_on_after(_HEAL[0]):
                await self._state.wait()
        await self._stay_away(identity)

    async def _stay_away(self, identity: Identity) -> None:
        """While the hub says that we are gone: one question every ten minutes, until the Secret holds another key."""
        while self._is_gone and self._state.snapshot.identity in (identity, None):
            with trio.move_on_after(_HEAL[1]) as pause:
                await self._state.wait()
            if pause.cancelled_caught:
                await self._ask_self(identity)
        self._is_gone = False

    async def _hold(self, identity: Identity, config: HubConfig) -> None:
        settings, facts = self._settings, self.facts
        self._config = config
        facts.seen_at = None
        async with open_hub_tunnel(settings, identity, config, facts) as tunnel:
            _log.info("tunnel of %s: %s, in %s mode", config.cluster_id, config.address, facts.mode)
            self._tunnel = tunnel
            async with tunnel.open_udp(BEAT_PORT) as udp, trio.open_nursery() as nursery:
                self._udp = udp
                control = Control(
                    settings,
                    facts,
                    self._nodes,
                    dial=tunnel.dial,
                    config=lambda: self._config or config,
                    apply=self._apply,
                    check=lambda config: check_endpoints(settings, config),
                    on_older=self._doubt,
                    job=lambda: settings.job or self._state.job or None,
                )
                proxy = ApiProxy(settings, self._kube, facts, tunnel.hub_addresses())

                def lost() -> None:
                    proxy.cut()
                    tunnel.search()

                beats = Beats(
                    udp,
                    facts,
                    lambda: beat_interval(settings, self._config or config),
                    on_lost=lost,
                    on_ask=control.reconnect,
                    set_mtu=None if settings.mtu else tunnel.set_mtu,
                )

                async def serve() -> None:
                    async with contextlib.AsyncExitStack() as listening:
                        listeners = await tunnel.listen(settings.proxy_port)
                        for one in listeners:
                            await listening.enter_async_context(one)
                        await proxy.serve(listeners)

                supervise.start_kept(nursery, "way to the hub", tunnel.run)
                supervise.start_kept(nursery, "heartbeats", beats.run)
                supervise.start_kept(nursery, "control line", control.run)
                supervise.start_kept(nursery, "requests of the hub", serve)
                try:
                    await self._until_another(identity)
                finally:
                    self._tunnel = self._udp = None
                nursery.cancel_scope.cancel()

    async def _until_another(self, identity: Identity) -> None:
        """Return when the Secret holds another identity; take a changed ConfigMap on the way."""
        while True:
            snapshot = self._state.snapshot
            if snapshot.identity is not None and snapshot.identity != identity:
                _log.info("the Secret holds another key: opening the tunnel anew")
                return
            self._say_problem(snapshot.problem, snapshot.code)
            config, held, tunnel = snapshot.config, self._config, self._tunnel
            if snapshot.identity is not None and config is None and held is not None:
                _log.warning("the ConfigMap lost its data: writing back what is in force")
                await self._keep(held)
            elif config is not None and held is not None and tunnel is not None and config != self._overruled:
                if _addresses_of(config) != _addresses_of(held):
                    return
                if config.revision > held.revision:
                    self._config = config
                    tunnel.apply(config)
            await self._state.wait()

    def _say_problem(self, problem: str, code: str) -> None:
        if problem and problem != self.facts.problem:
            _log.warning("%s: %s", code, problem)
        self.facts.problem, self.facts.code = problem, code

    async def _apply(self, config: HubConfig) -> None:
        """Go on with another configuration, and keep it for the next start."""
        held, self._config = self._config, config
        if held is not None and held.revision > config.revision:
            # What is stored may come back once more before ours is written.
            self._overruled = held
        has_moved = held is not None and _addresses_of(held) != _addresses_of(config)
        if self._tunnel is not None and not has_moved:
            self._tunnel.apply(config)
        await self._keep(config)
        if has_moved:
            _log.info("the hub gave us other addresses: opening the tunnel anew")
            self._tunnel_scope.cancel()

    async def _keep(self, config: HubConfig) -> None:
        self._state.put_config(config)
        try:
            await self._store.patch_config({CONFIG: config.to_text()})
        except (KubeError, Unreachable, OSError) as problem:
            _log.warning("configuration %d is in force but not kept: %s", config.revision, problem)

    def _count(self) -> None:
        if self._tunnel is not None:
            self._tunnel.count()

    # --- the hub is silent -------------------------------------------------------------------------------------------

    async def _heal(self) -> None:
        """Ask over HTTPS what became of us, when the tunnel has been silent for long."""
        if not self._settings.hub_url:
            return
        least, most = _HEAL
        wait = least
        silent_since = trio.current_time()
        while True:
            await trio.sleep(1.0)
            self.facts.look_at_clock()
            now = trio.current_time()
            is_well = self.facts.is_seen or self._tunnel is None
            if is_well and self._tunnel is not None and self.facts.code == _UNWELCOME:
                self._say_problem("", "")
            if is_well:
                silent_since, wait = now, least
            if self._is_in_doubt:
                self._is_in_doubt = False
            elif is_well or now - silent_since < wait:
                continue
            else:
                silent_since, wait = now, min(wait * 2, most)
            identity = self._state.snapshot.identity
            if identity is not None:
                await self._ask_self(identity)

    def _doubt(self) -> None:
        """Something that the hub said contradicts what we hold: its signed word decides, asked for soon."""
        self._is_in_doubt = True

    async def _ask_self(self, identity: Identity) -> None:
        """Take the hub's signed word about ourselves: it wins over what is held, whatever the revisions say."""
        from edge_agent.contract import Exchange
        from edge_agent.hubapi import HubApi, Stop

        if not self._settings.hub_url:
            return
        hub = HubApi(self._settings)
        try:
            answer = await hub.ask_self(Exchange(identity.private_key, identity.hub_key))
        except Stop as stop:
            _log.warning("%s", stop.line())
            return
        finally:
            if hub.clock_skew is not None:
                self.facts.note_clock(hub.clock_skew)
        self._is_gone = answer.state in _GONE
        if self._is_gone:
            _log.error("this cluster was %s%s: asking again every 10 minutes", answer.state, _at(answer.at))
            self._say_problem(f"this cluster was {answer.state} at the hub{_at(answer.at)}", "NeedsNewInvite")
            self._tunnel_scope.cancel()
            return
        _log.info("the hub says that we are %s", answer.state)
        if answer.state != "active":
            self._say_problem(f"to the hub this cluster is {answer.state}{_at(answer.at)}", _UNWELCOME)
        config = answer.config
        if config is None or config == self._state.snapshot.config or config.hub_key != identity.hub_key:
            return
        try:
            check_endpoints(self._settings, config)
        except ValueError as problem:
            _log.warning("configuration %d is refused: %s", config.revision, problem)
            return
        await self._apply(config)

    # --- the API server ----------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Look at the API server now and then, more often while it is away."""
        while True:
            self._look_at_api = trio.Event()
            known = (self.facts.kube_version, self.facts.cluster_uid)
            state = await self._api_state()
            if known != (self.facts.kube_version, self.facts.cluster_uid):
                self.facts.note()
            if state != self.facts.api:
                _log.log(
                    logging.INFO if state.state == "ok" else logging.WARNING,
                    "API server: %s %s %s", state.state, state.errno_name or "", state.detail,
                )  # fmt: skip
                self.facts.api = state
                self.facts.note()
            with trio.move_on_after(_PROBE_GOOD if state.state == "ok" else _PROBE_BAD):
                await self._look_at_api.wait()
                await trio.sleep(0.2)

    async def _api_state(self) -> ApiState:
        facts, settings = self.facts, self._settings
        try:
            with trio.fail_after(_PROBE_TIMEOUT):
                facts.kube_version = await self._kube.version()
                if facts.cluster_uid is None and settings.cluster_identity:
                    with contextlib.suppress(KubeError):
                        facts.cluster_uid = await self._kube.cluster_uid()
                if settings.deployment and not self._saw_deployment:
                    with contextlib.suppress(KubeError):
                        await self._kube.get(self._deployment)
                        self._saw_deployment = True
        except KubeError as problem:
            if problem.status == 401:
                return ApiState("forbidden", EDGE_TOKEN_REFUSED, TOKEN_REFUSED)
            if problem.status == 403:
                return ApiState("forbidden", None, problem.message)
            return ApiState("unreachable", None, str(problem))
        except Unreachable as problem:
            return ApiState("unreachable", problem.errno_name, problem.detail)
        except trio.TooSlowError:
            return ApiState("unreachable", "ETIMEDOUT", "Connection timed out")
        if self._nodes.problem:
            return ApiState("forbidden", None, self._nodes.problem)
        return ApiState("ok")

    async def _follow_nodes(self) -> None:
        await follow_nodes(self._kube, self._nodes, on_trouble=lambda: self._look_at_api.set())

    @property
    def _deployment(self) -> str:
        return f"/apis/apps/v1/namespaces/{self._settings.namespace}/deployments/{self._settings.deployment}"

    async def _why_stopped(self) -> str:
        """Uninstalled, if our Deployment is gone or going; restarting, if it stays; unknown, if we cannot see it."""
        if not self._settings.deployment or not self._kube.is_known:
            return "unknown"
        try:
            with trio.fail_after(_REASON_TIMEOUT):
                deployment = await self._kube.get(self._deployment)
        except KubeError as problem:
            # With the release its account and roles went too: what was allowed before is refused now.
            gone = problem.status == 404 or (problem.status in (401, 403) and self._saw_deployment)
            return "uninstalled" if gone else "unknown"
        except (Unreachable, trio.TooSlowError):
            return "unknown"
        try:
            is_going = deployment.has("metadata", "deletionTimestamp")
            wanted = deployment.integer("spec", "replicas", least=0, most=2**31)
        except ForeignError:
            return "unknown"
        return "uninstalled" if is_going or wanted == 0 else "restarting"


def _at(moment: float | None) -> str:
    return "" if moment is None else f" at {iso(moment)}"


def _addresses_of(config: HubConfig) -> tuple[str | None, ...]:
    """What a tunnel cannot change while it is open."""
    return config.address, config.address6, config.hub_address, config.hub_address6


async def run_agent(settings: Settings) -> int:
    """Run until told to stop.

    Returns:
        Exit code.
    """
    try:
        await Agent(settings).run()
    except (Fatal, BaseExceptionGroup) as problem:
        for one in leaves_of(problem):
            if isinstance(one, Fatal):
                _log.error("%s", one)
                return 1
        raise
    return 0
