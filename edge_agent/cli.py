"""`daalu-edge run, bootstrap, doctor, test`: reads the settings, runs one command, says how it ended.

Commands are imported when they run: the Job needs no tunnel, and `--help` needs nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from edge_agent import __version__
from edge_agent.settings import SettingError, Settings, add_flags, read_settings

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "run": "hold the tunnel and answer the hub",
    "bootstrap": "redeem the token: what the bootstrap Job does",
    "doctor": "check every hop to the hub and to the API server, one line each",
    "test": "check an installation from inside the cluster: what `helm test` does",
}


_EXAMPLES: Final = {
    "": """\
examples:
  daalu-edge doctor                  what works and what does not, from where you are
  daalu-edge bootstrap --help        settings, exit codes and examples of one command

Every setting is a flag or a variable; a flag wins. The chart daalu-edge sets the variables for you.
""",
    "run": """\
examples:
  daalu-edge run
      in the chart's pod: everything comes from the environment
  daalu-edge run --state-dir ~/.daalu --api-server http://127.0.0.1:8001 --health-port 0
      beside `kubectl proxy`, with the key in a folder instead of a Secret

Stops at SIGTERM within two seconds, with a goodbye to the hub. Exit codes: 0 stopped as asked, 1 the system refuses
something (a port that is taken), 2 a setting is wrong.
""",
    "bootstrap": """\
examples:
  daalu-edge bootstrap --hub-url https://hub.daalu.io --token-file token
      in the chart's Job: key into the Secret, token to the hub, configuration into the ConfigMap
  daalu-edge bootstrap --hub-url https://hub.daalu.io --token-file token --state-dir ~/.daalu --deadline 60
      without a cluster: key and configuration in a folder

Prints one line. Exit codes:
  0 joined, now or before      2 a setting is wrong        10 token expired or withdrawn   11 token used
  12 token unknown             13 key or clock refused     14 chart too old                15 no answer of a hub
  20 certificate or signature  21 hub not reachable        22 hub's name has no address
  23 API server not reachable  24 API server refuses our account
""",
    "doctor": """\
examples:
  kubectl -n daalu-edge exec deploy/daalu-edge -- daalu-edge doctor
      in the running pod: every hop
  kubectl run daalu-doctor --rm -i --restart=Never --image=ghcr.io/daalu/daalu-edge:0.1.0 \\
      -- doctor --hub-url https://hub.daalu.io
      before an installation, from inside the cluster: name, port, certificate, clock, and a WireGuard handshake
      over UDP with a key made for it: answered, refused, or no answer; $DAALU_HUB_CA_PEM for a hub of a private CA

One line per hop: `ok`, `FAIL` with what mends it, or `-` where it cannot be asked. Exit codes: 0 no hop fails, 1 one
does, 2 a setting is wrong.
""",
    "test": """\
examples:
  helm test -n daalu-edge daalu-edge

Waits up to a minute for the first handshake. Exit codes: those of `doctor`.
""",
}


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="daalu-edge",
        description="Joins this cluster to a Daalu hub.",
        epilog=_EXAMPLES[""],
        formatter_class=plain,
    )
    parser.add_argument("--version", action="version", version=f"daalu-edge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text.capitalize() + ".",
            epilog=_EXAMPLES[name],
            formatter_class=plain,
        )
        add_flags(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    flags = vars(_parser().parse_args(arguments))
    command = flags.pop("command")
    try:
        settings = read_settings(flags)
    except SettingError as problem:
        print(f"bad_setting: {problem}", flush=True)
        sys.exit(2)
    from edge_agent import log

    log.configure(settings.log_level)
    try:
        code = _COMMANDS[command](settings)
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.exit(code)


def _run(settings: Settings) -> int:
    import trio

    from edge_agent.agent import run_agent

    # Every stream holds a connection to the API server; many runtimes begin with 1,024 descriptors.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return trio.run(run_agent, settings)


def _bootstrap(settings: Settings) -> int:
    import trio

    from edge_agent.bootstrap import Bootstrap, run_bootstrap
    from edge_agent.hubapi import HubApi
    from edge_agent.kube import Kube
    from edge_agent.store import open_store

    async def work() -> tuple[int, str]:
        kube = Kube(settings)
        try:
            job = Bootstrap(settings, open_store(settings, kube), kube, HubApi(settings))
            return await run_bootstrap(job, settings.deadline)
        finally:
            await kube.aclose()

    code, line = trio.run(work)
    print(line, flush=True)
    return code


def _doctor(settings: Settings) -> int:
    import trio

    from edge_agent.doctor import doctor

    return trio.run(doctor, settings)


def _test(settings: Settings) -> int:
    import trio

    from edge_agent.doctor import test

    return trio.run(test, settings)


_COMMANDS: Final = {"run": _run, "bootstrap": _bootstrap, "doctor": _doctor, "test": _test}
