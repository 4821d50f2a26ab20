"""The pages in every state of `landscape`, as a browser without scripts gets them."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import httpx
import pytest

from hub_server.domain.roles import Role
from hub_server.domain.status import Phase
from hub_server.web import render
from hub_server.web.routes import ACT, READ
from tests.hub import landscape
from tests.hub.test_pages import get, post
from tests.hub.whole import Whole, whole_hub


def text_of(page: str) -> str:
    """What a person reads, roughly."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


async def test_a_tenant_without_clusters_has_a_working_product(tmp_path: Path) -> None:
    """A1: every page answers, the list invites, and nothing speaks of a cluster that is not there."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        page = await get(client, "/t/default/clusters")
        assert "Reach a private cluster without opening a port" in page
        assert page.count('href="/t/default/clusters/add"') == 1
        for tail in ("alerts", "settings", "settings/clusters", "settings/channels", "clusters/add"):
            await get(client, f"/t/default/{tail}")
        assert "No alert, now or before" in await get(client, "/t/default/alerts")
        assert 'class="count"' not in page
        assert (await client.get("/")).headers["location"] == "/t/default/clusters"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "give the cluster a name"),
        ("a" * 64, "at most 63 characters; this one has 64"),
        ("acme_eu", "letters, digits"),
        ("-acme", "letters, digits"),
        ("<b>acme</b>", "letters, digits"),
        ("ACME-EU-PROD", "there is a cluster ACME-EU-PROD in this tenant already"),
    ],
)
async def test_an_error_of_the_name_is_tied_to_its_field(tmp_path: Path, name: str, words: str) -> None:
    """A6: the error stands at the field, what was typed stays, nothing is made."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        await whole.invite("acme-eu-prod")
        answer = await post(client, whole, "/t/default/clusters/add", 422, name=name)
        [field] = re.findall(r'<input[^>]* id="name"[^>]*>', answer.text)
        assert 'aria-invalid="true"' in field
        assert 'aria-describedby="name-error"' in field
        assert html.escape(name) in field
        [error] = re.findall(r'id="name-error">([^<]*)', answer.text)
        assert name == "" or words in html.unescape(error)
        assert "dle_" not in answer.text
        assert len(whole.hub.presence.rows) == 1


