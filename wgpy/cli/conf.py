"""CONF, as every command takes it: a file, or the name of one in /etc/wireguard."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wgpy.cli.check import read_octets
from wgpy.errors import ConfigError

if TYPE_CHECKING:
    from wgpy.cli.parser import Parser
    from wgpy.config import InterfaceConfig

__all__ = ["add_conf", "path_of_conf", "read_conf"]

_CONFIGURATIONS: Final = Path("/etc/wireguard")
_VARIABLE: Final = "WGPY_CONF"


def add_conf(parser: Parser) -> None:
    """Declare CONF, which may be left out where the environment names it."""
    parser.add_argument(
        "conf",
        metavar="CONF",
        nargs="?",
        help=f"a file NAME.conf, or the NAME of one in /etc/wireguard; if left out, what {_VARIABLE} says",
    )


def path_of_conf(conf: str) -> Path:
    """The file that CONF means."""
    return Path(conf) if "/" in conf or conf.endswith(".conf") else _CONFIGURATIONS / f"{conf}.conf"


def read_conf(conf: str | None) -> InterfaceConfig:
    """The configuration that CONF means, with a private key in it.

    Raises:
        OSError: the file cannot be read.
        ConfigError: something is wrong in it, or there is no CONF.
    """
    from wgpy.config import InterfaceConfig

    conf = conf or os.environ.get(_VARIABLE)
    if not conf:
        raise ConfigError(f"which tunnel? Give CONF first, or set {_VARIABLE}")
    path = path_of_conf(conf)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        print(f"wgpy: warning: others can read {path}, which holds a private key: chmod 600 {path}", file=sys.stderr)
    try:
        config = InterfaceConfig.from_ini(read_octets(str(path)))
    except ConfigError as problem:
        raise ConfigError(f"{path}: {problem}; `wgpy check {path}` says more") from None
    if config.private_key is None:
        raise ConfigError(f"{path} has no PrivateKey; make one with `wgpy genkey`")
    return config
