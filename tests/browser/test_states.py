"""Every state that `landscape` paints, in chromium: what axe finds, what moves, and deleting by keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, sync_playwright

from hub_server.domain.reasons import Reason
from hub_server.domain.status import Phase
from tests.browser.conftest import PATIENCE
from tests.hub import landscape
from tests.hub.whole import Whole, whole_hub
from tests.machine import find_program

# The driver's pipes are collected in whichever thread comes first, which asyncio warns of; it says nothing of the hub.
pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


async def browse(whole: Whole, work: Callable[[BrowserContext], Any], **options: Any) -> Any:
    """Do something in a browser that is signed in; the hub goes on meanwhile."""

    def run() -> Any:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(find_program("chromium")), args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            size = {"viewport": {"width": 1280, "height": 800}}
            context = browser.new_context(ignore_https_errors=True, base_url=whole.hub.url, **(size | options))
            context.set_default_timeout(PATIENCE)
            cookie: Any = {"name": "__Host-daalu", "value": whole.cookie, "url": whole.hub.url, "secure": True}
            context.add_cookies([cookie])
            try:
                return work(context)
            finally:
                browser.close()

    return await trio.to_thread.run_sync(run)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 320)])
async def test_axe_finds_no_violation_in_any_state(tmp_path: Path, scheme: str, width: int) -> None:
    """A69: each state of rows, ladder, alerts and refusals; nothing is wider than the screen; no script runs amok."""
    async with whole_hub(tmp_path) as whole:
        empty = "/t/default/clusters"
        ids = await landscape.paint(whole)
        first = f"/clusters/{ids['acme-eu-prod']}"
        paths = [empty, f"{empty}?q=nothing", "/t/default/alerts", "/clusters/cl_nothere", f"{first}/nodes"]
        paths += [f"/clusters/{ids[name]}" for name in ids if not name.startswith("lab")]
        paths += [f"/clusters/{ids[name]}/join" for name in ("lab", "lab-late", "lab-udp", "lab-expired")]
        paths += [f"/clusters/{ids['edge-cloned']}/settings", f"{first}/rbac?verb=get&group=&resource=secrets"]

        def look(context: BrowserContext) -> list[str]:
            page, told = context.new_page(), []
            page.on("dialog", lambda dialog: told.append(f"a script ran: {dialog.message}"))
            page.on("pageerror", lambda error: told.append(str(error)))
            for path in paths:
                page.goto(path)
                for one in Axe().run(page).response["violations"]:
                    told.append(f"{path}: {one['id']}: {[node['html'][:200] for node in one['nodes'][:2]]}")
                excess = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                if excess > 0:
                    told.append(f"{path} is {excess} px too wide")
            return told

        assert await browse(whole, look, color_scheme=scheme, viewport={"width": width, "height": 800}) == []


async def test_deleting_by_keyboard_alone(tmp_path: Path) -> None:
    """A36, A69: from the list through the settings to a list without it; the button wakes up with the right name."""
    async with whole_hub(tmp_path) as whole:
        await landscape.paint(whole)

        def work(context: BrowserContext) -> list[str]:
            page = context.new_page()
            page.goto("/t/default/clusters?q=acme-asia")
            page.keyboard.press("j")
            page.keyboard.press("Enter")
            page.wait_for_url("**/clusters/cl_*")
            page.get_by_role("link", name="Settings").last.focus()
            page.keyboard.press("Enter")
            page.wait_for_url("**/settings")
            page.locator("#confirm_name").focus()
            page.keyboard.type("acme-as")
            was_asleep = page.locator("form[data-confirm] button").is_disabled()
            page.keyboard.type("ia")
            page.keyboard.press("Tab")
            page.keyboard.type(whole.password)
            page.keyboard.press("Enter")
            page.wait_for_url("**/t/default/clusters")
            return [str(was_asleep), *page.locator("[data-open]").all_inner_texts()]

        was_asleep, *names = await browse(whole, work)
        assert was_asleep == "True"
        assert "acme-us-prod" in names
        assert "acme-asia" not in names


async def test_open_pages_follow_what_happens(tmp_path: Path) -> None:
    """A18, A38, A70 in small: list, badge and ladder change by themselves, and nothing that is folded open folds."""
    async with whole_hub(tmp_path) as whole:
        ids = await landscape.paint(whole)
        presence, now = whole.hub.presence, whole.hub.core.now()
        token = trio.lowlevel.current_trio_token()

        def happen(name: str, phase: Phase, reason: Reason | None = None, **facts: Any) -> None:
            row = presence.rows[ids[name]]
            landscape.put(row, phase, now, ago=1, reason=reason, **facts)
            whole.hub.core.live.publish(whole.tenant_id, "cluster", row.id)

        def work(context: BrowserContext) -> None:
            listed, waiting = context.new_page(), context.new_page()
            listed.goto("/t/default/clusters")
            waiting.goto(f"/clusters/{ids['lab-udp']}/join")
            waiting.get_by_text("but no WireGuard packet has arrived").wait_for()
            trio.from_thread.run_sync(
                happen, "acme-eu-prod", Phase.DISCONNECTED, Reason.HEARTBEAT_LOST, trio_token=token
            )
            row = listed.locator(f"#r-{ids['acme-eu-prod']}")
            row.get_by_text("disconnected").wait_for()
            listed.locator("#summary").get_by_text("7 need attention").wait_for()

            def joined() -> None:
                happen("lab-udp", Phase.CONNECTED, api_state="ok", api_at=now)

            trio.from_thread.run_sync(joined, trio_token=token)
            waiting.get_by_role("link", name="Run kubectl get nodes").wait_for()
            listed.locator(f"#r-{ids['lab-udp']}").locator(".word").get_by_text("connected", exact=True).wait_for()

        await browse(whole, work)
