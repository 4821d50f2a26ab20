"""The command `daalu-edge`, as a process: help, exit codes and the one line that says why."""

from __future__ import annotations

import functools
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest
import trio

from edge_agent.cli import COMMANDS
from edge_agent.settings import SETTINGS
from tests.edge.fakehub import EDGE_ADDRESS, open_hub
from tests.edge.fakekube import FakeKube, open_kube
from tests.edge.test_agent import settings_for

PATIENCE = 60.0


async def edge(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end, without what this process has in its environment."""
    command = [sys.executable, "-m", "edge_agent", *words]
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            command, env=plain_environment(environment), capture_stdout=True, capture_stderr=True, check=False
        )


def plain_environment(more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAALU_", "KUBERNETES_"))}
    return {**kept, **more}


def variables(settings: Any) -> dict[str, str]:
    """The environment that makes these settings, as the chart's templates would write it."""
    values = {row.variable: getattr(settings, row.field) for row in SETTINGS}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}


@pytest.mark.parametrize("command", COMMANDS)
async def test_help_names_every_setting_and_gives_examples(command: str) -> None:
    done = await edge(command, "--help")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert "examples:" in text
    assert all(f"--{row.flag}" in text and f"${row.variable}" in text for row in SETTINGS)


async def test_no_command_is_listed_that_does_nothing() -> None:
    assert set(COMMANDS) == {"run", "bootstrap", "doctor", "test"}
    done = await edge("--help")
    assert done.returncode == 0
    assert all(name in done.stdout.decode() for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_wrong_setting_is_named_in_one_line(command: str) -> None:
    """A15, A41: exit code 2, the setting, its range and the value."""
    done = await edge(command, DAALU_WG_KEEPALIVE="25s")
    assert done.returncode == 2
    assert done.stdout.decode() == (
        "bad_setting: --keepalive ($DAALU_WG_KEEPALIVE) must be a number from 1 to 65535, got '25s'\n"
    )


async def test_outside_a_cluster_each_command_says_what_is_missing(tmp_path: pathlib.Path) -> None:
    for command, code in (("bootstrap", 2), ("doctor", 2), ("test", 2)):
        done = await edge(command)
        assert done.returncode == code
        assert done.stdout.decode().count("\n") == 1
        assert done.stdout.startswith(b"bad_setting: ")


async def test_the_job_as_a_process_prints_one_line_and_no_secret(tmp_path: pathlib.Path) -> None:
    """A15: success, then a spent token from another key: code 11."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        done = await edge("bootstrap", **variables(settings))
        assert (done.returncode, done.stdout.decode()) == (0, f"joined as cl_one with tunnel address {EDGE_ADDRESS}\n")
        kube.install()
        again = await edge("bootstrap", **variables(settings))
        assert again.returncode == 11
        assert again.stdout.startswith(b"token_used: ")
        [token] = [invite.text.encode() for invite in hub.invites.values()]
        for octets in (done.stdout, done.stderr, again.stdout, again.stderr):
            assert token not in octets
            assert kube.token.encode() not in octets


async def test_doctor_and_test_say_ok_for_every_hop_of_a_running_edge(tmp_path: pathlib.Path) -> None:
    """A17, A35: the agent as a process joins, is found well, says goodbye at SIGTERM, and ends with 0."""
    async with open_kube() as kube, open_hub() as hub:
        settings = settings_for(kube, hub, tmp_path)
        assert (await edge("bootstrap", **variables(settings))).returncode == 0
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                port = free_port()
                environment = {**variables(settings), "DAALU_HEALTH_PORT": str(port)}
                process: trio.Process = await nursery.start(
                    functools.partial(
                        trio.run_process,
                        [sys.executable, "-m", "edge_agent", "run"],
                        env=plain_environment(environment),
                        stderr=subprocess.PIPE,
                        check=False,
                    )
                )
                nursery.start_soon(drain, process)
                await hub.until(lambda: hub.of_type("api") and hub.of_type("nodes") and hub.beats)
                for command in ("doctor", "test"):
                    done = await edge(command, **environment)
                    lines = done.stdout.decode().splitlines()
                    assert done.returncode == 0, lines
                    assert not [line for line in lines if line.startswith("FAIL")]
                assert any(line.startswith("ok   handshake: ") for line in lines)
                kube.denied.add(("list", "pods", ""))
                done = await edge("doctor", **environment)
                assert done.returncode == 1
                assert b"FAIL permissions: ApiForbidden: our account may not list pods;" in done.stdout
                before = trio.current_time()
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
                assert trio.current_time() - before < 10, "two seconds, and some for a busy machine"
                await hub.until(lambda: len(hub.goodbyes) == 3)
                assert set(hub.goodbyes) == {2}, "the Deployment is still there: restarting"


async def drain(process: trio.Process) -> None:
    assert process.stderr is not None
    async with process.stderr as stderr:
        async for _ in stderr:
            pass


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_doctor_before_an_installation_looks_at_the_hub_only(tmp_path: pathlib.Path) -> None:
    """The wizard's pre-flight: name, port, certificate, clock; what needs a pod is left out, not failed."""
    async with open_hub() as hub:
        done = await edge("doctor", "--hub-url", hub.url)
        marks = [line.split()[:2] for line in done.stdout.decode().splitlines()]
        assert done.returncode == 0
        assert marks == [
            ["ok", "dns:"], ["ok", "443:"], ["-", "tls:"], ["ok", "clock:"], ["ok", "udp:"],
            ["-", "api:"], ["-", "permissions:"], ["-", "secret:"], ["-", "handshake:"],
        ]  # fmt: skip


async def test_doctor_looks_in_the_namespaces_that_the_owner_allowed(tmp_path: pathlib.Path) -> None:
    """A23: with `rbac.namespaces` nothing cluster-wide but nodes is asked for."""
    async with open_kube() as kube:
        kube.denied |= {("list", "pods", ""), ("list", "deployments", ""), ("get", "pods", "")}
        done = await edge(
            "doctor", "--read-namespaces", "a,b", "--api-server", kube.url, "--api-token", account(kube, tmp_path),
            "--api-ca", "", "--health-port", str(free_port()),
        )  # fmt: skip
        assert b"ok   permissions: " in done.stdout
        kube.denied.add(("list", "pods", "b"))
        done = await edge(
            "doctor", "--read-namespaces", "a,b", "--api-server", kube.url, "--api-token", account(kube, tmp_path),
            "--api-ca", "", "--health-port", str(free_port()),
        )  # fmt: skip
        assert b"our account may not list pods in b;" in done.stdout
        assert done.returncode == 1


def account(kube: FakeKube, folder: pathlib.Path) -> str:
    path = folder / "account"
    path.write_text(kube.token)
    return str(path)
