"""The bootstrap Job: from a token to a key in the Secret and a configuration in the ConfigMap, in six steps.

    1 read the Secret: `ready` means done        4 POST token, public key and proof
    2 `pending`: go on with its key, or make one 5 verify the answer
    3 patch key and `pending` into the Secret    6 patch the ConfigMap, then PSK and `ready` into the Secret

The key is stored before the hub hears of it, so that a crash between any two steps ends, after another run, in the same
state. What may heal is tried again until the deadline; what cannot is said in one line. Neither token nor key is ever
printed.
"""

from __future__ import annotations

import logging
import random as random_module
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from edge_agent.contract import Exchange, HubConfig, Token
from edge_agent.foreign import Document
from edge_agent.hubapi import HubApi, Joined, Stop
from edge_agent.kube import Kube, KubeError, Unreachable
from edge_agent.state import CONFIG, HUB_KEY, PENDING, PHASE, PRIVATE_KEY, PSK, READY, TOKEN_ID

if TYPE_CHECKING:
    from edge_agent.settings import Settings
    from edge_agent.store import Store

__all__ = ["Bootstrap", "Waits", "run_bootstrap"]

_log = logging.getLogger("edge.bootstrap")
_T = TypeVar("_T")

_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_MOST_TOKEN: Final = 4096


class Waits:
    """How long to wait before each next try: growing from one second to sixty, jittered, never less than asked for."""

    def __init__(self, unit: Callable[[], float] = random_module.random) -> None:
        """Begin small; `unit` gives numbers from 0 to 1."""
        self._unit = unit
        self._next = _FIRST_WAIT

    def after(self, stop: Stop) -> float:
        """Seconds to wait after this failure."""
        wait = self._next * (0.5 + self._unit() / 2)
        self._next = min(self._next * 2, _LONGEST_WAIT)
        return max(wait, stop.retry_after or 0.0)


