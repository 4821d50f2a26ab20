"""Forms under a reader's hands: sent twice, sent after the session ended, sent to the wrong place. Nothing is lost."""

from __future__ import annotations

import html
import re
from pathlib import Path

import httpx
import pytest
import trio

from hub_server.services.paging import cursor_of
from hub_server.web.routes import ACT, PAGES, READ
from tests.hub import landscape
from tests.hub.test_pages import get, post
from tests.hub.test_pages_states import text_of
from tests.hub.whole import Whole, whole_hub

HERE = {"Sec-Fetch-Site": "same-origin"}


def fields_of(page: str, action: str) -> dict[str, str]:
    """The hidden fields of a form, as a browser sends them."""
    [form] = re.findall(rf'<form[^>]*action="{re.escape(action)}".*?</form>', page, re.S)
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
    return {name: html.unescape(value) for name, value in found}


async def test_a_double_click_makes_one_cluster_and_shows_its_command_twice(tmp_path: Path) -> None:
    """The form is carried out once, whichever of the answers the browser shows; so is *Regenerate*; so is a webhook."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        action = "/t/default/clusters/add"
        form = {**fields_of(await get(client, action), action), "name": "acme"}
        answers: list[httpx.Response] = []

        async def click(address: str, form: dict[str, str]) -> None:
            answers.append(await client.post(address, data=form))

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(click, action, form)
        tokens = {token for answer in answers for token in re.findall(r"dle_[a-z0-9_]+", answer.text)}
        assert ([answer.status_code for answer in answers], len(tokens)) == ([200] * 6, 1)
        [cluster_id] = whole.hub.presence.rows
        again = f"/clusters/{cluster_id}/invite"
        form = fields_of(answers[0].text, again)
        answers.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(click, again, form)
        newer = {token for answer in answers for token in re.findall(r"dle_[a-z0-9_]+", answer.text)}
        assert len(newer) == 1
        assert newer != tokens
        await post(client, whole, again, 200, once="another")
        assert "dle_" not in (await post(client, whole, again, 200, **form)).text, "that command is worthless by now"
        action = "/t/default/settings/channels"
        form = {**fields_of(await get(client, action), action), "name": "on call", "url": "https://hooks.example.com/x"}
        secrets = {re.findall(r'<pre id="secret">([^<]+)', (await post(client, whole, action, 200, **form)).text)[0]
                   for _ in range(2)}  # fmt: skip
        assert len(secrets) == 1
        # The same name in a form of its own is another wish, and refused as before.
        await post(client, whole, "/t/default/clusters/add", 422, name="acme", once="new")


async def test_what_was_typed_survives_the_end_of_the_session(tmp_path: Path) -> None:
    """Sign-in keeps the form, one click sends it, and it is a page of its own; for htmx nothing is swapped."""
    async with whole_hub(tmp_path) as whole, whole.client(headers=HERE) as client:
        action = "/t/default/clusters/add"
        answer = await client.post(action, data={"csrf": "old", "name": "acme & <b>", "password": "secret"})
        assert answer.status_code == 401
        assert "what you typed is kept" in answer.text
        assert "secret" not in answer.text
        form = fields_of(answer.text, "/sign-in")
        assert form["next"] == action
        form |= {"email": "admin@localhost", "password": "wrong"}
        form["kept"] = fields_of((await client.post("/sign-in", data=form)).text, "/sign-in")["kept"]
        answer = await client.post("/sign-in", data=form | {"password": whole.password})
        assert answer.status_code == 200
        assert "acme & <b>" in text_of(answer.text)
        assert not whole.hub.presence.rows
        form = fields_of(answer.text, action) | {"name": "acme"}
        cookies = {"Cookie": "; ".join(one.partition(";")[0] for one in answer.headers.get_list("set-cookie"))}
        assert "dle_" in (await client.post(action, data=form, headers=cookies)).text
        client.cookies.clear()
        answer = await client.post(action, data={"name": "x"}, headers={"HX-Request": "true"})
        assert (answer.status_code, answer.text, answer.headers["hx-reswap"]) == (401, "", "none")
        asks = {"HX-Request": "true", "HX-Current-URL": f"{whole.hub.url}/t/default/clusters?q=a"}
        answer = await client.get("/t/default/clusters?q=ab", headers=asks)
        assert answer.headers["hx-redirect"] == "/sign-in?next=%2Ft%2Fdefault%2Fclusters%3Fq%3Da"


async def test_a_form_of_an_earlier_session_is_offered_again(tmp_path: Path) -> None:
    """Signed in anew in another window: the open page's form is not carried out, and not lost."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True, headers=HERE) as client:
        del client.headers["X-CSRF-Token"]
        action = "/t/default/clusters/add"
        answer = await client.post(action, data={"csrf": "0" * 64, "name": "acme"})
        assert (answer.status_code, len(whole.hub.presence.rows)) == (403, 0)
        form = fields_of(answer.text, action)
        assert "dle_" in (await client.post(action, data=form)).text
        answer = await client.post(action, data={"csrf": "0" * 64, "name": "b"}, headers={"Sec-Fetch-Site": "none"})
        assert "acme" not in answer.text
        assert "The form did not" in answer.text or "the form did not" in answer.text


