"""`wgpy up`, `wgpy down`, and what `wireguard-py` does."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from wgpy.cli.conf import path_of_conf, read_conf
from wgpy.cli.parser import add_command
from wgpy.errors import DeviceError

if TYPE_CHECKING:
    import argparse

    from wgpy.cli.parser import Commands, Parser
    from wgpy.config import InterfaceConfig

__all__ = ["add_to", "hold"]

_SOCKETS = Path("/var/run/wireguard")
_PATIENCE = 10.0


def add_to(commands: Commands[Parser]) -> None:
    """Declare the commands."""
    up = add_command(
        commands,
        "up",
        _up,
        "bring an interface up from a configuration file",
        examples="  sudo wgpy up wg0                  /etc/wireguard/wg0.conf\n"
        "  sudo wgpy up ./office.conf        the interface is called office\n"
        "  sudo wgpy up --foreground wg0     until Ctrl-C; for systemd and containers\n",
    )
    up.add_argument("conf", metavar="CONF", help="a file NAME.conf, or the NAME of one in /etc/wireguard")
    up.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    up.add_argument("--keylog", metavar="FILE", help="append handshake secrets to this file, for Wireshark")
    down = add_command(
        commands,
        "down",
        _down,
        "take a userspace interface down",
        examples="  sudo wgpy down wg0\n  sudo wgpy down ./office.conf\n",
    )
    down.add_argument("conf", metavar="CONF", help="name of the interface, or the file that it was brought up from")


def hold(name: str, *, foreground: bool, config: InterfaceConfig | None = None) -> int:
    """Hold an interface, in the background unless told otherwise: the exit code."""
    # Threads of a linear algebra library that we have no use for: they cost memory and do not survive a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from wgpy.runtime.daemon import run_daemon

    foreground = foreground or os.environ.get("WG_PROCESS_FOREGROUND") == "1"
    return run_daemon(name, foreground=foreground, environment=os.environ, config=config)


def _up(options: argparse.Namespace) -> int:
    name, config = path_of_conf(options.conf).stem, read_conf(options.conf)
    left_out = [
        key
        for key, value in (
            ("DNS", config.dns),
            ("PreUp", config.pre_up),
            ("PostUp", config.post_up),
            ("PreDown", config.pre_down),
            ("PostDown", config.post_down),
            ("SaveConfig", config.save_config),
        )
        if value
    ]
    if left_out:
        print(
            f"wgpy: warning: {', '.join(left_out)} not acted upon; for these use "
            f"WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-py wg-quick up {options.conf}",
            file=sys.stderr,
        )
    if options.keylog:
        os.environ["WG_KEYLOG_FILE"] = options.keylog
    process = os.getpid()
    code = hold(name, foreground=options.foreground, config=config)
    if code == 0 and not options.foreground and os.getpid() == process:
        print(f"{name} is up; `wgpy show {name}` shows it, `wgpy down {name}` ends it")
    return code


def _down(options: argparse.Namespace) -> int:
    name = path_of_conf(options.conf).stem
    path = _SOCKETS / f"{name}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        try:
            client.connect(str(path))
        except OSError as problem:
            raise DeviceError(problem.errno, f"no userspace interface {name} is running ({problem.strerror})") from None
    # What wg-quick does too: a daemon whose control socket was removed ends, whoever wrote it.
    path.unlink(missing_ok=True)
    end = time.monotonic() + _PATIENCE
    while name in (interface for _, interface in socket.if_nameindex()):
        if time.monotonic() > end:
            raise DeviceError(None, f"{name} did not go within {_PATIENCE:g} s: ip link delete {name}")
        time.sleep(0.02)
    print(f"{name} is down")
    return 0
