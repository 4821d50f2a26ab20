"""Pictures of every page in every state, light and dark, wide and narrow: `python -m tests.browser.gallery FOLDER`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import trio
from playwright.sync_api import sync_playwright

from tests.hub import landscape
from tests.hub.whole import Whole, whole_hub
from tests.machine import find_program

WIDTHS = (1280, 320)


def shoot(whole: Whole, paths: dict[str, str], folder: Path, schemes: tuple[str, ...]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program("chromium"), args=["--no-sandbox"])
        for scheme in schemes:
            for width in WIDTHS:
                context = browser.new_context(
                    ignore_https_errors=True,
                    base_url=whole.hub.url,
                    color_scheme=scheme,  # type: ignore[arg-type] # one of the two
                    viewport={"width": width, "height": 800},
                )
                stranger = context.new_page()
                stranger.goto("/sign-in")
                stranger.screenshot(path=folder / f"sign-in-{scheme}-{width}.png")
                cookie: Any = {"name": "__Host-daalu", "value": whole.cookie, "url": whole.hub.url, "secure": True}
                context.add_cookies([cookie])
                page = context.new_page()
                for name, path in paths.items():
                    page.goto(path)
                    page.screenshot(path=folder / f"{name}-{scheme}-{width}.png", full_page=width > 400)
                context.close()
        browser.close()


async def main(folder: Path, schemes: tuple[str, ...] = ("light", "dark")) -> None:
    """Make all pictures."""
    with tempfile.TemporaryDirectory() as place:
        releases = Path(place) / "releases.json"
        releases.write_text(json.dumps([{"version": "1.0.0"}, {"version": "1.0.1", "notes": "https://x.example/1"}]))
        async with whole_hub(Path(place), releases=releases) as whole:
            await trio.to_thread.run_sync(shoot, whole, {"empty": "/t/default/clusters"}, folder, schemes)
            ids = await landscape.paint(whole)
            first = ids["acme-eu-prod"]
            paths = {
                "clusters": "/t/default/clusters",
                "nothing-found": "/t/default/clusters?q=nothing",
                "add": "/t/default/clusters/add",
                "alerts": "/t/default/alerts",
                "settings": "/t/default/settings",
                "channels": "/t/default/settings/channels",
                "profile": "/profile",
                "missing": "/clusters/cl_nothere",
            }
            for tail in ("", "/nodes", "/kubectl", "/kubeconfigs", "/rbac", "/events", "/settings", "/join"):
                paths[f"cluster{tail.replace('/', '-')}"] = f"/clusters/{first}{tail}"
            for name in ("acme-us-prod", "edge-blind", "edge-cloned", "edge-old", landscape.LONG):
                paths[f"cluster-{name[:12]}"] = f"/clusters/{ids[name]}"
            for name in ("lab", "lab-late", "lab-udp", "lab-expired"):
                paths[f"join-{name}"] = f"/clusters/{ids[name]}/join"
            await trio.to_thread.run_sync(shoot, whole, paths, folder, schemes)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    trio.run(main, Path(sys.argv[1]), tuple(sys.argv[2:]) or ("light", "dark"))
