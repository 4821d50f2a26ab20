"""The pages in chromium: no violation that axe finds, the wizard by keyboard alone, live rows, what an edge may not do.

Over the demonstration: a real hub, a real edge, a small Kubernetes API, each in a process of its own.
"""

from __future__ import annotations

import re
import signal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import PATIENCE, Open, Site

pytestmark = pytest.mark.needs("chromium")

expect.set_options(timeout=PATIENCE)
PAGES = (
    "/t/default/clusters",
    "/t/default/clusters/add",
    "/clusters/{}",
    "/clusters/{}/join",
    "/clusters/{}/nodes",
    "/clusters/{}/kubectl",
    "/clusters/{}/kubeconfigs",
    "/clusters/{}/rbac",
    "/clusters/{}/events",
    "/clusters/{}/settings",
    "/t/default/alerts",
    "/t/default/settings",
    "/t/default/settings/channels",
    "/profile",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_axe_finds_no_violation(site: Site, visit: Open, scheme: str, width: int) -> None:
    """A18, A20, A69: contrast, names, roles, order of headings; nothing wider than the screen."""
    page = visit("/sign-in", signed_in=False, color_scheme=scheme, viewport={"width": width, "height": 800})
    found = {"/sign-in": Axe().run(page).response["violations"]}
    page = visit("/profile", color_scheme=scheme, viewport={"width": width, "height": 800})
    for template in PAGES:
        path = template.format(site.cluster_id)
        page.goto(path)
        found[path] = Axe().run(page).response["violations"]
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{path} is {overflow} px too wide at {width}"
    told = [
        f"{path}: {one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for path, violations in found.items()
        for one in violations
    ]
    assert told == []


def test_the_wizard_by_keyboard_alone(site: Site, visit: Open) -> None:
    """A6, A8, A11, A38, A69: from list to printed command without a mouse; *Copy* gives the same octets."""
    page = visit("/t/default/clusters")
    page.get_by_role("link", name="Add cluster").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_be_focused()
    page.keyboard.type("by-keyboard")
    page.keyboard.press("Enter")
    command = page.locator("#command")
    expect(command).to_be_visible()
    expect(page).to_have_url(re.compile(r"/clusters/cl_\w+/join$"))
    expect(page.locator("#waiting")).to_contain_text("The token has not been used yet")
    shown = command.inner_text()
    assert shown.startswith("helm install daalu-edge ")
    page.locator("[data-copy=command]").press("Enter")
    expect(page.locator("#said")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == shown
    page.reload()
    expect(page.locator("#command")).to_have_count(0)
    expect(page.locator("#waiting")).to_be_visible()


def test_keys_move_through_the_list(site: Site, visit: Open) -> None:
    page = visit("/t/default/clusters")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.locator("[data-open]").first).to_be_focused()
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("#q").fill("demo")
    expect(page.locator("[data-row]")).to_have_count(1)
    page.locator("#q").fill("nothing like that")
    expect(page.locator("#list")).to_contain_text("No cluster fits that search")


def test_the_panel(site: Site, visit: Open) -> None:
    """A21: the table, the history, a refusal in its place, the API server's words with a link that mends them."""
    page = visit(f"/clusters/{site.cluster_id}/kubectl")
    page.fill("#line", "get nodes")
    page.keyboard.press("Enter")
    expect(page.locator("#output")).to_contain_text("demo-1")
    page.fill("#line", "get nodes | sh")
    page.keyboard.press("Enter")
    expect(page.locator("#out")).to_contain_text("Nothing was sent to the cluster")
    page.fill("#line", "")
    page.locator("#line").press("ArrowUp")
    expect(page.locator("#line")).to_have_value("get nodes | sh")


def test_a_kubeconfig_is_downloaded_and_revoked(site: Site, visit: Open) -> None:
    page = visit(f"/clusters/{site.cluster_id}/kubeconfigs")
    page.fill("#password", "not the password")
    page.get_by_role("button", name="Download").click()
    expect(page.locator("main").get_by_role("alert")).to_contain_text("password is wrong")
    page.fill("#password", site.password)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert re.fullmatch(r"default-demo-localhost-\d+\.kubeconfig", download.value.suggested_filename)
    expect(page.locator("main").get_by_role("status").first).to_contain_text("The kubeconfig was downloaded")
    expect(page.locator("#password")).to_have_value("")
    page.get_by_role("button", name="Revoke").first.click()
    expect(page.locator("table")).to_contain_text("revoked")


def test_pages_work_without_scripts(site: Site, visit: Open) -> None:
    """A69: everything but live updates."""
    page = visit("/t/default/clusters", java_script_enabled=False)
    page.fill("#q", "demo")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="demo").first.click()
    expect(page.locator("h1")).to_have_text("demo")
    page.goto(f"/clusters/{site.cluster_id}/kubectl")
    page.fill("#line", "get nodes")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#output")).to_contain_text("demo-1")


@pytest.mark.parametrize("place", ["/t/default/clusters", "/clusters/{}"])
@pytest.mark.parametrize("how", ["removed", "deactivated"])
def test_an_open_page_leads_away_when_nobody_may_see_it_any_more(site: Site, visit: Open, how: str, place: str) -> None:
    call, email, own = site.operator.call, f"{how}-{len(place)}@example.com", "a password of my own"
    call("POST", "/v1/auth/reauthenticate", password=site.password)
    made = call("POST", "/v1/tenants/default/members", email=email, role="viewer")
    page = visit("/sign-in", signed_in=False)
    page.fill("#email", email)
    page.fill("#password", made["password"])
    page.press("#password", "Enter")
    page.fill("#old", made["password"])
    page.fill("#new", own)
    page.fill("#again", own)
    page.press("#again", "Enter")
    expect(page.locator(".note.ok")).to_be_visible()
    page.goto(place.format(site.cluster_id))
    expect(page.locator("h1")).to_be_visible()
    user = made["member"]["user_id"]
    if how == "removed":
        call("DELETE", f"/v1/tenants/default/members/{user}")
        expect(page.locator("h1")).to_have_text("Not found")
    else:
        call("PATCH", f"/v1/accounts/{user}", active=False)
        expect(page.locator("h1")).to_have_text("Sign in")
        assert "next=" in page.url


def test_a_change_reaches_open_pages_by_itself(site: Site, visit: Open) -> None:
    """A18 and A30: the edge is stopped and goes on; list and page follow without a reload. The last test: it ends."""
    listed, opened = visit("/t/default/clusters"), visit(f"/clusters/{site.cluster_id}")
    row = listed.locator(f"#r-{site.cluster_id}")
    expect(row).to_contain_text("connected")
    edge = site.child("edge")
    edge.send(signal.SIGSTOP)
    try:
        expect(row).to_contain_text("disconnected")
        expect(row).to_contain_text("fell silent")
        expect(opened.locator("#head")).to_contain_text("HeartbeatLost")
    finally:
        edge.send(signal.SIGCONT)
    expect(row).not_to_contain_text("disconnected")
    expect(row.locator(".word")).to_have_text("connected")
    expect(opened.locator("#head .word")).to_have_text("connected")
