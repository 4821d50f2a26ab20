"""The hub of this repository in a sandbox of its own, and the operator at it: by HTTP, and by a real browser."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kube.images import REPOSITORY
from tests.kube.pki import Authority
from tests.kube.sandbox import PATIENCE, Process, Sandbox, eventually, open_sandbox

# The handbook's own name and ports: what is printed is its command, letter by letter.
NAME = "hub.daalu.io"
EMAIL = "admin@daalu.io"


class Hub:
    """`daalu-hub serve` in a sandbox; it may be stopped and started again on the same data."""

    def __init__(self, sandbox: Sandbox, *, address: str, authority: Authority) -> None:
        self.sandbox = sandbox
        self.data = sandbox.folder / "data"
        self.url = f"https://{NAME}"
        self.ca = authority.certificate_path
        # For this process, which does not know the sandbox's names but may enter its network.
        self._here = f"https://{address}"
        pair = authority.issue("hub", NAME, names=[NAME, address])
        self._argv = [
            sys.executable, "-m", "hub_server", "serve", "--json", "--data", str(self.data), "--public-url", self.url,
            "--listen", f"{address}:443", "--tls-cert", f"{pair}.crt", "--tls-key", f"{pair}.key",
            "--admin-email", EMAIL,
        ]  # fmt: skip
        sandbox.name_hosts({NAME: address})
        sandbox.trust(self.ca)
        self.password = ""
        self.process: Process | None = None
        self._starts = 0
        self._csrf = ""
        self._opener: urllib.request.OpenerDirector | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self._starts += 1
        env = {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
        self.process = process = self.sandbox.spawn(f"hub{self._starts}", *self._argv, env=env)

        def told() -> dict[str, Any]:
            assert process.is_running, process.output[-3000:]
            lines = [json.loads(line) for line in process.output.splitlines() if line.startswith('{"event": "ready"')]
            return lines[0] if lines else {}

        self.password = eventually("the hub is ready", told).get("admin_password", self.password)

    def stop(self, **how: Any) -> None:
        assert self.process is not None
        self.process.stop(**how)

    # --- the operator, by HTTP ---------------------------------------------------------------------------------------

    def sign_in(self) -> None:
        """Open a session."""
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(self.ca)))
        self._opener = urllib.request.build_opener(tls, jar, urllib.request.ProxyHandler({}))
        form = urllib.parse.urlencode({"email": EMAIL, "password": self.password}).encode()
        self._open(urllib.request.Request(f"{self._here}/sign-in", form))
        me = self.call("GET", "/v1/me")
        self._csrf = me["csrf"]
        if me["must_change_password"]:  # the first one is good for nothing else
            own = "correct horse battery staple"
            self.call("POST", "/v1/auth/password", old=self.password, new=own)
            self.password = own

    def _open(self, request: urllib.request.Request) -> bytes:
        opener = self._opener
        assert opener is not None

        def ask() -> bytes:
            with opener.open(request, timeout=PATIENCE) as answer:
                return bytes(answer.read())

        return self.sandbox.inside(ask)

    def call(self, method: str, path: str, **body: Any) -> Any:
        """One call of the JSON API."""
        data = json.dumps(body).encode() if method != "GET" else None
        headers = {"Content-Type": "application/json", "X-CSRF-Token": self._csrf}
        try:
            return json.loads(
                self._open(urllib.request.Request(self._here + path, data, headers, method=method)) or "null"
            )
        except urllib.error.HTTPError as problem:
            raise AssertionError(f"{method} {path}: {problem.code} {problem.read().decode()[:1000]}") from None

    def row(self, cluster_id: str) -> dict[str, Any]:
        """The row of a cluster."""
        return dict(self.call("GET", f"/v1/clusters/{cluster_id}/status"))

    def until_phase(self, cluster_id: str, phase: str, *, limit: float = PATIENCE) -> tuple[dict[str, Any], float]:
        """Wait for a phase; the row, and how many seconds it took."""
        begin = time.monotonic()

        def found() -> dict[str, Any] | None:
            row = self.row(cluster_id)
            return row if row["phase"] == phase else None

        row = eventually(f"the row is {phase}", found, limit=limit, pause=0.05)
        assert row is not None
        return row, time.monotonic() - begin

    def reauthenticate(self) -> None:
        self.call("POST", "/v1/auth/reauthenticate", password=self.password)


class Browser:
    """A chromium inside the hub's sandbox, driven line by line (see `browser.py`)."""

    def __init__(self, sandbox: Sandbox, url: str, shots: Path) -> None:
        import subprocess

        shots.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "tests.kube.browser", url, str(shots)]
        self._process = subprocess.Popen(
            sandbox.argv(*argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**sandbox.env, "PYTHONPATH": str(REPOSITORY), "HOME": str(sandbox.folder)},
        )

    def __call__(self, verb: str, *words: Any) -> Any:
        """One step; what it returns, or its failure as an assertion."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([verb, *words]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the browser is gone"}')
        assert "error" not in answer, f"{verb} {words}: {answer['error']}"
        return answer["value"]

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextlib.contextmanager
def open_hub(*, address: str, authority: Authority) -> Iterator[Hub]:
    """A hub that will be started by the caller, once its cable is there."""
    with open_sandbox("hub") as sandbox:
        hub = Hub(sandbox, address=address, authority=authority)
        try:
            yield hub
        except BaseException:
            sandbox.show_output()
            raise
