"""*Available update*: only where a newer final release is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hub_server.services.releases import Releases
from tests.edge.fakekube import open_kube
from tests.hub.whole import joined_edge, whole_hub


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ("1.0.0", "1.5.0"),
        ("1.5.0", None),
        ("2.0.0", None),
        ("1.5.0-rc.1", "1.5.0"),
        ("", None),
        (None, None),
        ("<script>", None),
    ],
)
def test_the_flag_is_for_those_who_are_behind(tmp_path: Path, running: str | None, expected: str | None) -> None:
    """A34: lower, equal, higher, pre-release, unknown, malformed."""
    path = tmp_path / "releases.json"
    path.write_text(
        json.dumps(
            [
                {"version": "1.4.0", "notes": "https://example.com/1.4.0"},
                {"version": "1.5.0", "notes": "https://example.com/1.5.0"},
                {"version": "1.6.0-rc.1"},
                {"version": "1.9.0", "yanked": True},
            ]
        )
    )
    found = Releases(path).newer_than(running)
    assert found == (None if expected is None else (expected, "https://example.com/1.5.0"))


@pytest.mark.parametrize("content", [None, "not JSON", "{}", '[{"version": 1}]'])
def test_without_release_data_nothing_is_offered(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "releases.json"
    if content is not None:
        path.write_text(content)
    assert Releases(path).newer_than("1.0.0") is None
    assert Releases(None).newer_than("1.0.0") is None


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "releases.json"
    releases = Releases(path)
    assert releases.newer_than("1.0.0") is None
    path.write_text('[{"version": "1.1.0", "notes": "javascript:alert(1)"}]')
    assert releases.newer_than("1.0.0") == ("1.1.0", None), "only links that can be followed safely"


async def test_row_and_page_offer_the_command(tmp_path: Path) -> None:
    """A34: the version, the notes, and exactly what to run."""
    releases = tmp_path / "releases.json"
    releases.write_text('[{"version": "1.5.0", "notes": "https://example.com/1.5.0"}]')
    async with (
        whole_hub(tmp_path, releases=releases) as whole,
        open_kube() as kube,
        joined_edge(whole, kube, tmp_path / "edge") as cluster_id,
        whole.client(signed_in=True) as client,
    ):

        async def is_told() -> bool:
            return (await whole.row(cluster_id)).chart_version == "1.0.0"

        await whole.until(is_told)
        update = (await whole.row(cluster_id)).update
        assert update is not None
        assert (update.version, update.notes_url) == ("1.5.0", "https://example.com/1.5.0")
        assert update.command.split() == [
            "helm", "upgrade", "daalu-edge", whole.settings.chart, "--version", "1.5.0", "\\",
            "--namespace", "daalu-edge", "--reuse-values",
        ]  # fmt: skip
        assert "Available update: 1.5.0" in (await client.get(f"/clusters/{cluster_id}")).text
        releases.write_text('[{"version": "1.0.0"}]')
        assert (await whole.row(cluster_id)).update is None
