"""The hub and one edge, to look at: `make demo`, or `python -m benchmarks.demo_hub`.

Without privileges and without a cluster, four processes on the loopback interface:

    browser, kubectl -- HTTPS -- daalu-hub -- WireGuard over UDP -- daalu-edge -- HTTP -- a small Kubernetes API

The edge joins by a real invite; `kubectl get nodes` runs through the tunnel. With DEMO_CONTEXT=NAME the edge fronts the
cluster of that context of your kubeconfig, with your rights in it; with DEMO_ONCE=1 the demonstration ends after the
first success.
"""

from __future__ import annotations

import base64
import contextlib
import http.cookiejar
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

_PATIENCE: Final = 60.0
_NAME: Final = "demo"


class DemoError(Exception):
    """The demonstration cannot go on; the text says why."""


class Child:
    """A process of the demonstration; its output goes to a file, whose end is shown if it dies."""

    def __init__(self, name: str, words: list[str], folder: Path, environment: dict[str, str]) -> None:
        """Start it."""
        self.name = name
        self._log = folder / f"{name}.log"
        self._out = folder / f"{name}.out"
        with self._log.open("wb") as log, self._out.open("wb") as out:
            # In a session of its own: Ctrl-C is ours to pass on, in the right order.
            self._process = subprocess.Popen(words, stdout=out, stderr=log, env=environment, start_new_session=True)

    def first_line(self) -> str:
        """What it says when it is ready."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            text = self._out.read_text()
            if "\n" in text:
                return text.partition("\n")[0]
            self.check()
            time.sleep(0.05)
        raise DemoError(f"{self.name} did not get ready in {_PATIENCE:.0f} s:\n{self._tail()}")

    def check(self) -> None:
        """See that it runs."""
        if self._process.poll() is not None:
            raise DemoError(f"{self.name} ended with code {self._process.returncode}:\n{self._tail()}")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Ask it to end, and see that it does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)

    def _tail(self) -> str:
        return "\n".join((self._log.read_text() + self._out.read_text()).splitlines()[-15:])


class Operator:
    """Somebody at the hub: signs in as a browser does, and calls the JSON API."""

    def __init__(self, url: str, ca: Path) -> None:
        """Trust the hub's own CA."""
        self._url = url
        handlers = [
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca))),
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
            urllib.request.ProxyHandler({}),
        ]
        self._jar = handlers[1].cookiejar  # type: ignore[attr-defined] # as made above
        self._opener = urllib.request.build_opener(*handlers)
        self.csrf = ""

    def cookie(self) -> str:
        """The session, for other programs that act for this operator."""
        return "; ".join(f"{one.name}={one.value}" for one in self._jar)

    def sign_in(self, email: str, password: str) -> None:
        """Open a session."""
        form = urllib.parse.urlencode({"email": email, "password": password}).encode()
        with self._opener.open(f"{self._url}/sign-in", form, timeout=30):
            pass
        me = self.call("GET", "/v1/me")
        self.csrf = me["csrf"]
        if me["must_change_password"]:
            own = f"demo {secrets.token_hex(8)}"
            self.call("POST", "/v1/auth/password", old=password, new=own)
            password = own
        self.password = password

    def call(self, method: str, path: str, **body: Any) -> Any:
        """One call of the API."""
        request = urllib.request.Request(
            self._url + path,
            json.dumps(body).encode() if method != "GET" else None,
            {"Content-Type": "application/json", "X-CSRF-Token": self.csrf},
            method=method,
        )
        try:
            with self._opener.open(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as problem:
            raise DemoError(f"{method} {path}: {problem.code} {problem.read().decode()[:500]}") from None


def _own_cluster(context: str, folder: Path) -> list[str]:
    """What the edge needs of a context of the user's kubeconfig."""
    kubectl = _kubectl()
    if kubectl is None:
        raise DemoError("DEMO_CONTEXT needs kubectl in PATH, to read your kubeconfig")
    done = subprocess.run(
        [kubectl, "config", "view", "--minify", "--flatten", "--raw", "--context", context, "-o", "json"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"DEMO_CONTEXT={context}: {done.stderr.strip()}")
    document = json.loads(done.stdout)
    cluster, user = document["clusters"][0]["cluster"], document["users"][0].get("user", {})
    words = ["--api-server", cluster["server"]]
    files = (
        ("--api-ca", cluster.get("certificate-authority-data")),
        ("--api-cert", user.get("client-certificate-data")),
        ("--api-key", user.get("client-key-data")),
    )
    for flag, data in files:
        if data:
            path = folder / flag.strip("-")
            path.touch(0o600)
            path.write_bytes(base64.b64decode(data))
            words += [flag, str(path)]
    token = folder / "account-token"
    token.touch(0o600)
    token.write_text(user.get("token", ""))
    if "exec" in user or "auth-provider" in user:
        raise DemoError(f"the user of {context} signs in by a program: make a ServiceAccount token for it")
    return [*words, "--api-token", str(token) if user.get("token") else ""]


def _kubectl() -> str | None:
    ours = Path(__file__).resolve().parent.parent / ".cache/bin/kubectl-new"
    return shutil.which("kubectl") or (str(ours) if ours.exists() else None)


@contextlib.contextmanager
def running(folder: Path, *, quiet: bool = False) -> Iterator[tuple[str, str, str, Operator, str, list[Child]]]:
    """Run hub, edge and cluster: URL, e-mail, password, the operator, the id of the cluster, the processes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DAALU_", "DEMO_"))}
    # A proxy of the environment is not for the loopback interface.
    environment |= {"PYTHONUNBUFFERED": "1", "no_proxy": "*"}
    children: list[Child] = []
    say = _say if not quiet else lambda _: None

    def start(name: str, *words: str) -> Child:
        child = Child(name, [sys.executable, "-m", *words], folder, environment)
        children.append(child)
        return child

    try:
        say("starting the hub")
        hub = start(
            "hub", "hub_server", "serve", "--json", "--data", str(folder / "hub"), "--listen",
            os.environ.get("DEMO_LISTEN", "127.0.0.1:0"), "--wireguard-port", "0",
            "--bootstrap-rate", os.environ.get("DEMO_RATE", "120"),
        )  # fmt: skip
        if context := os.environ.get("DEMO_CONTEXT"):
            say(f"the edge will front the cluster of context {context}, with your rights there")
            api = _own_cluster(context, folder)
        else:
            say("starting a small Kubernetes API, which is the demonstration's")
            told = json.loads(start("cluster", "benchmarks.cluster").first_line())
            (folder / "account-token").write_text(told["token"])
            api = ["--api-server", told["url"], "--api-token", str(folder / "account-token"), "--api-ca", ""]
        ready = json.loads(hub.first_line())
        ca = folder / "hub/tls/ca.crt"
        operator = Operator(ready["url"], ca)
        operator.sign_in(ready["admin_email"], ready["admin_password"])
        [tenant] = operator.call("GET", "/v1/me")["tenants"]
        say("making an invite, as Add cluster does")
        invite = operator.call("POST", f"/v1/tenants/{tenant['slug']}/clusters", name=_NAME)
        (folder / "token").touch(0o600)
        (folder / "token").write_text(invite["token"])
        edge = [
            "--hub-url", ready["url"], "--hub-ca", str(ca), "--state-dir", str(folder / "edge"),
            "--token-file", str(folder / "token"), "--health-host", "127.0.0.1", "--health-port", "0", *api,
        ]  # fmt: skip
        say("redeeming it, as the bootstrap Job does")
        job = subprocess.run(
            [sys.executable, "-m", "edge_agent", "bootstrap", *edge],
            env=environment, capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
        if job.returncode:
            raise DemoError(f"bootstrap ended with code {job.returncode}: {job.stdout}{job.stderr}")
        say(f"  {job.stdout.strip()}")
        start("edge", "edge_agent", "run", *edge)
        _wait_for_connection(operator, invite["cluster_id"], children, say)
        yield ready["url"], ready["admin_email"], operator.password, operator, invite["cluster_id"], children
    finally:
        for child in reversed(children):
            child.end()


def _wait_for_connection(
    operator: Operator, cluster_id: str, children: list[Child], say: Callable[[str], None]
) -> None:
    shown = ""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        ladder = operator.call("GET", f"/v1/clusters/{cluster_id}/ladder")
        if ladder["known"] != shown:
            shown = ladder["known"]
            say(f"  {shown}")
        if ladder["is_finished"]:
            return
        for child in children:
            child.check()
        time.sleep(0.1)
    raise DemoError(f"not connected after {_PATIENCE:.0f} s: {shown}")


def _get_nodes(operator: Operator, cluster_id: str, folder: Path) -> None:
    """`kubectl get nodes` through the tunnel: with a stock kubectl if there is one, else in the hub's panel."""
    kubectl = _kubectl()
    if kubectl is None:
        _say("no kubectl here: the hub's own panel runs the line")
        answer = operator.call("POST", f"/v1/clusters/{cluster_id}/panel", line="get nodes")
        text, code = answer["output"] or answer["refused"], answer["exit_code"]
    else:
        issued = operator.call("POST", f"/v1/clusters/{cluster_id}/kubeconfigs", ttl=3600)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.touch(0o600)
        kubeconfig.write_text(issued["yaml"])
        _say(f"{kubectl} --kubeconfig {kubeconfig} get nodes")
        done = subprocess.run(
            [kubectl, "--kubeconfig", str(kubeconfig), "--cache-dir", str(folder / "cache"), "get", "nodes"],
            capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "no_proxy": "*"},
        )  # fmt: skip
        text, code = done.stdout + done.stderr, done.returncode
    print(text, flush=True)
    if code:
        raise DemoError(f"kubectl get nodes ended with code {code}")


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Run the demonstration; 0 after a success or Ctrl-C, 1 when it could not be shown."""
    with tempfile.TemporaryDirectory(prefix="daalu-demo-") as name:
        folder = Path(name)
        try:
            with running(folder) as (url, email, password, operator, cluster_id, children):
                _get_nodes(operator, cluster_id, folder)
                if os.environ.get("DEMO_ONCE"):
                    return 0
                _say(f"Look at it: {url}   (the certificate is the hub's own: {folder / 'hub/tls/ca.crt'})")
                _say(f"  e-mail   {email}\n  password {password}\nCtrl-C ends it and removes everything.")
                while True:
                    for child in children:
                        child.check()
                    time.sleep(1)
        except DemoError as problem:
            print(f"demo: {problem}", file=sys.stderr, flush=True)
            return 1
        except KeyboardInterrupt:
            _say("\nending")
            return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
