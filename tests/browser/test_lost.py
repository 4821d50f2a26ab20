"""What a page does when the hub is away, dies without a word, or comes back: it says so, and keeps what was typed."""

from __future__ import annotations

import re
import signal

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import PATIENCE, Open, Site

pytestmark = pytest.mark.needs("chromium")

expect.set_options(timeout=PATIENCE)


def test_a_hub_that_falls_silent_is_told(site: Site, visit: Open) -> None:
    """The connections stay open and nothing comes: the page says so; a search waits, and says for what; all heals."""
    page = visit("/t/default/clusters")
    expect(page.locator(f"#r-{site.cluster_id}")).to_be_visible()
    hub = site.child("hub")
    hub.send(signal.SIGSTOP)
    try:
        page.locator("#q").fill("nothing like that")
        expect(page.locator("#waits")).to_contain_text("Waiting for the hub")
        expect(page.locator("#lost")).to_contain_text("No word from the hub")
    finally:
        hub.send(signal.SIGCONT)
    expect(page.locator("#lost")).to_be_hidden()
    expect(page.locator("#waits")).to_be_hidden()
    expect(page.locator("#list")).to_contain_text("No cluster fits that search")
    page.locator("#q").fill("demo")
    expect(page.locator(f"#r-{site.cluster_id}")).to_be_visible()


def test_a_request_that_fails_says_so_and_keeps_what_was_typed(site: Site, visit: Open) -> None:
    """Search and *Generate invite* without a connection; then a reload, which wipes nothing but passwords."""
    page = visit("/t/default/clusters")
    page.context.set_offline(True)
    page.locator("#q").fill("demo")
    expect(page.locator("#failed")).to_contain_text("The hub does not answer")
    page.context.set_offline(False)
    page.goto("/t/default/clusters/add")
    page.fill("#name", "typed-before")
    page.context.set_offline(True)
    page.get_by_role("button", name="Generate invite").click()
    expect(page.locator("#failed")).to_contain_text("What you typed is still here")
    expect(page.locator("#name")).to_have_value("typed-before")
    page.context.set_offline(False)
    page.evaluate("document.dispatchEvent(new Event('reload'))")
    expect(page.locator("#left")).to_contain_text("Load it again")
    page.reload()
    expect(page.locator("#name")).to_have_value("typed-before")
    page.get_by_role("button", name="Generate invite").dblclick()
    expect(page.locator("#command")).to_contain_text("helm install")
    assert page.evaluate("document.activeElement.textContent") == "Run this against typed-before"


def test_a_session_that_ended_mid_form(site: Site, visit: Open) -> None:
    """The form is sent without one: a whole page asks to sign in, and offers what was typed."""
    page = visit("/t/default/clusters/add")
    page.fill("#name", "kept-name")
    page.context.clear_cookies()
    page.get_by_role("button", name="Generate invite").click()
    expect(page.locator("h1")).to_have_text("Sign in")
    expect(page.locator("nav")).to_have_count(0)
    page.fill("#email", site.email)
    page.fill("#password", site.password)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Send it now?")
    expect(page.locator("dl")).to_contain_text("kept-name")
    page.get_by_role("button", name="Send it now").click()
    expect(page.locator("#command")).to_contain_text("helm install")
    expect(page).to_have_url(re.compile("/clusters/add$"))


@pytest.mark.parametrize("width", [320, 1280])
def test_everything_is_within_the_screen(site: Site, visit: Open, width: int) -> None:
    """Sign-in stands in the middle; tabs are all to be seen; the panel's field has room for a command."""
    page = visit("/sign-in", signed_in=False, viewport={"width": width, "height": 800})
    box = page.locator(".card").bounding_box()
    assert box is not None
    assert abs(box["x"] * 2 + box["width"] - width) <= 2
    page = visit(f"/clusters/{site.cluster_id}/kubectl", viewport={"width": width, "height": 800})
    for tab in page.locator(".tabs a").all():
        box = tab.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    box = page.locator("#line").bounding_box()
    assert box is not None
    assert box["width"] >= 150