@pytest.mark.parametrize("kept", ["", "{}", "[]", "x", '{"action": "//evil.example", "fields": [["a", "b"]]}',
                                  '{"action": "https://evil.example", "fields": []}', '{"action": "/x", "fields": [1]}',
                                  '{"action": "/x", "fields": [["a"]]}', "[" * 10_000])  # fmt: skip
async def test_what_no_page_kept_is_not_offered(tmp_path: Path, kept: str) -> None:
    async with whole_hub(tmp_path) as whole, whole.client(headers=HERE) as client:
        form = {"email": "admin@localhost", "password": whole.password, "next": "/", "kept": kept}
        answer = await client.post("/sign-in", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_an_address_of_forms_leads_to_its_page(tmp_path: Path) -> None:
    """A reload, or a typed address, of what only takes forms: the page where the form is."""
    known = {path for path, _ in READ} | {path for path, _ in PAGES}
    assert [path for path, _ in ACT if path not in known] == []
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        cluster_id = (await whole.invite()).cluster_id
        for path, page in PAGES:
            address, there = (re.sub(r"\{(\w+)\}", lambda name: {"tenant": "default", "cluster_id": cluster_id}.get(
                name[1], "x"), one) for one in (path, page))  # fmt: skip
            answer = await client.get(address)
            assert (answer.status_code, answer.headers["location"]) == (303, there)
            if there != "/":
                await get(client, there)
        answer = await client.put("/clusters/x/invite", headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


async def second_tenant(whole: Whole) -> str:
    await whole.services.tenants.create(whole.admin, slug="other", name="Other")
    again = await whole.services.accounts.sign_in(
        "admin@localhost", whole.password, remote="127.0.0.1", user_agent="test"
    )
    return str(again.cookie)


async def test_one_stays_in_the_tenant(tmp_path: Path) -> None:
    """`/t/<slug>`, Profile, an unknown address and `/` lead where one was, not to the first tenant."""
    async with whole_hub(tmp_path) as whole:
        cookie = await second_tenant(whole)
        async with whole.client(headers={"Cookie": f"__Host-daalu={cookie}"}) as client:
            for slug in ("default", "other"):
                assert (await client.get(f"/t/{slug}")).headers["location"] == f"/t/{slug}/clusters"
                answer = await client.get(f"/t/{slug}/clusters")
                assert (
                    f"__Host-daalu-tenant={slug}; HttpOnly; Path=/; SameSite=lax; Secure"
                    in answer.headers["set-cookie"]
                )
                was = {"Cookie": f"__Host-daalu={cookie}; __Host-daalu-tenant={slug}"}
                assert (await client.get("/", headers=was)).headers["location"] == f"/t/{slug}/clusters"
                for address, headers in (("/profile", was), (f"/profile?tenant={slug}", {})):
                    page = (await client.get(address, headers=headers)).text
                    assert f'<a class="brand" href="/t/{slug}/clusters">' in page
                assert f'href="/profile?tenant={slug}"' in page
                unknown = await client.get(f"/t/{slug}/nothing", headers={"Accept": "text/html"})
                assert (unknown.status_code, f'href="/t/{slug}"' in unknown.text) == (404, True)
            assert (await client.get("/t/nothing", headers={"Accept": "text/html"})).status_code == 404


async def test_a_refused_part_of_a_page_stands_beside_the_page(tmp_path: Path) -> None:
    """What htmx asked for and was refused takes nothing away, and is no page inside the page."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        for address in ("/t/nothing/clusters?q=a", "/t/default/clusters?cursor=!", "/clusters/cl_nothere/nodes"):
            answer = await client.get(address, headers={"HX-Request": "true", "Accept": "text/html"})
            assert answer.status_code in (404, 422)
            assert (answer.headers["hx-retarget"], answer.headers["hx-reswap"]) == ("#failed", "innerHTML")
            assert "<html" not in answer.text


async def test_pages_of_a_list_keep_the_search(tmp_path: Path) -> None:
    """*Next* and *Previous* of both lists of clusters, with the words searched for."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        await landscape.many(whole, 45)
        address = "/t/default/clusters?q=cluster-00&size=20&sort=name"
        page = await get(client, address)
        assert "Previous page" not in page
        [following] = re.findall(r'href="([^"]+)">Next page', page)
        page = await get(client, html.unescape(following))
        assert ('value="cluster-00"' in page, "21\u201340 of 45" in page) == (True, True)
        [previous] = re.findall(r'href="([^"]+)">Previous page', page)
        assert "1\u201320 of 45" in await get(client, html.unescape(previous))
        address = "/t/default/settings/clusters"
        assert "Next page" not in await get(client, f"{address}?q=cluster"), "a hundred fit"
        page = await get(client, f"{address}?q=cluster&cursor={cursor_of(40)}")
        assert ('value="cluster"' in page, "41\u201345 of 45" in page) == (True, True)
        [previous] = re.findall(r'href="([^"]+)">Previous page', page)
        assert "cluster-0000" in await get(client, f"{address}{html.unescape(previous)}")


async def test_filter_words_are_the_words_of_the_rows(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        await landscape.paint(whole)
        page = await get(client, "/t/default/clusters")
        words = [word for word in re.findall(r'<option value="([a-z ]+)"', page) if word not in ("attention", "name",
                 "status", "seen", "created")]  # fmt: skip
        shown = set(re.findall(r'<span class="word">([^<]+)</span>', page))
        assert shown <= set(words)
        for word in shown:
            found = await get(client, f"/t/default/clusters?status={word.replace(' ', '+')}")
            assert set(re.findall(r'<span class="word">([^<]+)</span>', found)) == {word}
            assert f'<option value="{word}" selected>' in found
        assert "awaiting handshake" in await get(client, "/t/default/clusters?status=redeemed"), "as addresses were"


async def test_what_is_stale_says_so(tmp_path: Path) -> None:
    """While the tunnel is down no node *is* Ready and no API server *answers*; how old the word is stands beside it."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        ids = await landscape.paint(whole)
        row = whole.hub.presence.rows[ids["acme-eu-prod"]]
        page = f"/clusters/{row.id}"
        assert "As the edge told" in text_of(await get(client, f"{page}/nodes"))
        assert "API server answers" in text_of(await get(client, page))
        for phase in (landscape.Phase.RECONNECTING, landscape.Phase.DISCONNECTED, landscape.Phase.BLOCKED):
            landscape.put(row, phase, whole.hub.core.now(), ago=240, reason=landscape.Reason.HEARTBEAT_LOST)
            text = text_of(await get(client, f"{page}/nodes"))
            assert "was Ready" in text
            assert not re.search(r"(?<!was )(?<!Not)Ready control-1", text)
            assert "how the nodes are now is not known" in text
            text = text_of(await get(client, page))
            assert "API server not known; answered when last heard of" in text
            listed = await get(client, "/t/default/clusters")
            [mine] = re.findall(rf'<tr role="row" id="r-{row.id}".*?</tr>', listed, re.S)
            assert "5/5" not in mine
        landscape.settle(row, 1, whole.hub.core.now(), api_state="unreachable", api_errno="ECONNREFUSED")
        assert "before it lost its API server" in text_of(await get(client, f"{page}/nodes"))


async def test_a_new_cluster_has_no_outage_behind_it(tmp_path: Path) -> None:
    """The minutes before it joined are no red bar, whatever their samples say."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        cluster_id = (await whole.invite()).cluster_id
        presence, now = whole.hub.presence, whole.hub.core.now()
        row = presence.rows[cluster_id]
        row.status = row.worst = landscape.Status(landscape.Phase.REDEEMED, now)
        presence.handshake_confirmed(cluster_id, "203.0.113.9:4000", now)
        presence._sample(now)
        await presence.flush()
        page = await get(client, f"/clusters/{cluster_id}")
        assert "no gap" in page
        assert 'class="bad" aria-label' not in page
        assert 'class="ok" aria-label' in page


async def test_a_cluster_that_never_joined_is_deleted_from_its_page(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        cluster_id = (await whole.invite()).cluster_id
        page = (await client.get(f"/clusters/{cluster_id}")).headers["location"]
        [there] = re.findall(r'href="(/clusters/[^"]+/settings)#delete"', await get(client, page))
        action = f"/clusters/{cluster_id}/delete"
        assert re.search(rf'id="delete".*action="{action}"', await get(client, there), re.S)
        await post(client, whole, action, confirm_name="acme", password=whole.password)
        assert not whole.hub.presence.rows


async def test_the_wizard_warns_of_addresses_that_no_cluster_reaches(tmp_path: Path) -> None:
    """And its commands are commands of a shell, whatever an edge said of itself."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        page = await get(client, "/t/default/clusters/add")
        assert f"Clusters cannot reach this hub at {whole.hub.url}" in page
        ids = await landscape.paint(whole)
        row = whole.hub.presence.rows[ids["lab-late"]]
        for hello in (None, {"job": "x; rm -rf /", "namespace": "$(id)"}):
            row.hello = hello
            text = text_of(await get(client, f"/clusters/{row.id}/join"))
            assert "kubectl -n daalu-edge logs -l app.kubernetes.io/component=bootstrap --tail=-1" in text
            assert "rm -rf" not in text
        row.hello = {"job": "edge-bootstrap-1a2b", "namespace": "tunnels"}
        assert "kubectl -n tunnels logs job/edge-bootstrap-1a2b" in text_of(
            await get(client, f"/clusters/{row.id}/join")
        )
    url = {"public_url": "https://hub.example", "wireguard_endpoints": ("hub.example:51820",)}
    async with whole_hub(tmp_path / "other", **url) as whole:
        assert whole.services.clusters.unreachable_addresses() == ()


async def test_a_wrong_password_is_told_where_the_eye_is(tmp_path: Path) -> None:
    """The field at fault has the focus, so that the browser scrolls to it; times say their zone."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        ids = await landscape.paint(whole)
        page = f"/clusters/{ids['acme-us-prod']}"
        answer = await post(client, whole, f"{page}/delete", 422, confirm_name="acme-us-prod", password="wrong")
        [field] = re.findall(r"<input[^>]*autofocus[^>]*>", answer.text)
        assert 'id="password-delete"' in field
        answer = await post(client, whole, f"{page}/kubeconfigs", 422, password="wrong", ttl="3600")
        assert re.search(r'id="password"[^>]*autofocus', answer.text)
        assert '<option value="3600" selected>' in answer.text
        await post(client, whole, f"{page}/kubeconfigs", 200, password=whole.password, ttl="3600")
        page = await get(client, f"{page}/kubeconfigs?made=1")
        assert "The kubeconfig was downloaded." in page
        assert re.search(r'data-label="made"><time[^>]*>\d\d \w{3} \d\d:\d\d UTC</time>', page)