@pytest.mark.parametrize("cidr", ["10.1.2.3/24", "8.8.8.0/24", "10.0.0.0/31", "100.96.0.0/25", "nonsense"])
async def test_an_error_of_the_range_is_tied_to_its_field(tmp_path: Path, cidr: str) -> None:
    """A7: malformed, public, too small, overlapping; the default needs nothing else, another one can be chosen."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        page = await get(client, "/t/default/clusters/add")
        assert re.search(r'<option value="[^"]+">100\.96\.0\.0/24 \(default\)', page)
        before = await whole.services.tenants.subnets(whole.admin, whole.tenant_id)
        answer = await post(client, whole, "/t/default/clusters/add", 422, name="acme", cidr=cidr)
        assert re.search(r'id="cidr-error">[^<]{10,}', answer.text)
        assert await whole.services.tenants.subnets(whole.admin, whole.tenant_id) == before
        assert not whole.hub.presence.rows
        answer = await post(client, whole, "/t/default/clusters/add", 200, name="acme", cidr="10.20.0.0/24")
        assert 'id="command"' in answer.text


async def test_the_list_in_words(tmp_path: Path) -> None:
    """A18, A44: each status by a word, a since and a reason; the colour only repeats it. Search, filter, sort."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        ids = await landscape.paint(whole)
        page = await get(client, "/t/default/clusters")
        rows = {
            found[1]: text_of(found[0]) for found in re.finditer(r'<tr role="row" id="r-([^"]+)".*?</tr>', page, re.S)
        }
        assert len(rows) == len(ids)
        for name, words in {
            "acme-eu-prod": r"^connected for 3 d acme-eu-prod 100\.64\.0\.2 5/5 v1\.36\.3 1\.0\.0 \d+ s \d+ s$",
            "acme-us-prod": r"^disconnected 4 min the edge fell silent without a goodbye · alert in 1\d min acme-us",
            "acme-asia": r"^reconnecting 1\d s the edge fell silent",
            "lab": r"^awaiting handshake invite expires in 59:\d\d lab( \u2013){6}$",
            "lab-udp": r"^awaiting handshake the token was redeemed, but no WireGuard packet has arrived",
            "lab-expired": r"^awaiting handshake the token was not used within its hour",
            "edge-blind": r"^connected for 3 d tunnel up, API server unreachable from the edge pod: ECONNREFUSED",
            "edge-gone": r"^disconnected 2 h the edge said goodbye \(uninstalled\) 1 alert",
            "edge-cloned": r"^blocked 5 min joined as cluster 6f1c…a, now comes from 91be…b",
        }.items():
            assert re.search(words, rows[ids[name]]), (name, rows[ids[name]])
        assert "4 connected · 6 need attention · 12 in all" in text_of(page)
        order = list(rows)
        assert order.index(ids["edge-cloned"]) < order.index(ids["acme-us-prod"]) < order.index(ids["acme-eu-prod"])
        for query, count in (("q=acme", 3), ("q=100.64.0.2", 1), ("status=disconnected", 2), ("q=edge+blocked", 1)):
            found = await get(client, f"/t/default/clusters?{query}")
            assert found.count("data-row") == count, query
        await get(client, "/t/default/clusters?sort=-name&size=20&status=nonsense&cursor=")
        found = await client.get("/t/default/clusters?q=lab", headers={"HX-Request": "true"})
        assert found.text.lstrip().startswith('<div id="list">')


async def test_what_an_edge_says_is_text(tmp_path: Path) -> None:
    """A20, A65: markup in node names, versions and events is shown, never obeyed; and the pages stay small."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        ids = await landscape.paint(whole)
        first = f"/clusters/{ids['acme-eu-prod']}"
        old = f"/clusters/{ids['edge-old']}"
        for path in ("/t/default/clusters", old, f"{first}/nodes", f"{first}/events", f"{first}/kubectl"):
            page = await get(client, path)
            assert "<img" not in page, path
            assert landscape.HOSTILE in html.unescape(page), path
        assert landscape.LONG in await get(client, f"/clusters/{ids[landscape.LONG]}")


async def test_fifty_rows_are_a_small_page(tmp_path: Path) -> None:
    """pages.md: HTML under 60 KB at 50 rows, one style sheet; files may be kept for ever, pages never."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        await landscape.many(whole, 60)
        answer = await client.get("/t/default/clusters")
        assert answer.text.count("data-row") == 50
        assert len(answer.content) < 60_000
        assert answer.headers["cache-control"] == "no-store"
        assert "Next page" in answer.text
        files = re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text)
        assert len(files) == 5
        for file in files:
            found = await client.get(html.unescape(file))
            assert found.status_code == 200
            assert "immutable" in found.headers["cache-control"]
        assert not re.search(r'(?:href|src)="(?:https?:)?//', answer.text), "nothing comes from elsewhere"