class Bootstrap:
    """One run of the Job."""

    def __init__(
        self, settings: Settings, store: Store, kube: Kube, hub: HubApi, *, waits: Waits | None = None
    ) -> None:
        """Put together what the steps need."""
        self._settings = settings
        self._store = store
        self._kube = kube
        self._hub = hub
        self._waits = waits or Waits()
        self.last_stop: Stop | None = None

    async def run(self) -> str:
        """Take the six steps.

        Returns:
            One line that says how it ended well.

        Raises:
            Stop: why it cannot.
        """
        if not self._kube.is_known and not self._settings.state_dir:
            raise Stop("bad_setting", "this is no pod: --api-server or --state-dir is missing")
        secret = await self._insist(self._store.secret)
        is_ready = secret.get(PHASE) == READY
        is_whole = all(len(secret.get(name, b"")) == 32 for name in (PRIVATE_KEY, PSK, HUB_KEY))
        token = self._read_token(is_needed=not (is_ready and is_whole))
        if is_ready and is_whole and (line := await self._already_joined(secret, token)):
            return line
        if token is None:
            raise Stop(
                "bad_setting", "the hub knows this cluster no longer, and there is no token: use a re-join invite"
            )
        # A Secret that lost a part, its phase included, gets it once more with the same key and token.
        has_lost = not (is_ready and is_whole) and secret.get(TOKEN_ID) == token.id.encode()
        is_resumed = secret.get(PHASE) == PENDING or has_lost
        private_key = secret.get(PRIVATE_KEY, b"") if is_resumed else b""
        if len(private_key) != 32:
            private_key = _new_key()
        try:
            exchange = Exchange(private_key, token.hub_key)
        except ValueError:
            raise Stop("bad_token", "the hub's key in it is none") from None
        pending = {PRIVATE_KEY: private_key, TOKEN_ID: token.id.encode(), HUB_KEY: token.hub_key, PHASE: PENDING}
        await self._insist(lambda: self._store.patch_secret(pending))
        kube_version, cluster_uid = await self._facts()
        joined = await self._insist(
            lambda: self._hub.bootstrap(token, exchange, kube_version=kube_version, cluster_uid=cluster_uid)
        )
        await self._write(joined)
        return f"joined as {joined.config.cluster_id} with tunnel address {joined.config.address}"

    def _read_token(self, *, is_needed: bool) -> Token | None:
        """The token; None where there is none any more and none is needed: a spent one may be deleted."""
        if not self._settings.hub_url:
            raise Stop("bad_setting", "--hub-url is missing")
        if not self._settings.token_file:
            raise Stop("bad_setting", "--token-file is missing")
        try:
            with Path(self._settings.token_file).open(encoding="utf-8") as file:
                text = file.read(_MOST_TOKEN).strip()
        except FileNotFoundError as problem:
            if not is_needed:
                return None
            raise Stop("bad_setting", f"--token-file {self._settings.token_file}: {problem.strerror}") from None
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or "not text"
            raise Stop("bad_setting", f"--token-file {self._settings.token_file}: {reason}") from None
        try:
            return Token.parse(text)
        except ValueError as problem:
            raise Stop("bad_token", str(problem)) from None

    async def _already_joined(self, secret: dict[str, bytes], token: Token | None) -> str:
        """How a run ends well whose key is ready; empty where that key is good for nothing any more.

        A Secret that was kept while the rest of the release was removed comes without its ConfigMap: the hub, which
        signs its answer for this key, tells what stood there.
        """
        is_same = token is None or secret.get(TOKEN_ID, b"").decode(errors="replace") == token.id
        has_config = await self._insist(self._has_config)
        if is_same and has_config:
            return "already joined with this token: nothing to do" if token else "already joined: no token is needed"
        try:
            exchange = Exchange(secret[PRIVATE_KEY], token.hub_key if token else secret[HUB_KEY])
        except ValueError:
            raise Stop("bad_token", "the hub's key in it is none") from None
        answer = await self._insist(lambda: self._hub.ask_self(exchange))
        _log.info("the hub says that the key in the Secret is %s", answer.state)
        if answer.state not in ("active", "blocked"):
            return ""
        if not has_config:
            if answer.config is None:
                raise Stop("unavailable", f"to the hub this cluster is {answer.state}: it tells no configuration now")
            await self._insist(lambda: self._store.patch_config(_stored(answer.config)))
        told = "" if has_config else ", and the hub told the configuration that was lost"
        left = "" if is_same else ": the new token was left unused and stays valid until it expires"
        return f"already joined{told}{left}"

    async def _has_config(self) -> bool:
        """Whether the ConfigMap holds a configuration that can be read."""
        text = (await self._store.config()).get(CONFIG)
        try:
            return text is not None and bool(HubConfig.from_document(Document.parse(text, 65536)))
        except ValueError:
            return False

    async def _facts(self) -> tuple[str, str | None]:
        """Version and uid of the cluster; a bootstrap does without them where they may not be read."""
        if not self._kube.is_known:
            return "", None
        try:
            version = await self._kube.version()
            return version, await self._kube.cluster_uid() if self._settings.cluster_identity else None
        except (KubeError, Unreachable) as problem:
            _log.warning("version and uid of the cluster stay unknown: %s", problem)
            return "", None

    async def _write(self, joined: Joined) -> None:
        await self._insist(lambda: self._store.patch_config(_stored(joined.config)))
        await self._insist(lambda: self._store.patch_secret({PSK: joined.psk, PHASE: READY}))

    async def _insist(self, step: Callable[[], Awaitable[_T]]) -> _T:
        """Take a step, again and again as long as that may help."""
        while True:
            try:
                return await step()
            except KubeError as problem:
                code = "api_unreachable" if problem.status >= 500 or problem.status == 429 else "api_forbidden"
                stop = Stop(code, str(problem))
            except Unreachable as problem:
                stop = Stop("api_unreachable", str(problem))
            except Stop as problem:
                stop = problem
            if stop.cause.is_final:
                raise stop
            self.last_stop = stop
            wait = self._waits.after(stop)
            if trio.current_time() + wait >= trio.current_effective_deadline():
                raise stop
            _log.warning("%s; trying again in %.0f s", stop.line(), wait)
            await trio.sleep(wait)


def _stored(config: HubConfig | None) -> dict[str, str]:
    assert config is not None
    return {CONFIG: config.to_text()}


def _new_key() -> bytes:
    import wgpy

    return bytes(wgpy.PrivateKey.generate())


async def run_bootstrap(bootstrap: Bootstrap, deadline: float) -> tuple[int, str]:
    """Run it until it ends or the deadline is near.

    Returns:
        Exit code, and the one line to print.
    """
    try:
        with trio.fail_after(deadline):
            line = await bootstrap.run()
    except Stop as problem:
        stop = problem
    except trio.TooSlowError:
        # What went wrong the last time says more than that the time is over.
        stop = bootstrap.last_stop or Stop("network", f"no answer in {deadline:.0f} s")
    else:
        return 0, line
    return stop.cause.exit_code, stop.line()
