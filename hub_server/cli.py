"""`daalu-hub serve` and its sisters: reads the settings, runs one command, says how it ended.

Whatever goes wrong is one line; the codes are in `--help`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import trio

from hub_server import __version__
from hub_server.settings import Settings, SettingsError, load, table

__all__ = ["main"]

_EXAMPLES: Final = """\
examples:
  daalu-hub serve                                        everything in ./daalu-hub-data, https://localhost:8443
  daalu-hub serve --data /var/lib/daalu-hub --public-url https://hub.example.com \\
      --listen 0.0.0.0:443 --tls-cert fullchain.pem --tls-key privkey.pem
  daalu-hub create-admin ada@example.com                 another administrator, with a password printed once
  daalu-hub deactivate-account bob@example.com           ends his sessions, kubeconfigs and tokens at once
  daalu-hub settings                                     every setting: file, environment, flag, default

exit codes:
  0    done
  1    it failed, and the line says why; verify-audit: a chain is broken
  2    a setting or an argument is wrong, or the hub's libraries are not installed
  130  interrupted
"""
_SETTINGS_HELP: Final = "settings (also DAALU_HUB_<NAME>, or a key of --config FILE; flags win)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="daalu-hub",
        description="Invite, see and reach private Kubernetes clusters.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"daalu-hub {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in _COMMANDS.items():
        command = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", argument_default=argparse.SUPPRESS
        )
        if name in ("create-admin", "deactivate-account", "activate-account"):
            command.add_argument("email", help="e-mail address, which is the name to sign in with")
        if name in ("serve", "verify-audit"):
            command.add_argument("--json", action="store_true", help="say what happened as one JSON object per line")
        if name != "settings":
            _add_settings(command)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(_SETTINGS_HELP)
    group.add_argument("--config", metavar="FILE", help="TOML file of settings")
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "", ()) else f" [{field.default}]"
        group.add_argument(
            "--" + name.replace("_", "-"),
            metavar=name.rpartition("_")[2].upper(),
            help=(field.description or "").replace("%", "%%") + default,
        )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    flags = vars(_parser().parse_args(arguments))
    run, _ = _COMMANDS[flags.pop("command")]
    try:
        code = run(flags)
    except SettingsError as problem:
        code = _fail(f"daalu-hub: {problem}", 2)
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.exit(code)


def _fail(line: str, code: int = 1) -> int:
    print(line, file=sys.stderr, flush=True)
    return code


def _read(flags: dict[str, Any]) -> Settings:
    import os

    from hub_server import log

    settings = load(flags, os.environ)
    log.configure(settings.log_level)
    return settings


def _on_store(flags: dict[str, Any], work: Callable[[Settings], int]) -> int:
    """Run a command on the data folder; what commonly goes wrong there becomes one line."""
    from sqlalchemy.exc import SQLAlchemyError

    from hub_server.domain.errors import HubError
    from hub_server.keyfiles import AlreadyRunning
    from hub_server.store.database import StoreUnavailable
    from hub_server.supervise import Fatal

    settings = _read(flags)
    try:
        return work(settings)
    except (SettingsError, ModuleNotFoundError):
        raise
    except StoreUnavailable as problem:
        return _fail(f"daalu-hub: {problem.trouble.text} ({settings.database or settings.database_file})")
    except (AlreadyRunning, Fatal, HubError) as problem:
        return _fail(f"daalu-hub: {problem}")
    except OSError as problem:
        where = f" ({problem.filename})" if problem.filename else ""
        return _fail(f"daalu-hub: {problem.strerror or problem}{where}")
    except ValueError as problem:
        return _fail(f"daalu-hub: {problem}")
    except SQLAlchemyError as problem:
        return _fail(f"daalu-hub: database: {getattr(problem, 'orig', None) or problem}")
    except Exception as problem:
        # A fault of ours: the log has where, for who asks for it.
        logging.getLogger("hub").debug("the command failed", exc_info=problem)
        more = "" if settings.log_level == "debug" else "; --log-level debug says where"
        return _fail(f"daalu-hub: this is a fault of the hub: {type(problem).__name__}: {problem}{more}")


# --- commands --------------------------------------------------------------------------------------------------------


def _serve(flags: dict[str, Any]) -> int:
    as_json = flags.pop("json", False)

    def work(settings: Settings) -> int:
        from hub_server.app import Hub

        def announce(hub: Hub) -> None:
            words: dict[str, Any] = {"event": "ready", "url": hub.url, "endpoints": list(hub.core.endpoints)}
            if hub.first_password is not None:
                words |= {"admin_email": settings.admin_email, "admin_password": hub.first_password}
            if as_json:
                print(json.dumps(words), flush=True)
                return
            print(f"daalu-hub {__version__} is ready: {hub.url}", flush=True)
            print(f"  edges send WireGuard to {', '.join(hub.core.endpoints)} (UDP)", flush=True)
            if hub.first_password is not None:
                print(f"  first administrator: {settings.admin_email}", flush=True)
                print(
                    f"  password:            {hub.first_password}   (shown once; change it after sign-in)", flush=True
                )

        trio.run(_serve_until_signal, settings, announce)
        return 0

    return _on_store(flags, work)


async def _serve_until_signal(settings: Settings, announce: Callable[[Any], None]) -> None:
    from hub_server.app import serve
    from hub_server.nursery import unwrapped
    from hub_server.supervise import start_part

    stopping = trio.Event()
    with unwrapped(), trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for _ in signals:
                    if stopping.is_set():  # somebody is in a hurry
                        nursery.cancel_scope.cancel()
                    stopping.set()

            start_part(nursery, listen)
            await serve(settings, announce, stopping)
            nursery.cancel_scope.cancel()


def _migrate(flags: dict[str, Any]) -> int:
    def work(settings: Settings) -> int:
        from hub_server.app import open_store
        from hub_server.keyfiles import lock_folder

        lock_folder(settings.data)
        database, _ = open_store(settings)
        print(f"the database is at its newest schema: {database.url.render_as_string(hide_password=True)}")
        database.close()
        return 0

    return _on_store(flags, work)


def _create_admin(flags: dict[str, Any]) -> int:
    email = flags.pop("email")

    def work(settings: Settings) -> int:
        from hub_server.app import open_store
        from hub_server.domain.names import is_email
        from hub_server.services.accounts import create_administrator

        if not is_email(email):
            raise SettingsError(f"email: {email!r} is not an e-mail address")

        database, _ = open_store(settings)
        password = create_administrator(database, settings, email, now=time.time())
        database.close()
        print(f"{email} may sign in with the password {password}   (shown once; change it after sign-in)")
        return 0

    return _on_store(flags, work)


def _set_active(flags: dict[str, Any], active: bool) -> int:
    email = flags.pop("email")

    def work(settings: Settings) -> int:
        from hub_server.app import open_store
        from hub_server.services.people import set_account_active

        database, _ = open_store(settings)
        with contextlib.closing(database):
            set_account_active(database, email, active, now=time.time())
        ended = "is nobody here any more: sessions, kubeconfigs and tokens have ended"
        print(f"{email} {'may sign in again' if active else ended}")
        return 0

    return _on_store(flags, work)


def _deactivate(flags: dict[str, Any]) -> int:
    return _set_active(flags, active=False)


def _activate(flags: dict[str, Any]) -> int:
    return _set_active(flags, active=True)


def _accept_keys(flags: dict[str, Any]) -> int:
    def work(settings: Settings) -> int:
        from hub_server.keyfiles import lock_folder
        from hub_server.keys import accept_keys
        from hub_server.store.database import Database, sqlite_url

        lock_folder(settings.data)
        with contextlib.closing(Database(settings.database or sqlite_url(settings.database_file))) as database:
            accept_keys(database, now=time.time())
        print("the next start takes the keys that it finds; clusters that do not come back must be invited again")
        return 0

    return _on_store(flags, work)


def _verify_audit(flags: dict[str, Any]) -> int:
    as_json = flags.pop("json", False)

    def work(settings: Settings) -> int:
        from sqlalchemy import select

        from hub_server import audit
        from hub_server.app import open_store
        from hub_server.store import schema

        database, _ = open_store(settings)
        chains = database.read_here(
            lambda connection: connection.execute(select(schema.audit_heads.c.chain)).scalars().all()
        )
        broken = {chain: at for chain in chains if (at := database.read_here(audit.verify, chain)) is not None}
        database.close()
        if as_json:
            print(json.dumps({"chains": len(chains), "broken": broken}))
        else:
            for chain, at in broken.items():
                print(f"chain {chain}: entry {at} is not as it was written")
            print(f"{len(chains)} chains, {len(broken)} broken")
        return 1 if broken else 0

    return _on_store(flags, work)


def _settings(_: dict[str, Any]) -> int:
    print(table())
    return 0


_COMMANDS: Final[dict[str, tuple[Callable[[dict[str, Any]], int], str]]] = {
    "serve": (_serve, "run the hub"),
    "migrate": (_migrate, "bring the database to the newest schema and end"),
    "create-admin": (_create_admin, "make an administrator, or give one a new password"),
    "deactivate-account": (_deactivate, "let somebody do nothing more here, at once"),
    "activate-account": (_activate, "let somebody who was deactivated sign in again"),
    "accept-keys": (_accept_keys, "let the next start take the keys that lie in the data folder, after one was lost"),
    "verify-audit": (_verify_audit, "check the hash chains of the audit log"),
    "settings": (_settings, "print every setting as a table"),
}