async def test_waiting_has_words_for_each_length(tmp_path: Path) -> None:
    """A38: at 30 s, 2 min and 5 min, below what the hub itself knows, for each hop that can hang."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        ids = await landscape.paint(whole)
        now, rows = whole.hub.core.now(), whole.hub.presence.rows

        async def waiting(name: str) -> str:
            return text_of(await get(client, f"/clusters/{ids[name]}/join"))

        row = rows[ids["lab"]]
        for ago, there, absent in (
            (5, [], ["can take a minute", "443/tcp", "What it usually is"]),
            (31, ["pulling the image and starting the Job can take a minute"], ["443/tcp", "What it usually is"]),
            (125, ["may reach the hub on 443/tcp"], ["can take a minute", "What it usually is"]),
            (305, ["443/tcp", "What it usually is"], []),
        ):
            row.invited_at = now - ago
            text = await waiting("lab")
            assert "The token has not been used yet" in text
            for words in there:
                assert words in text, (ago, words)
            for words in absent:
                assert words not in text, (ago, words)
        assert text.index("Egress firewall.") < text.index("Bootstrap Job failed.") < text.index("Token expired.")
        assert "kubectl -n daalu-edge get jobs" in text
        row.hello = {"job": "daalu-edge-bootstrap-1a2b3c4d"}
        assert "logs job/daalu-edge-bootstrap-1a2b3c4d" in await waiting("lab")

        row = rows[ids["lab-udp"]]
        assert "The token was redeemed, but no WireGuard packet has arrived." in await waiting("lab-udp")
        row.redeemed_at, row.invited_at = now - 200, now - 300
        assert "Look whether the cluster may send UDP to" in await waiting("lab-udp")
        row.first_packet_at = now - 130
        text = await waiting("lab-udp")
        assert "Handshakes arrive but are never confirmed" in text
        assert "run the bootstrap job again and look at the secret" in text.lower()
        text = await waiting("edge-blind")
        assert "The tunnel is up; the edge pod does not reach its API server: ECONNREFUSED." in text
        assert "Run kubectl get nodes" in await waiting("acme-eu-prod")


async def test_an_update_is_offered_with_its_command(tmp_path: Path) -> None:
    """A34: only where the edge is older; version, notes and the exact command."""
    releases = tmp_path / "releases.json"
    releases.write_text(json.dumps([{"version": "1.0.1", "notes": "https://notes.example/1.0.1"}]))
    async with whole_hub(tmp_path, releases=releases) as whole, whole.client(signed_in=True) as client:
        ids = await landscape.paint(whole)
        row = whole.hub.presence.rows[ids["acme-eu-prod"]]
        for version, is_offered in (("0.9.0", True), ("1.0.1", False), ("1.0.2", False), (None, False), ("x", False)):
            row.chart_version = version
            page = await get(client, f"/clusters/{row.id}")
            assert ("Available update: 1.0.1" in page) is is_offered, version
            if is_offered:
                assert "helm upgrade daalu-edge oci://ghcr.io/daalu/charts/daalu-edge --version 1.0.1" in page
                assert 'href="https://notes.example/1.0.1"' in page
        assert "available update</span> 1.0.1" in await get(client, "/t/default/clusters")


async def test_an_alert_is_acknowledged(tmp_path: Path) -> None:
    """A31 as people see it: the badge, the alert, who looks into it."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        ids = await landscape.paint(whole)
        page = await get(client, "/t/default/alerts")
        assert "2 open" in text_of(page)
        actions = re.findall(r'action="(/t/default/alerts/[^"]+/acknowledge)"', page)
        assert len(actions) == 2
        for action in actions:
            await post(client, whole, action)
        page = await get(client, "/t/default/alerts")
        assert text_of(page).count("seen by admin@localhost") == 2
        assert "/acknowledge" not in page
        assert 'class="count"' in await get(client, f"/clusters/{ids['acme-eu-prod']}"), "seen is not mended"


