"""Many at once, and death at any moment: one winner per token, and nothing that was acknowledged is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

import wgpy
from edge_agent.contract import Exchange, Token, encode_key
from hub_server.domain.errors import HubError
from hub_server.services.joining import Joining, Request
from tests.hub.whole import whole_hub

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


def request_for(text: str, private_key: bytes, now: float) -> Request:
    token = Token.parse(text)
    exchange = Exchange(private_key, token.hub_key)
    nonce = os.urandom(16)
    proof = exchange.request_proof(token.id, nonce, int(now))
    return Request(text, exchange.public_key, proof, nonce, int(now), 1, "1.0.0", "1.0.0", "v1", None)


@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.long)])
async def test_fifty_keys_redeem_one_token(tmp_path: Path, rounds: int) -> None:
    """A10: in each round exactly one wins, 49 are refused, audited, and one alert is open."""
    limits = {"bootstrap_rate": 10**6, "bootstrap_id_rate": 10**6}
    async with whole_hub(tmp_path, **limits) as whole:
        core = whole.hub.core
        hub_key = bytes.fromhex((whole.settings.data / "wireguard.key").read_text().strip())
        joining = Joining(core, whole.hub.presence, hub_key)
        addresses = set()
        for number in range(rounds):
            invite = await whole.invite(f"round-{number}")
            outcomes: Counter[str] = Counter()

            async def one(text: str, outcomes: Counter[str]) -> None:
                request = request_for(text, bytes(wgpy.PrivateKey.generate()), core.now())
                try:
                    await joining.redeem(request, "192.0.2.1")
                except HubError as refusal:
                    outcomes[f"{refusal.status} {refusal.code}"] += 1
                else:
                    outcomes["200"] += 1

            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(one, invite.token, outcomes)
            assert outcomes == {"200": 1, "409 token_used": 49}
            addresses.add((await whole.row(invite.cluster_id)).address)
        assert len(addresses) == rounds
        database = sqlite3.connect(whole.settings.database_file)
        [[leases]] = database.execute("SELECT count(*) FROM leases WHERE is_held")
        [[alerts]] = database.execute("SELECT count(*) FROM alerts WHERE resolved_at IS NULL")
        [[refused]] = database.execute("SELECT count(*) FROM audit WHERE result = 'token_used'")
        database.close()
        assert (leases, alerts, refused) == (rounds, rounds, 49 * rounds)


class Mortal:
    """A hub process that is killed and started again, and what it has acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "hub"
        self.password = ""
        self.names: dict[str, str | None] = {}  # cluster id to acknowledged name; None: deleted
        self.addresses: dict[str, str] = {}
        self.pending: dict[str, tuple[str, str | None]] = {}  # acts that were sent and not acknowledged
        self.counter = 0

    def start(self) -> None:
        out = (self.folder / "out").open("w+")
        command = [sys.executable, "-m", "hub_server", "serve", "--json", "--data", str(self.data)]
        command += ["--listen", "127.0.0.1:0", "--wireguard-port", "0", "--bootstrap-rate", "1000000"]
        self.process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        end = time.monotonic() + PATIENCE
        while not (text := (self.folder / "out").read_text()).endswith("\n"):
            assert self.process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        out.close()
        told = json.loads(text)
        self.url = told["url"]
        self.password = told.get("admin_password", self.password)
        context = ssl.create_default_context(cafile=str(self.data / "tls/ca.crt"))
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPCookieProcessor(),
            urllib.request.ProxyHandler({}),
        )
        form = urllib.parse.urlencode({"email": "admin@localhost", "password": self.password}).encode()
        self.opener.open(f"{self.url}/sign-in", form, timeout=PATIENCE).close()
        self.csrf = self.call("GET", "/v1/me")["csrf"]
        if "admin_password" in told:  # it is good for choosing another one only
            self.call("POST", "/v1/auth/password", old=self.password, new="correct horse battery staple")
            self.password = "correct horse battery staple"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def call(self, method: str, path: str, **body: Any) -> Any:
        headers = {"Content-Type": "application/json", "X-CSRF-Token": getattr(self, "csrf", "")}
        data = json.dumps(body).encode() if method != "GET" else None
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with self.opener.open(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or "null")

    def act(self, chance: random.Random) -> None:
        """One redemption, renaming or deletion; raises OSError when the hub dies in the middle of it."""
        alive = [one for one, name in self.names.items() if name is not None]
        what = chance.choice(["redeem", "redeem", "rename", "delete"]) if alive else "redeem"
        self.counter += 1
        name = f"c{self.counter}"
        if what == "redeem":
            invite = self.call("POST", "/v1/tenants/default/clusters", name=name)
            self.names[invite["cluster_id"]] = name
            request = request_for(invite["token"], bytes(wgpy.PrivateKey.generate()), time.time())
            answer = self.call(
                "POST", "/v1/edge/bootstrap", token=invite["token"], pubkey=encode_key(request.public_key),
                proof=encode_key(request.proof), nonce=encode_key(request.nonce), ts=request.ts, protocol=1,
                chart_version="1", agent_version="1", kube_version="v1", cluster_uid=None,
            )  # fmt: skip
            self.addresses[invite["cluster_id"]] = answer["address"]
            return
        one = chance.choice(alive)
        before = self.names[one]
        assert before is not None
        if what == "rename":
            self.pending[one] = (before, name)
            self.call("PATCH", f"/v1/clusters/{one}", name=name)
            self.names[one] = name
        else:
            self.pending[one] = (before, None)
            self.call("DELETE", f"/v1/clusters/{one}", confirm_name=before)
            self.names[one] = None
            self.addresses.pop(one, None)
        del self.pending[one]

    def check(self) -> None:
        """Compare what the hub says with what it acknowledged."""
        found: dict[str, dict[str, Any]] = {}
        cursor = ""
        while True:
            page = self.call("GET", f"/v1/tenants/default/clusters?limit=500&cursor={cursor}")
            found |= {row["id"]: row for row in page["items"]}
            cursor = page["next_cursor"]
            if not cursor:
                break
        for one, name in self.names.items():
            if one in self.pending:  # sent and not acknowledged: either is right, half is not
                old, new = self.pending.pop(one)
                now = found[one]["name"] if one in found else None
                assert now in (old, new)
                self.names[one] = now
                if now is None:
                    self.addresses.pop(one, None)
            elif name is None:
                assert one not in found, "a deletion was lost"
            else:
                assert found[one]["name"] == name, "a renaming was lost"
        for one, address in self.addresses.items():
            assert found[one]["address"] == address, "a redemption was lost"
        given = [row["address"] for row in found.values() if row["address"]]
        assert len(given) == len(set(given)), "an address was given twice"
        for one, row in found.items():
            self.names.setdefault(one, row["name"])  # made, but the answer did not arrive


@pytest.mark.parametrize(
    "moments", [4, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3000)])], ids=["few", "many"]
)
def test_killed_at_any_moment_the_hub_keeps_what_it_acknowledged(tmp_path: Path, moments: int) -> None:
    """kill -9 in the middle of redeem, rename and delete: nothing acknowledged is lost, no address given twice."""
    import threading

    chance = random.Random(20261126)
    hub = Mortal(tmp_path)
    hub.start()
    try:
        for _ in range(moments):
            killer = threading.Timer(chance.uniform(0.02, 0.6), hub.kill)
            killer.start()
            try:
                while True:
                    hub.act(chance)
            except (OSError, urllib.error.URLError, json.JSONDecodeError, __import__("http").client.HTTPException):
                killer.join()
            hub.start()
            hub.check()
        done = subprocess.run(
            [sys.executable, "-m", "hub_server", "verify-audit", "--data", str(hub.data), "--json"],
            capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert json.loads(done.stdout)["broken"] == {}, done.stderr
    finally:
        hub.kill()
