"""What we know of ourselves: from Secret and ConfigMap to one frozen value, and the news of it.

    mounted files ----\
    API watch ---------> Snapshot -> whoever waits for the next one
    files, every 2 s -/   (where the watch is refused, or there is a folder in place of objects)

Mounted files alone are refreshed about once a minute: too slow for a first join, hence the watch. Nothing is written.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from edge_agent.contract import HubConfig
from edge_agent.kube import Kube, KubeError, Unreachable
from edge_agent.store import octets_of, read_folder, texts_of

if TYPE_CHECKING:
    from edge_agent.settings import Settings

__all__ = [
    "CONFIG",
    "HUB_KEY",
    "PENDING",
    "PHASE",
    "PRIVATE_KEY",
    "PSK",
    "READY",
    "TOKEN_ID",
    "Identity",
    "Snapshot",
    "State",
]

_log = logging.getLogger("edge.state")

# Names in the Secret, and of the document in the ConfigMap.
PRIVATE_KEY: Final = "private-key"
PSK: Final = "psk"
HUB_KEY: Final = "hub-key"
TOKEN_ID: Final = "token-id"
PHASE: Final = "phase"
CONFIG: Final = "config.json"
JOB: Final = "job"
PENDING: Final = b"pending"
READY: Final = b"ready"

POLL_INTERVAL: Final = 2.0
# Between one watch and the next, for a server that ends each at once.
_PAUSE: Final = 0.2
_RETRY_LEAST: Final = 1.0
_RETRY_MOST: Final = 30.0


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """What makes us ourselves; another one means another tunnel.

    Attributes:
        private_key: 32 octets.
        psk: 32 octets.
        hub_key: of the only hub, 32 octets.
    """

    private_key: bytes
    psk: bytes
    hub_key: bytes


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Snapshot:
    """State at one moment.

    Attributes:
        identity: None until the bootstrap is done.
        config: None likewise.
        problem: why there is nothing to connect with, for people and probes; empty if there is.
        code: NeedsNewInvite where the hub knows us and our key is lost.
    """

    identity: Identity | None
    config: HubConfig | None
    problem: str = ""
    code: str = ""

    @classmethod
    def of(cls, secret: Mapping[str, bytes], config: Mapping[str, str]) -> Snapshot:
        """Make sense of what is stored."""
        was_joined = CONFIG in config
        if not secret.get(PRIVATE_KEY) and was_joined:
            problem = "the Secret lost its data: make a new invite and run `helm upgrade` with it"
            return cls(None, None, problem, "NeedsNewInvite")
        if secret.get(PHASE) != READY or not was_joined:
            return cls(None, None, "no key yet: the bootstrap Job has not finished", "InvitePending")
        sizes = {name: len(secret.get(name, b"")) for name in (PRIVATE_KEY, PSK, HUB_KEY)}
        if wrong := [name for name, size in sizes.items() if size != 32]:
            return cls(None, None, f"the Secret's {', '.join(wrong)} is damaged: make a new invite", "NeedsNewInvite")
        try:
            public = HubConfig.from_document(json.loads(config[CONFIG]))
        except (ValueError, TypeError, AttributeError) as problem:
            return cls(
                None, None, f"the ConfigMap is damaged ({problem}): run the bootstrap Job again", "NeedsNewInvite"
            )
        identity = Identity(secret[PRIVATE_KEY], secret[PSK], secret[HUB_KEY])
        if public.hub_key != identity.hub_key:
            return cls(None, None, "the ConfigMap names another hub than the Secret: refusing it", "HandshakeRejected")
        return cls(identity, public)


class State:
    """The newest snapshot, and a way to wait for another one.

    Attributes:
        snapshot: the newest.
    """

    def __init__(self, settings: Settings, kube: Kube) -> None:
        """Nothing is known until `run`."""
        self._settings = settings
        self._kube = kube
        self._secret: dict[str, bytes] = {}
        self._config: dict[str, str] = {}
        self._news = trio.Event()
        self.snapshot = Snapshot.of({}, {})

    @property
    def job(self) -> str:
        """Name of the bootstrap Job as the chart left it in the ConfigMap; empty where there is none."""
        return self._config.get(JOB, "")

    async def wait(self) -> Snapshot:
        """The next snapshot that differs."""
        await self._news.wait()
        return self.snapshot

    def take(self, *, secret: Mapping[str, bytes] | None = None, config: Mapping[str, str] | None = None) -> None:
        """Note what is stored now; waiters hear of it when it means something else than before."""
        if secret is not None:
            self._secret = dict(secret)
        if config is not None:
            self._config = dict(config)
        snapshot = Snapshot.of(self._secret, self._config)
        if snapshot != self.snapshot:
            self.snapshot = snapshot
            news, self._news = self._news, trio.Event()
            news.set()

    async def run(self) -> None:
        """Follow what is stored, for ever."""
        settings = self._settings
        folders = (settings.secret_dir, settings.config_dir)
        if settings.state_dir:
            folders = (f"{settings.state_dir}/secret", f"{settings.state_dir}/config")
        self._read_files(*folders)
        if settings.state_dir or not self._kube.is_known:
            await self._poll(*folders)
            return
        base = f"/api/v1/namespaces/{settings.namespace}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                self._follow,
                f"{base}/secrets",
                settings.secret,
                folders[0],
                lambda one: self.take(secret=octets_of(one)),
            )
            nursery.start_soon(
                self._follow,
                f"{base}/configmaps",
                settings.config_map,
                folders[1],
                lambda one: self.take(config=texts_of(one)),
            )

    def _read_files(self, secret_dir: str, config_dir: str) -> None:
        secret = read_folder(Path(secret_dir)) if secret_dir else {}
        config = read_folder(Path(config_dir)) if config_dir else {}
        # Mounts lag behind the API by a minute: they only ever add to what is known.
        self.take(
            secret=secret or None,
            config={name: value.decode(errors="replace") for name, value in config.items()} or None,
        )

    async def _poll(self, secret_dir: str, config_dir: str) -> None:
        while True:
            await trio.sleep(POLL_INTERVAL)
            self._read_files(secret_dir, config_dir)

    async def _follow(self, path: str, name: str, folder: str, take: Callable[[Mapping[str, Any]], None]) -> None:
        """Watch one object by name; where that is refused, look at its files instead.

        From the version that was just read: a watch from no version has to wait in the API server until its cache has
        caught up with etcd, and where nothing changes etcd before 3.4.25 never tells it so (504, too large version).
        """
        delay = _RETRY_LEAST

        def handle(event: dict[str, Any]) -> None:
            nonlocal delay
            delay = _RETRY_LEAST
            gone = event.get("type") == "DELETED"
            take({} if gone else event.get("object") or {})

        while True:
            try:
                one = await self._kube.get(f"{path}/{name}")
                take(one)
                since = str((one.get("metadata") or {}).get("resourceVersion", ""))
                selected = {"fieldSelector": f"metadata.name={name}", "resourceVersion": since}
                await self._kube.watch(path, selected, handle)
                await trio.sleep(_PAUSE)
                continue
            except KubeError as problem:
                if problem.status == 404:
                    take({})
                if problem.status in (401, 403):
                    _log.warning("may not watch %s (%s): looking at its files every %g s", name, problem, POLL_INTERVAL)
                    await self._poll_until_allowed(folder, path)
                    continue
                _log.info("the watch of %s ended: %s", name, problem)
            except Unreachable as problem:
                _log.info("the watch of %s ended: %s", name, problem)
            await trio.sleep(delay)
            delay = min(delay * 2, _RETRY_MOST)

    async def _poll_until_allowed(self, folder: str, path: str) -> None:
        """Files for five minutes, then another try: permissions may be widened at any time."""
        with trio.move_on_after(300):
            await self._poll(*(("", folder) if path.endswith("configmaps") else (folder, "")))