async def test_a_new_invite_makes_the_one_before_worthless(tmp_path: Path) -> None:
    """A40, A8 as people see it: another token, shown once; the row is not disturbed."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        first = await whole.invite("acme")
        answer = await post(client, whole, f"/clusters/{first.cluster_id}/invite", 200)
        tokens = re.findall(r"dle_[a-z0-9_]+", answer.text)
        assert len(tokens) == 1
        assert tokens[0] != first.token
        assert "dle_" not in await get(client, f"/clusters/{first.cluster_id}/join")
        row = whole.hub.presence.rows[first.cluster_id]
        landscape.settle(row, 1, whole.hub.core.now())
        answer = await post(client, whole, f"/clusters/{first.cluster_id}/invite", 200)
        assert row.status.phase is Phase.CONNECTED


async def test_deleting_needs_the_name_and_the_password(tmp_path: Path) -> None:
    """A36: each error at its field; then the row is gone."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        ids = await landscape.paint(whole)
        page = f"/clusters/{ids['acme-us-prod']}"
        answer = await post(client, whole, f"{page}/delete", 422, confirm_name="acme", password=whole.password)
        assert re.search(r'id="confirm-error">type the name of the cluster', answer.text)
        answer = await post(client, whole, f"{page}/delete", 422, confirm_name="acme-us-prod", password="wrong")
        assert 'id="password-delete-error"' in answer.text
        await post(client, whole, f"{page}/delete", confirm_name="acme-us-prod", password=whole.password)
        await get(client, page, 404)
        assert "acme-us-prod" not in await get(client, "/t/default/clusters")


