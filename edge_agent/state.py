"""What we know of ourselves: from Secret and ConfigMap to one frozen value, and the news of it.

    mounted files ----\
    API watch ---------> Snapshot -> whoever waits for the next one
    files, every 2 s -/   (where the watch is refused, or there is a folder in place of objects)

Mounted files alone are refreshed about once a minute: too slow for a first join, hence the watch. Nothing is written.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from edge_agent import supervise
from edge_agent.contract import HubConfig, canonical_key
from edge_agent.foreign import Document
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
_NOTHING: Final = Document({})

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
# How long files are looked at before the API is asked again.
_POLLED: Final = 300.0
_MOST_CONFIG: Final = 65536


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
        config: None likewise, and where the ConfigMap was lost: the hub tells it again.
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
        if secret.get(PHASE) != READY:
            return cls(None, None, "no key yet: the bootstrap Job has not finished", "InvitePending")
        sizes = {name: len(secret.get(name, b"")) for name in (PRIVATE_KEY, PSK, HUB_KEY)}
        if wrong := [name for name, size in sizes.items() if size != 32]:
            return cls(None, None, f"the Secret's {', '.join(wrong)} is damaged: make a new invite", "NeedsNewInvite")
        identity = Identity(secret[PRIVATE_KEY], secret[PSK], canonical_key(secret[HUB_KEY]))
        if not was_joined:
            return cls(identity, None, "the ConfigMap lost its data: asking the hub for it")
        try:
            public = HubConfig.from_document(Document.parse(config[CONFIG], _MOST_CONFIG))
        except ValueError as problem:
            return cls(identity, None, f"the ConfigMap is damaged ({problem}): asking the hub for its data")
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
        secret, config_map = f"{base}/secrets", f"{base}/configmaps"
        async with trio.open_nursery() as nursery:
            supervise.start_kept(
                nursery, "watch of the Secret", self._follow, secret, settings.secret, folders[0], self._take_secret
            )
            supervise.start_kept(
                nursery,
                "watch of the ConfigMap",
                self._follow,
                config_map,
                settings.config_map,
                folders[1],
                self._take_config,
            )

    def _take_secret(self, one: Document) -> None:
        self.take(secret=octets_of(one))

    def _take_config(self, one: Document) -> None:
        self.take(config=texts_of(one))

    def put_config(self, config: HubConfig) -> None:
        """Note a configuration that is in force, before it is stored."""
        self.take(config={**self._config, CONFIG: config.to_text()})

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

    async def _follow(self, path: str, name: str, folder: str, take: Callable[[Document], None]) -> None:
        """Follow one object by name; where that is refused, look at its files instead, and ask again later."""

        def listed(objects: list[Document]) -> None:
            named = [one for one in objects if one.text("metadata", "name") == name]
            take(named[0] if named else _NOTHING)

        def changed(kind: str, one: Document) -> None:
            if one.text("metadata", "name") == name:
                take(_NOTHING if kind == "DELETED" else one)

        def failed(problem: KubeError | Unreachable) -> None:
            if isinstance(problem, KubeError) and problem.status in (401, 403):
                raise problem
            _log.info("the watch of %s ended: %s", name, problem)

        while True:
            try:
                await self._kube.follow(path, name=name, listed=listed, changed=changed, failed=failed)
            except KubeError as problem:
                _log.warning("may not watch %s (%s): looking at its files every %g s", name, problem, POLL_INTERVAL)
            with trio.move_on_after(_POLLED):
                await self._poll(*(("", folder) if path.endswith("configmaps") else (folder, "")))
