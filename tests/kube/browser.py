"""A real browser for a test in another namespace: reads one JSON array per line, `[verb, words...]`, answers one line.

`python -m tests.kube.browser URL FOLDER`. Verbs: goto PATH, fill SELECTOR TEXT, click SELECTOR, text SELECTOR, wait
SELECTOR [TEXT], shot NAME, download SELECTOR FILE, url.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

PATIENCE = 60_000


def main(url: str, folder: str) -> None:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        context = browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 800})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()

        def step(verb: str, *words: Any) -> Any:
            match verb:
                case "goto":
                    page.goto(url + words[0])
                case "fill":
                    page.fill(*words)
                case "click":
                    page.click(*words)
                case "text":
                    return page.locator(words[0]).first.inner_text()
                case "wait":
                    page.locator(words[0]).filter(has_text=words[1] if len(words) > 1 else None).first.wait_for()
                case "shot":
                    page.screenshot(path=str(Path(folder) / f"{words[0]}.png"), full_page=True)
                case "download":
                    with page.expect_download() as download:
                        page.click(words[0])
                    download.value.save_as(words[1])
                case "url":
                    return page.url
                case _:
                    raise ValueError(f"no such verb: {verb}")
            return None

        for line in sys.stdin:
            try:
                answer = {"value": step(*json.loads(line))}
            except Exception as problem:  # told to the test, which decides
                answer = {"error": f"{type(problem).__name__}: {problem}"[:2000]}
                step("shot", "failed")
            print(json.dumps(answer), flush=True)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