async def test_a_password_is_changed_and_sessions_are_ended(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        new = "correct horse battery"
        for fields, where in (
            ({"old": whole.password, "new": new, "again": "other"}, "again"),
            ({"old": whole.password, "new": "short", "again": "short"}, "new"),
            ({"old": "wrong", "new": new, "again": new}, "old"),
        ):
            answer = await post(client, whole, "/profile/password", 422, **fields)
            assert f'id="{where}-error"' in answer.text
        async with whole.client() as other:
            form = {"email": "admin@localhost", "password": whole.password}
            answer = await other.post("/sign-in", data=form)
            cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
            assert (await other.get("/t/default/clusters", headers=cookie)).status_code == 200
            await post(client, whole, "/profile/password", old=whole.password, new=new, again=new)
            assert (await other.get("/t/default/clusters", headers=cookie)).status_code == 303
            form["password"] = new
            answer = await other.post("/sign-in", data=form)
            cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
            page = await get(client, "/profile?saved=1")
            [end] = re.findall(r'action="(/profile/sessions/[^"]+/end)"', page)
            await post(client, whole, end)
            assert (await other.get("/t/default/clusters", headers=cookie)).status_code == 303
        await post(client, whole, "/sign-out")
        assert (await client.get("/t/default/clusters")).status_code == 303


async def test_a_webhook_is_added_tested_and_removed(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        page = "/t/default/settings/channels"
        answer = await post(client, whole, page, 422, name="on call", url="ftp://hooks.example.com")
        assert 'id="url-error"' in answer.text
        answer = await post(client, whole, page, 200, name="on call", url="https://hooks.example.com/daalu")
        [secret] = re.findall(r'<pre id="secret">([^<]+)</pre>', answer.text)
        shown = await get(client, page)
        assert secret not in shown
        [channel] = await whole.services.channels.list(whole.admin, whole.tenant_id)
        await post(client, whole, f"{page}/{channel.id}/test")
        await post(client, whole, f"{page}/{channel.id}/delete")
        assert "hooks.example.com/daalu" not in text_of(await get(client, page))


def addresses(paths: tuple[tuple[str, object], ...], whole: Whole, cluster_id: str) -> list[str]:
    known = {"tenant": "default", "cluster_id": cluster_id}
    return [re.sub(r"\{(\w+)\}", lambda name: known.get(name[1], "nothing"), path) for path, _ in paths]


async def test_every_address_asks_who_is_there(tmp_path: Path) -> None:
    """A67 of what there is: without a session nothing is shown or done; a form without its field does nothing."""
    async with whole_hub(tmp_path) as whole, whole.client() as stranger, whole.client(signed_in=True) as client:
        cluster_id = (await whole.invite()).cluster_id
        for address in addresses(READ, whole, cluster_id):
            answer = await stranger.get(address)
            assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in"), address
        csrf = client.headers.pop("X-CSRF-Token")
        for address in addresses(ACT, whole, cluster_id):
            assert (await stranger.post(address, data={"csrf": csrf})).status_code == 401, address
            answer = await client.post(address)
            assert answer.status_code == 403, address
            assert "csrf" in answer.text
            for name, value in render.HEADERS.items():
                assert answer.headers[name] == value
        for address in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
            form = {"email": "admin@localhost", "password": whole.password, "next": address}
            answer = await stranger.post("/sign-in", data=form)
            assert answer.headers["location"] in ("/", "/profile")


async def test_another_tenant_s_cluster_is_not_there(tmp_path: Path) -> None:
    """A59 of the pages: a foreign id answers as one that does not exist."""
    async with whole_hub(tmp_path) as whole:
        cluster_id = (await whole.invite()).cluster_id
        other = await whole.services.tenants.create(whole.admin, slug="other", name="Other")
        again = await whole.services.accounts.sign_in(
            "admin@localhost", whole.password, remote="127.0.0.1", user_agent="test"
        )
        added = await whole.services.tenants.add_member(
            again.actor, other.id, email="eve@other.example", name="Eve", role=Role.ADMIN
        )
        signed_in = await whole.own_password("eve@other.example", added.password)
        headers = {"Cookie": f"__Host-daalu={signed_in.cookie}"}
        async with whole.client(headers=headers) as client:

            async def answer(address: str) -> tuple[int, str]:
                got: httpx.Response = await client.get(address)
                return got.status_code, re.sub(r"request [0-9a-f]+|data-now=\S+", "", got.text)

            for tail in ("", "/join", "/nodes", "/kubectl", "/kubeconfigs", "/rbac", "/events", "/settings", "/live"):
                foreign = await answer(f"/clusters/{cluster_id}{tail}")
                assert foreign[0] == 404
                assert foreign == await answer(f"/clusters/cl_aaaaaaaaaaaaaaaa{tail}")
            assert (await answer("/t/default/clusters"))[0] == 404


@pytest.mark.parametrize("role", ["operator", "viewer", "auditor"])
async def test_what_a_role_lacks_is_not_on_its_pages(tmp_path: Path, role: str) -> None:
    """A5, A46 of the pages: no control that would be refused; typed by hand it is."""
    async with whole_hub(tmp_path) as whole:
        ids = await landscape.paint(whole)
        added = await whole.services.tenants.add_member(
            whole.admin, whole.tenant_id, email="sam@acme.example", name="Sam", role=Role(role)
        )
        signed_in = await whole.own_password("sam@acme.example", added.password)
        headers = {"Cookie": f"__Host-daalu={signed_in.cookie}", "X-CSRF-Token": signed_in.actor.csrf}
        first = f"/clusters/{ids['acme-eu-prod']}"
        async with whole.client(headers=headers) as client:
            assert "/clusters/add" not in await get(client, "/t/default/clusters")
            assert 'method="post"' not in (await get(client, "/t/default/clusters/add")).partition("<main")[2]
            page = await get(client, first)
            assert (f"{first}/kubectl" in page) is (role == "operator")
            assert (f"{first}/kubeconfigs" in page) is (role == "operator")
            assert f"{first}/rbac" not in page
            page = await get(client, f"{first}/settings")
            assert "/delete" not in page
            assert ("/acknowledge" in await get(client, "/t/default/alerts")) is (role == "operator")
            for tail in ("invite", "delete", "rbac", "settings", *(() if role == "operator" else ("kubectl",))):
                form = {"csrf": signed_in.actor.csrf, "line": "get nodes", "keepalive": "25", "name": "x"}
                assert (await client.post(f"{first}/{tail}", data=form)).status_code in (403, 422), tail
            answer = await client.post("/t/default/clusters/add", data={"csrf": signed_in.actor.csrf, "name": "x"})
            assert answer.status_code == 403
        assert len(whole.hub.presence.rows) == len(ids)
