"""Every way in which the Job ends (A15), and that it ends alike whatever was lost or killed on the way (A16, A33)."""

from __future__ import annotations

import json
import pathlib
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trustme

from edge_agent.bootstrap import Bootstrap, Waits, run_bootstrap
from edge_agent.contract import HubConfig
from edge_agent.hubapi import CAUSES, HubApi, Joined, SelfState, Stop
from edge_agent.kube import Kube
from edge_agent.settings import Settings
from edge_agent.store import FolderStore, open_store
from tests.edge.fakehub import FakeHub, open_hub
from tests.edge.fakekube import FakeKube, open_kube
from tests.edge.test_agent import join, settings_for


def problem(code: str, status: int, **more: Any) -> Callable[..., tuple[int, dict[str, Any], dict[str, str]]]:
    document = {"type": "about:blank", "title": code, "status": status, "code": code, "detail": "", **more}
    return lambda *_: (status, document, {})


@pytest.mark.parametrize(
    ("refuse", "exit_code", "word"),
    [
        (problem("token_expired", 410), 10, "Regenerate"),
        (problem("token_revoked", 410), 10, "Regenerate"),
        (problem("token_used", 409), 11, "already used by another cluster"),
        (problem("token_unknown", 401), 12, "does not know"),
        (problem("bad_pubkey", 422), 13, "key"),
        (problem("bad_proof", 422), 13, "another hub"),
        (problem("clock_skew", 422, now=1_000_000_000), 13, "min later than at the hub"),
        (problem("version_too_old", 426), 14, "too old"),
        (problem("something_new", 418), 15, "418"),
        (lambda *_: (302, {}, {"location": "https://elsewhere.example"}), 15, "302"),
    ],
)
async def test_a_permanent_cause_ends_the_job_at_once(
    tmp_path: pathlib.Path, refuse: Any, exit_code: int, word: str
) -> None:
    """A15: one line with cause and remedy, its exit code, and no further request; neither token nor key is shown."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        hub.refuse = refuse
        code, line = await join(settings)
        assert (code, len(hub.requests)) == (exit_code, 1)
        assert word in line
        assert "\n" not in line
        secret = (tmp_path / "token").read_text().split("_")[2]
        assert secret not in line
        assert kube.secret()["phase"] == b"pending", "the key stays for the next try"
        assert "config.json" not in kube.config()


async def test_a_success_writes_both_objects_and_spends_the_token(tmp_path: pathlib.Path) -> None:
    """A15: exit 0; afterwards another key gets nothing for the token."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        code, line = await join(settings)
        assert (code, line.split()[0]) == (0, "joined")
        assert set(kube.secret()) == {"private-key", "psk", "hub-key", "token-id", "phase"}
        async with open_kube() as other:
            (tmp_path / "other").mkdir()
            elsewhere = settings_for(other, hub, tmp_path / "other")
            hub.invites[next(iter(hub.invites))].used_by = b"\1" * 32
            code, line = await join(elsewhere)
            assert (code, "already used" in line) == (11, True)


async def test_the_job_needs_its_settings(tmp_path: pathlib.Path) -> None:
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        (tmp_path / "token").write_text("dle_not_a_token")
        code, line = await join(settings)
        assert (code, line.startswith("bad_token"), "dle_not" in line) == (2, True, False)
        (tmp_path / "token").unlink()
        code, line = await join(settings)
        assert (code, "--token-file" in line) == (2, True)
        assert (await join(Settings()))[0] == 2
        assert hub.requests == []


# --- TLS -------------------------------------------------------------------------------------------------------------


