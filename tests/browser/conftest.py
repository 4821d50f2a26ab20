"""One hub with one connected cluster for all tests of this folder, and a chromium that is signed in."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.demo_hub import Child, Operator, running
from tests.machine import find_program

PATIENCE = 60_000


@dataclass
class Site:
    """The hub of the demonstration."""

    url: str
    email: str
    password: str
    operator: Operator
    cluster_id: str
    children: list[Child]

    def child(self, name: str) -> Child:
        return next(child for child in self.children if child.name == name)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("site")) as parts:
        yield Site(*parts)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(find_program("chromium")), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


Open = Callable[..., Page]


@pytest.fixture
def visit(site: Site, chromium: Browser) -> Iterator[Open]:
    """Opens pages; what the console complains of fails the test."""
    contexts = []
    complaints: list[str] = []

    def complain(message: Any) -> None:
        text = getattr(message, "text", str(message))
        if getattr(message, "type", "error") == "error" and not re.search("Failed to (load resource|fetch)", text):
            complaints.append(text)

    def open_page(path: str, *, signed_in: bool = True, **options: Any) -> Page:
        options = {"viewport": {"width": 1280, "height": 800}} | options
        context = chromium.new_context(ignore_https_errors=True, base_url=site.url, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.on("console", complain)
        page.on("pageerror", complain)
        if signed_in:
            page.goto("/sign-in")
            page.fill("#email", site.email)
            page.fill("#password", site.password)
            page.press("#password", "Enter")
            page.wait_for_url(lambda url: "sign-in" not in url)
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def eventually(what: str, probe: Callable[[], bool]) -> None:
    """Poll, generously."""
    end = time.monotonic() + PATIENCE / 1000
    while not probe():
        assert time.monotonic() < end, f"still not so: {what}"
        time.sleep(0.05)
