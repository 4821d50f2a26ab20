"""A real tunnel, for faces that are not trio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import wgpy
from tests.adapters.farend import far_end
from wgpy.adapters.thread import TunnelThread


@pytest.fixture
def far() -> Iterator[tuple[wgpy.InterfaceConfig, TunnelThread]]:
    with far_end() as opened:
        yield opened


@pytest.fixture
def config(far: tuple[wgpy.InterfaceConfig, TunnelThread]) -> wgpy.InterfaceConfig:
    """Of the near end of a tunnel whose far end is at work."""
    return far[0]


@pytest.fixture
def conf(config: wgpy.InterfaceConfig, tmp_path: Path) -> Path:
    """The same in a file."""
    path = tmp_path / "office.conf"
    path.touch(0o600)
    path.write_text(config.to_ini())
    return path


@pytest.fixture(autouse=True)
def no_host_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the host's resolver for a name fails the test: names are for the tunnel."""
    import socket

    real = socket.getaddrinfo

    def only_addresses(host: str | None, *arguments: object, **settings: object) -> object:
        assert host is None or host.replace(".", "").isdigit() or ":" in host, f"the host was asked for {host!r}"
        return real(host, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", only_addresses)
