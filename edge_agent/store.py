"""Where key and configuration are kept: one Secret and one ConfigMap, or a folder for those who have no cluster.

The bootstrap Job writes both; the edge pod only reads the Secret, and writes the configuration when the hub changes it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from edge_agent.contract import encode_key
from edge_agent.foreign import Document, ForeignError

if TYPE_CHECKING:
    from edge_agent.kube import Kube
    from edge_agent.settings import Settings

# Octets of one value: Kubernetes allows a megabyte for a whole object.
_LARGEST: Final = 2**20

__all__ = ["FolderStore", "KubeStore", "Store", "octets_of", "open_store", "texts_of"]


class Store(Protocol):
    """Two small sets of named values; a patch leaves alone what it does not name."""

    async def secret(self) -> dict[str, bytes]:
        """The secret values; empty where there are none yet."""
        ...

    async def patch_secret(self, values: Mapping[str, bytes]) -> None:
        """Add or replace secret values."""

    async def config(self) -> dict[str, str]:
        """The public values."""
        ...

    async def patch_config(self, values: Mapping[str, str]) -> None:
        """Add or replace public values."""


class KubeStore:
    """The objects that the chart made; they are never created here, so that uninstalling removes them."""

    def __init__(self, kube: Kube, namespace: str, secret: str, config_map: str) -> None:
        """Name the two objects."""
        self._kube = kube
        self._secret = f"/api/v1/namespaces/{namespace}/secrets/{secret}"
        self._config_map = f"/api/v1/namespaces/{namespace}/configmaps/{config_map}"

    async def secret(self) -> dict[str, bytes]:
        """See `Store`."""
        return octets_of(await self._kube.get(self._secret))

    async def patch_secret(self, values: Mapping[str, bytes]) -> None:
        """See `Store`."""
        data = {name: encode_key(value) for name, value in values.items()}
        await self._kube.merge_patch(self._secret, {"data": data})

    async def config(self) -> dict[str, str]:
        """See `Store`."""
        return texts_of(await self._kube.get(self._config_map))

    async def patch_config(self, values: Mapping[str, str]) -> None:
        """See `Store`."""
        await self._kube.merge_patch(self._config_map, {"data": dict(values)})


class FolderStore:
    """Files below one folder: `secret/NAME` and `config/NAME`, as the two objects look when they are mounted."""

    def __init__(self, folder: Path) -> None:
        """Use this folder; it is made at the first write, for its owner only."""
        self._folder = folder

    async def secret(self) -> dict[str, bytes]:
        """See `Store`."""
        return read_folder(self._folder / "secret")

    async def patch_secret(self, values: Mapping[str, bytes]) -> None:
        """See `Store`."""
        self._write("secret", values)

    async def config(self) -> dict[str, str]:
        """See `Store`."""
        values = read_folder(self._folder / "config")
        return {name: value.decode(errors="replace") for name, value in values.items()}

    async def patch_config(self, values: Mapping[str, str]) -> None:
        """See `Store`."""
        self._write("config", {name: value.encode() for name, value in values.items()})

    def _write(self, kind: str, values: Mapping[str, bytes]) -> None:
        folder = self._folder / kind
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # In the order given, each whole or not at all: `phase` comes last and says that the others are there.
        for name, value in values.items():
            handle, partial = tempfile.mkstemp(dir=folder, prefix=".")
            with os.fdopen(handle, "wb") as file:
                file.write(value)
            os.replace(partial, folder / name)


def open_store(settings: Settings, kube: Kube) -> Store:
    """The store that the settings ask for."""
    if settings.state_dir:
        return FolderStore(Path(settings.state_dir))
    return KubeStore(kube, settings.namespace, settings.secret, settings.config_map)


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file of a folder that is mounted or our own; what is hidden is the kubelet's and is passed over."""
    values: dict[str, bytes] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return values
    for name in names:
        if not name.startswith("."):
            try:
                with open(folder / name, "rb") as file:
                    values[name] = file.read(_LARGEST)
            except OSError:
                continue  # replaced at this moment: the next look finds it
    return values


def octets_of(secret: Document) -> dict[str, bytes]:
    """The values of a Secret object; what is not base64 is passed over."""
    values: dict[str, bytes] = {}
    data = secret.get("data")
    for name in data:
        with contextlib.suppress(ForeignError):
            values[name] = data.octets(name)
    return values


def texts_of(config_map: Document) -> dict[str, str]:
    """The values of a ConfigMap object; what is no text is passed over."""
    values: dict[str, str] = {}
    data = config_map.get("data")
    for name in data:
        with contextlib.suppress(ForeignError):
            values[name] = data.text(name, most=2**20)
    return values
