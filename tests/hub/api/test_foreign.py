"""Values that no person would send: each is a clean refusal with its field, whatever the operation; never a fault."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from hub_server.api.routes import ROUTES
from tests.hub.clocked import clocked_hub

TENANT = "/v1/tenants/default"
HUGE = b"1" + b"0" * 400
CASES: list[tuple[str, str, bytes, str]] = [
    ("PATCH", "{cluster}", b'{"muted_until": 1e12}', "muted_until"),
    ("PATCH", "{cluster}", b'{"muted_until": -1}', "muted_until"),
    ("PATCH", "{cluster}", b'{"muted_until": NaN}', ""),
    ("PATCH", "{cluster}", b'{"muted_until": ' + HUGE + b"}", ""),
    ("PATCH", "{cluster}", b'{"keepalive": 1e400}', ""),
    ("PATCH", "{cluster}", b'{"keepalive": 25.5}', "keepalive"),
    ("PATCH", "{cluster}", b'{"name": "a\\ud800"}', "name"),
    ("POST", f"{TENANT}/clusters", b'{"name": "\\udfff"}', "name"),
    ("POST", f"{TENANT}/clusters", b'{"name": "a", "name": "b"}', "name"),
    ("POST", f"{TENANT}/tokens", b'{"name": "x", "role": "viewer", "scopes": ["see"], "ttl": NaN}', ""),
    ("POST", f"{TENANT}/tokens", b'{"name": "x", "role": "viewer", "scopes": ["see"], "ttl": 1e18}', "ttl"),
    ("POST", f"{TENANT}/tokens", b'{"name": "x\\u202e", "role": "viewer", "scopes": ["see"]}', "name"),
    ("POST", f"{TENANT}/tokens", b'{"name": "x", "role": "viewer", "scopes": ["s\\ud800"]}', "scopes[0]"),
    ("POST", f"{TENANT}/members", b'{"email": "a\\ud800@b", "role": "viewer"}', "email"),
    ("GET", f"{TENANT}/clusters?limit=" + "0" * 5000, b"", "limit"),
    ("GET", f"{TENANT}/clusters?limit=0000001", b"", "limit"),
    ("GET", f"{TENANT}/clusters?limit=%D9%A5", b"", "limit"),
    ("GET", f"{TENANT}/clusters?cursor=" + "9" * 5000, b"", "cursor"),
]


@pytest.mark.parametrize(("method", "path", "body", "field"), CASES, ids=range(len(CASES)))
async def test_what_is_no_value_is_refused_with_its_field(
    tmp_path: Path, method: str, path: str, body: bytes, field: str
) -> None:
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        path = path.replace("{cluster}", f"/v1/clusters/{await hub.joined('acme')}")
        answer = await client.request(method, path, content=body)
        assert answer.status_code in (400, 422), answer.text
        assert answer.json().get("field", "") == field
        assert (await client.get(f"{TENANT}/clusters")).status_code == 200


@pytest.mark.parametrize("name", ["If-Match", "Idempotency-Key"])
async def test_headers_are_read_like_all_else(tmp_path: Path, name: str) -> None:
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        cluster = await hub.joined("acme")
        method, path = ("PATCH", f"/v1/clusters/{cluster}") if name == "If-Match" else ("POST", f"{TENANT}/clusters")
        answer = await client.request(method, path, json={"name": "other"}, headers={name: "7" * 5000})
        assert (answer.status_code, answer.json()["field"]) == (422, name)


async def test_a_last_event_id_without_end_is_refused(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub, hub.client(signed_in=True) as client:
        answer = await client.get("/t/default/clusters/live", headers={"Last-Event-ID": "1" * 5000})
        assert answer.status_code == 422


def strange(rng: random.Random, depth: int = 0) -> Any:
    """Some JSON value."""
    plain = [
        None,
        True,
        0,
        -1,
        1.5,
        2**63,
        10**39,
        1e300,
        "",
        "a",
        "\x00",
        "\u202e",
        "x" * 9000,
        "viewer",
        "see",
        "<b>",
    ]
    match rng.randrange(6 if depth < 3 else 4):
        case 4:
            return [strange(rng, depth + 1) for _ in range(rng.randrange(4))]
        case 5:
            return {rng.choice(FIELDS): strange(rng, depth + 1) for _ in range(rng.randrange(4))}
        case _:
            return rng.choice(plain)


FIELDS = [
    "name", "subnet_id", "keepalive", "muted_until", "identity_mode", "confirm_name", "line", "ttl", "stream", "custom",
    "presets", "namespaces", "apiGroups", "resources", "verbs", "namespace", "slug", "cidr", "email", "role", "url",
    "kinds", "scopes", "password", "old", "new", "active",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
async def test_no_operation_faults_whatever_it_is_sent(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        ids = {"tenant": "default", "cluster": await hub.joined("acme")}
        for _ in range(8):
            for entry in ROUTES:
                path = re.sub(
                    r"{(\w+)}", lambda found: ids.get(found[1], rng.choice(["x", "%00", "%ff", "é"])), entry.path
                )
                query = {name: str(strange(rng, 3))[:50] for name in ("limit", "cursor", "phase", "sort", "open")}
                asked = query if rng.random() < 0.5 else {}
                body = json.dumps({name: strange(rng) for name in rng.sample(FIELDS, 8)}).encode()
                if rng.random() < 0.3:
                    body = rng.randbytes(50)
                answer = await client.request(entry.method, path, params=asked, content=body)
                assert answer.status_code < 500 or answer.status_code in (502, 503), (entry, body, answer.text)