async def over_tls(tmp_path: pathlib.Path, certificate: trustme.LeafCert, trusted: trustme.CA) -> tuple[int, str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with open_kube() as kube, open_hub(has_tunnel=False, ssl_context=context) as hub:
        base = settings_for(kube, hub, tmp_path)
        settings = Settings(
            hub_url=f"https://127.0.0.1:{hub.port}", hub_ca=str(tmp_path / "ca.pem"), token_file=base.token_file,
            api_server=base.api_server, api_token=base.api_token, api_ca="", deadline=5,
        )  # fmt: skip
        return await join(settings)


async def test_a_trusted_certificate_is_enough(tmp_path: pathlib.Path) -> None:
    ca = trustme.CA()
    code, line = await over_tls(tmp_path, ca.issue_cert("127.0.0.1"), ca)
    assert code == 0, line


@pytest.mark.parametrize("what", ["authority", "name", "date"])
async def test_a_certificate_that_is_not_to_be_trusted_stops_the_job(tmp_path: pathlib.Path, what: str) -> None:
    """A15: wrong CA, wrong name, expired: exit 20, and no way around it."""
    import datetime

    ca, other = trustme.CA(), trustme.CA()
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = {
        "authority": lambda: other.issue_cert("127.0.0.1"),
        "name": lambda: ca.issue_cert("somewhere.example"),
        "date": lambda: ca.issue_cert("127.0.0.1", not_after=past),
    }[what]()
    code, line = await over_tls(tmp_path, certificate, ca)
    assert (code, line.startswith("tls:")) == (20, True)


async def test_an_answer_of_another_hub_is_not_written(tmp_path: pathlib.Path) -> None:
    """A58: whoever terminates TLS cannot answer for the hub of the token."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        original = hub.answer

        def tampered(path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
            status, octets, headers = original(path, body)
            return status, octets.replace(b"100.96.0.1", b"100.96.0.9"), headers

        hub.answer = tampered  # type: ignore[method-assign]
        code, line = await join(settings)
        assert (code, line.startswith("hub_key:")) == (20, True)
        assert "config.json" not in kube.config()
        assert "psk" not in kube.secret()


# --- what may heal ---------------------------------------------------------------------------------------------------


class Script:
    """A hub that answers as it is told, without a socket, so that the clock can be turned."""

    def __init__(self, *answers: Stop | Joined) -> None:
        self.answers = list(answers)
        self.times: list[float] = []

    async def bootstrap(self, *_: Any, **__: Any) -> Joined:
        self.times.append(trio.current_time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Stop):
            raise answer
        return answer

    async def ask_self(self, _: Any) -> SelfState:
        return SelfState("active", None, None)


def joined() -> Joined:
    return Joined(HubConfig.from_document(FakeHub().public_config()), b"\7" * 32)


def scripted(tmp_path: pathlib.Path, script: Script) -> Bootstrap:
    (tmp_path / "token").write_text(FakeHub().invite())
    settings = Settings(
        hub_url="https://hub.example", token_file=str(tmp_path / "token"), state_dir=str(tmp_path / "state")
    )
    return Bootstrap(settings, FolderStore(tmp_path / "state"), Kube(settings), script, waits=Waits(lambda: 1.0))  # type: ignore[arg-type]


async def test_waits_grow_and_are_jittered(autojump_clock: trio.testing.MockClock, tmp_path: pathlib.Path) -> None:
    """A15: 1, 2, 4 ... 60 s at most, between half and all of it; success when it heals."""
    script = Script(*[Stop("network")] * 8, joined())
    code, _ = await run_bootstrap(scripted(tmp_path, script), 3440)
    gaps = [later - sooner for sooner, later in zip(script.times, script.times[1:], strict=False)]
    assert code == 0
    assert gaps == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])
    low, high = Waits(lambda: 0.0), Waits(lambda: 1.0)
    assert (low.after(Stop("network")), high.after(Stop("network"))) == (0.5, 1.0)


async def test_the_hub_may_ask_for_longer(autojump_clock: trio.testing.MockClock, tmp_path: pathlib.Path) -> None:
    """A15: Retry-After of a 429 or a 503 is honoured."""
    script = Script(Stop("rate_limited", retry_after=90.0), Stop("unavailable", retry_after=0.0), joined())
    code, _ = await run_bootstrap(scripted(tmp_path, script), 3440)
    gaps = [later - sooner for sooner, later in zip(script.times, script.times[1:], strict=False)]
    assert (code, gaps) == (0, pytest.approx([90, 2]))


@pytest.mark.parametrize(
    ("code", "exit_code"), [("network", 21), ("dns", 22), ("unavailable", 21), ("rate_limited", 21)]
)
async def test_what_does_not_heal_is_said_at_the_deadline(
    autojump_clock: trio.testing.MockClock, tmp_path: pathlib.Path, code: str, exit_code: int
) -> None:
    """A15: the last cause, before the Job is killed by Kubernetes."""
    script = Script(Stop(code))
    found, line = await run_bootstrap(scripted(tmp_path, script), 3440)
    assert (found, line.partition(":")[0]) == (exit_code, code)
    assert 3440 - 60 <= trio.current_time() <= 3440
    assert len(script.times) > 50


async def test_a_hub_that_hangs_is_given_up_at_the_deadline(
    autojump_clock: trio.testing.MockClock, tmp_path: pathlib.Path
) -> None:
    class Hanging(Script):
        async def bootstrap(self, *_: Any, **__: Any) -> Joined:
            await trio.sleep_forever()
            raise AssertionError

    code, line = await run_bootstrap(scripted(tmp_path, Hanging()), 100)
    assert (code, line.partition(":")[0]) == (21, "network")


@pytest.mark.parametrize(
    ("status", "headers", "retry"),
    [(429, {"Retry-After": "7"}, 7.0), (503, {"Retry-After": "3"}, 3.0), (502, {}, None)],
)
async def test_statuses_that_ask_to_wait(
    tmp_path: pathlib.Path, status: int, headers: dict[str, str], retry: float | None
) -> None:
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path, deadline=1)
        hub.refuse = lambda *_: (status, {"code": "busy"}, headers)
        from edge_agent.contract import Exchange, Token

        token = Token.parse(hub.invite(9))
        with pytest.raises(Stop) as caught:
            await HubApi(settings).bootstrap(
                token, Exchange(b"\3" * 32, token.hub_key), kube_version="", cluster_uid=None
            )
        assert (caught.value.retry_after, caught.value.cause.is_final) == (retry, False)


async def test_an_absent_hub_and_an_unknown_name_are_told_apart(tmp_path: pathlib.Path) -> None:
    """A15: 21 and 22."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        base = settings_for(kube, hub, tmp_path)
        for url, exit_code in (("http://127.0.0.1:1", 21), ("https://hub.invalid", 22)):
            settings = Settings(
                hub_url=url, token_file=base.token_file, api_server=base.api_server, api_token=base.api_token,
                api_ca="", deadline=3,
            )  # fmt: skip
            code, line = await join(settings)
            assert (code, "BootstrapUnreachable" in line) == (exit_code, True), line


def test_exit_codes_are_those_of_the_product() -> None:
    """A15: the table of section 5, and what stands beside it."""
    assert {code: CAUSES[code].exit_code for code in CAUSES} == {
        "bad_setting": 2, "bad_token": 2, "token_expired": 10, "token_revoked": 10, "token_used": 11,
        "token_unknown": 12,
        "bad_pubkey": 13, "bad_proof": 13, "clock_skew": 13, "version_too_old": 14, "unexpected_answer": 15, "tls": 20,
        "hub_key": 20, "network": 21, "rate_limited": 21, "unavailable": 21, "proxy": 21, "dns": 22,
        "api_unreachable": 23, "api_forbidden": 24,
    }  # fmt: skip


# --- what is lost or killed on the way -------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
async def test_a_lost_answer_is_fetched_again(tmp_path: pathlib.Path, times: int) -> None:
    """A16 (a): the same key, the same token, byte-identical answers, one lease."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        hub.lose = times
        waits = Waits(lambda: 0.0)
        waits._next = 0.01
        job_kube = Kube(settings)
        job = Bootstrap(settings, open_store(settings, job_kube), job_kube, HubApi(settings), waits=waits)
        code, _ = await run_bootstrap(job, 60)
        await job_kube.aclose()
        assert (code, len(hub.bodies), len(set(hub.bodies))) == (0, times + 1, 1)
        assert len({document["pubkey"] for _, document in hub.requests}) == 1
        assert len({document["nonce"] for _, document in hub.requests}) == times + 1


class Killed(BaseException):
    """The Job's pod is gone."""


async def test_a_job_killed_between_any_two_steps_ends_alike(tmp_path: pathlib.Path) -> None:
    """A16 (b): killed at each of its requests to the API server and to the hub, and run again: one final state."""
    finals: list[tuple[Any, ...]] = []
    for victim in range(0, 9):
        folder = tmp_path / str(victim)
        folder.mkdir()
        async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
            settings = settings_for(kube, hub, folder)
            count = 0

            async def checked(work: Callable[..., Any], *arguments: Any, victim: int = victim, **words: Any) -> Any:
                nonlocal count
                count += 1
                if count == victim:
                    raise Killed
                result = await work(*arguments, **words)
                count += 1
                if count == victim:
                    raise Killed
                return result

            job_kube = Kube(settings)
            store, api = open_store(settings, job_kube), HubApi(settings)
            for owner, name in ((store, "patch_secret"), (store, "patch_config"), (api, "bootstrap")):
                work = getattr(owner, name)
                setattr(owner, name, lambda *a, work=work, **w: checked(work, *a, **w))
            try:
                await run_bootstrap(Bootstrap(settings, store, job_kube, api), 60)
            except Killed:
                assert victim
            finally:
                await job_kube.aclose()
            between = kube.secret().get("private-key")
            code, _ = await join(settings)
            secret = kube.secret()
            assert code == 0
            assert between in (None, secret["private-key"]), "the key that was stored is the key that is used"
            assert len(set(hub.bodies)) == 1
            assert len({document["pubkey"] for _, document in hub.requests}) == 1
            finals.append(
                (
                    secret["phase"],
                    secret["psk"],
                    secret["hub-key"],
                    secret["token-id"],
                    kube.config()["config.json"].replace(str(hub.endpoints), ""),
                )
            )
    assert len(set(finals)) == 1


async def test_a_second_run_calls_nobody(tmp_path: pathlib.Path) -> None:
    """A33: an upgrade with the used token still in the values: exit 0, Secret unchanged, the hub not asked."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        await join(settings)
        before, asked = kube.secret(), len(hub.requests)
        code, line = await join(settings)
        assert (code, len(hub.requests)) == (0, asked)
        assert "nothing to do" in line
        assert kube.secret() == before


async def test_a_new_token_is_left_unused_while_the_hub_knows_us(tmp_path: pathlib.Path) -> None:
    """A33: with a different unused token the Job asks about itself, says so, and does not redeem (D19)."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        await join(settings)
        before = kube.secret()
        (tmp_path / "token").write_text(hub.invite(1))
        code, line = await join(settings)
        assert (code, "left unused" in line) == (0, True)
        assert [path for path, _ in hub.requests] == ["/v1/edge/bootstrap", "/v1/edge/self"]
        assert kube.secret() == before
        assert list(hub.invites.values())[1].used_by is None


@pytest.mark.parametrize("state", ["deleted", "revoked", "unknown"])
async def test_a_new_token_is_redeemed_with_a_new_key_when_the_old_is_gone(tmp_path: pathlib.Path, state: str) -> None:
    """D19: the row was deleted, so this is a new beginning."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        await join(settings)
        before = kube.secret()
        hub.self_state = state
        (tmp_path / "token").write_text(hub.invite(1))
        assert (await join(settings))[0] == 0
        after = kube.secret()
        assert after["phase"] == b"ready"
        assert after["private-key"] != before["private-key"]
        assert after["token-id"] != before["token-id"]


async def test_two_installs_have_different_keys(tmp_path: pathlib.Path) -> None:
    """A13."""
    keys = set()
    for number in range(2):
        async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
            await join(settings_for(kube, hub, tmp_path))
            keys.add(kube.secret()["private-key"])
            assert number < 2
    assert len(keys) == 2


async def test_a_job_without_rights_says_whose_they_are(tmp_path: pathlib.Path) -> None:
    """Exit 24, with the API server's own words."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        words = 'secrets "daalu-edge-key" is forbidden: User cannot get resource'
        kube.refuse = lambda seen: (403, words) if "/secrets/" in seen.target else None
        code, line = await join(settings)
        assert (code, words in line) == (24, True)
        assert hub.requests == []


async def test_state_may_lie_in_a_folder(tmp_path: pathlib.Path) -> None:
    """Without a cluster: files that only their owner reads."""
    async with open_hub(has_tunnel=False) as hub:
        settings = settings_for(FakeKube(), hub, tmp_path, state_dir=str(tmp_path / "state"))
        settings = Settings(hub_url=settings.hub_url, token_file=settings.token_file, state_dir=settings.state_dir)
        assert (await join(settings))[0] == 0
        folder = tmp_path / "state" / "secret"
        assert folder.stat().st_mode & 0o077 == 0
        assert {path.name for path in folder.iterdir()} == {"private-key", "psk", "hub-key", "token-id", "phase"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
        assert json.loads((tmp_path / "state" / "config" / "config.json").read_text())["cluster_id"] == "cl_one"


async def test_a_spent_token_may_be_deleted(tmp_path: pathlib.Path) -> None:
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        assert (await join(settings))[0] == 0
        (tmp_path / "token").unlink()
        assert await join(settings) == (0, "already joined: no token is needed")
        kube.put("/api/v1/namespaces/daalu-edge/configmaps/daalu-edge-config", {"kind": "ConfigMap"})
        code, line = await join(settings)
        assert code == 0, line
        assert "config.json" in kube.config()


async def test_without_key_and_token_the_job_says_what_is_missing(tmp_path: pathlib.Path) -> None:
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        (tmp_path / "token").unlink()
        code, line = await join(settings)
        assert code == 2
        assert "--token-file" in line
