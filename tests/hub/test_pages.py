"""Every page, as a browser without scripts sees it: over the real hub, with a cluster that is connected."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path

import httpx
import pytest

from tests.edge.fakekube import node, open_kube
from tests.hub.whole import Whole, joined_edge, whole_hub

VOID = {"meta", "link", "input", "br", "path", "img", "hr"}


class Outline(html.parser.HTMLParser):
    """Says when elements are not closed in order, or an id stands twice."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert sorted(self.ids) == sorted(set(self.ids)), "an id stands twice"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        for name, _ in attrs:
            assert not name.startswith("on"), "the policy forbids inline scripts"
            assert name != "style", "and inline styles"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Nothing stays open."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def get(client: httpx.AsyncClient, address: str, status: int = 200) -> str:
    answer = await client.get(address)
    assert answer.status_code == status, (address, answer.status_code, answer.text[:2000])
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    Outline(answer.text)
    return answer.text


async def post(
    client: httpx.AsyncClient, whole: Whole, address: str, status: int = 303, **fields: str
) -> httpx.Response:
    answer = await client.post(address, data={"csrf": whole.admin.csrf, **fields})
    assert answer.status_code == status, (address, answer.status_code, answer.text[:2000])
    if status != 303 and "html" in answer.headers["content-type"]:
        Outline(answer.text)
    return answer


async def test_every_page_of_a_connected_cluster(tmp_path: Path) -> None:
    """A18, A20, A21 and A24 without a browser."""
    async with whole_hub(tmp_path) as whole, open_kube() as kube:
        kube.put("/api/v1/nodes/<img src=x onerror=alert(1)>", node("<img src=x onerror=alert(1)>"))
        async with whole.client() as stranger:
            assert "Sign in" in await get(stranger, "/sign-in")
            answer = await stranger.get("/t/default/clusters")
            assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Ft%2Fdefault%2Fclusters")
            answer = await stranger.post("/sign-in", data={"email": "admin@localhost", "password": "wrong"})
            assert answer.status_code == 401
            answer = await stranger.post("/sign-in", data={"email": "admin@localhost", "password": whole.password})
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
            assert re.search(r"__Host-daalu=[^;]+; .*HttpOnly.*Secure", answer.headers["set-cookie"])
        async with whole.client(signed_in=True) as client:
            assert "No cluster yet" in await get(client, "/t/default/clusters")
            await get(client, "/t/default/clusters/add")
            answer = await post(client, whole, "/t/default/clusters/add", 422, name="not a name")
            assert "letters, digits" in answer.text
            async with joined_edge(whole, kube, tmp_path / "edge") as cluster_id:
                nodes = whole.services.clusters.nodes

                async def is_told() -> bool:
                    ladder = await whole.services.clusters.ladder(whole.admin, cluster_id)
                    return bool((await nodes(whole.admin, cluster_id)).nodes and ladder.is_finished)

                await whole.until(is_told)
                text = await get(client, "/t/default/clusters")
                assert re.search(r'<span class="word">connected</span>', text)
                assert (await whole.row(cluster_id)).address in text
                for tail in ("", "/join", "/nodes", "/kubectl", "/kubeconfigs", "/rbac", "/events", "/settings"):
                    await get(client, f"/clusters/{cluster_id}{tail}")
                text = await get(client, f"/clusters/{cluster_id}/nodes")
                assert "&lt;img src=x onerror=alert(1)&gt;" in text
                assert "<img" not in text
                for tail in ("alerts", "settings", "settings/clusters", "settings/channels"):
                    await get(client, f"/t/default/{tail}")
                await get(client, f"/t/default/settings/clusters/{cluster_id}/rbac")
                await get(client, "/profile")
                assert "Not found" in await get(client, "/clusters/cl_nothere", 404)
                answer = await post(client, whole, f"/clusters/{cluster_id}/kubectl", 200, line="version")
                assert "v1.36.3" in answer.text
                answer = await post(client, whole, f"/clusters/{cluster_id}/kubectl", 200, line="get nodes; id")
                assert "Nothing was sent" in answer.text
                answer = await post(client, whole, f"/clusters/{cluster_id}/rbac", 200, preset="wider-read")
                assert "kubectl apply -f -" in answer.text
                answer = await post(client, whole, f"/clusters/{cluster_id}/rbac/check", 200)
                assert "granted" in answer.text
                answer = await post(
                    client, whole, f"/clusters/{cluster_id}/kubeconfigs", 200, ttl="3600", password=whole.password
                )
                name = answer.headers["content-disposition"]
                assert name.startswith('attachment; filename="default-acme-localhost-')
                assert name.endswith('.kubeconfig"')
                await post(
                    client, whole, f"/clusters/{cluster_id}/settings", name="renamed", keepalive="10", mute="3600"
                )
                detail = await whole.services.clusters.get(whole.admin, cluster_id)
                assert (detail.row.name, detail.keepalive) == ("renamed", 10)

                async def is_taken_over() -> bool:
                    told = await whole.services.clusters.get(whole.admin, cluster_id)
                    return bool(told.config_acknowledged == told.config_revision)

                await whole.until(is_taken_over)
                answer = await post(client, whole, f"/clusters/{cluster_id}/delete", 422, confirm_name="other")
                answer = await post(
                    client, whole, f"/clusters/{cluster_id}/delete", confirm_name="renamed", password=whole.password
                )
                assert "No cluster yet" in await get(client, "/t/default/clusters")


async def test_a_form_from_elsewhere_does_nothing(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        for fields, headers in (
            ({}, {}),
            ({"csrf": "0" * 64}, {}),
            ({"csrf": whole.admin.csrf}, {"Sec-Fetch-Site": "cross-site"}),
            ({"csrf": whole.admin.csrf}, {"Origin": "https://evil.example"}),
        ):
            headers |= {"X-CSRF-Token": ""}
            answer = await client.post("/t/default/clusters/add", data={"name": "x", **fields}, headers=headers)
            assert answer.status_code == 403
        assert (await whole.services.clusters.counts(whole.admin, whole.tenant_id)).total == 0


@pytest.mark.parametrize("state", ["pending", "withdrawn"])
async def test_the_wizard_can_be_left_and_found_again(tmp_path: Path, state: str) -> None:
    """A38 at its start: the token is shown once, the ladder every time."""
    async with whole_hub(tmp_path) as whole, whole.client(signed_in=True) as client:
        answer = await post(client, whole, "/t/default/clusters/add", 200, name="acme")
        assert answer.text.count("dle_") == 1
        [cluster_id] = whole.hub.presence.rows
        if state == "withdrawn":
            await post(client, whole, f"/clusters/{cluster_id}/invite/revoke")
        text = await get(client, f"/clusters/{cluster_id}/join")
        assert "dle_" not in text
        assert ("The command is shown only once" if state == "pending" else "was withdrawn") in text
        assert "The token has not been used yet" in text or "withdrawn before it was used" in text
