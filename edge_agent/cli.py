"""`daalu-edge run, bootstrap, rotate, doctor, test`: reads the settings, runs one command, says how it ended.

Commands are imported when they run: the Job needs no tunnel, and `--help` needs nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from edge_agent import __version__
from edge_agent.settings import SettingError, Settings, add_flags, read_settings

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "run": "hold the tunnel and answer the hub",
    "bootstrap": "redeem the token: what the bootstrap Job does",
    "rotate": "replace the private key",
    "doctor": "check every hop to the hub and to the API server, one line each",
    "test": "check an installation from inside the cluster: what `helm test` does",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="daalu-edge", description="Joins this cluster to a Daalu hub.")
    parser.add_argument("--version", action="version", version=f"daalu-edge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        add_flags(commands.add_parser(name, help=text, description=text.capitalize() + "."))
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

    return trio.run(run_agent, settings)


def _bootstrap(settings: Settings) -> int:
    import trio

    from edge_agent.bootstrap import Bootstrap, run_bootstrap
    from edge_agent.hubapi import HubApi
    from edge_agent.kube import Kube
    from edge_agent.store import open_store

    async def work() -> tuple[int, str]:
        kube = Kube(settings)
        return await run_bootstrap(
            Bootstrap(settings, open_store(settings, kube), kube, HubApi(settings)), settings.deadline
        )

    code, line = trio.run(work)
    print(line, flush=True)
    return code


def _rotate(_: Settings) -> int:
    print(
        "not_supported: key rotation is not part of this version; a new invite gives the cluster a new key", flush=True
    )
    return 2


def _doctor(settings: Settings) -> int:
    import trio

    from edge_agent.doctor import doctor

    return trio.run(doctor, settings)


def _test(settings: Settings) -> int:
    import trio

    from edge_agent.doctor import test

    return trio.run(test, settings)


_COMMANDS: Final = {"run": _run, "bootstrap": _bootstrap, "rotate": _rotate, "doctor": _doctor, "test": _test}
