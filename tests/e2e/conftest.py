"""Fixtures of the end-to-end tests: a bench, and two machines joined by a cable."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.daemons import LEFT, RIGHT, DaemonEnd
from tests.e2e.guest import Guest, boot_guest
from tests.e2e.lab import Lab, Namespace, open_lab
from tests.machine import why_missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder makes namespaces and TUN interfaces and drives them by the usual tools."""
    for item in items:
        if "tests/e2e/" in item.path.as_posix():
            item.add_marker(pytest.mark.needs("root", "tun", "netns", "tools"))


FAILED: pytest.StashKey[bool] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A bench that is cleared when the test ends, however it ends; what its processes said is shown if it failed."""
    with open_lab(tmp_path) as opened:
        yield opened
        if request.node.stash.get(FAILED, False):
            opened.show_output()


@dataclass
class Wire:
    """Two machines and the cable between them.

    left ─── to-right ═══ to-left ─── right
    192.0.2.1/24, 2001:db8:1::1/64    192.0.2.2/24, 2001:db8:1::2/64
    """

    lab: Lab
    left: Namespace
    right: Namespace

    def start(self, side: str, implementation: str = "wgpy", env: dict[str, str] | None = None) -> DaemonEnd:
        return DaemonEnd(self.lab, getattr(self, side), implementation, env=env)


@pytest.fixture
def wire(lab: Lab) -> Wire:
    """Two machines joined by a cable."""
    made = Wire(lab, lab.namespace("left"), lab.namespace("right"))
    lab.cable(made.left, made.right)
    for namespace, interface, own in ((made.left, "to-right", LEFT), (made.right, "to-left", RIGHT)):
        namespace.address(interface, f"{own.outer4}/24", f"{own.outer6}/64")
    return made


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One emulated machine with the kernel's own WireGuard, booted once for all the tests of this process."""
    for group in ("root", "netns", "qemu"):
        assert why_missing(group) is None, why_missing(group)
    with open_lab(tmp_path_factory.mktemp("guest")) as opened:
        yield boot_guest(opened)
