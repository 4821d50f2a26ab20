"""CONF, as every command takes it: a file, or the name of one in /etc/wireguard."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wgpy.cli.check import read_text
from wgpy.errors import ConfigError

if TYPE_CHECKING:
    from wgpy.config import InterfaceConfig

__all__ = ["path_of_conf", "read_conf"]

_CONFIGURATIONS: Final = Path("/etc/wireguard")


def path_of_conf(conf: str) -> Path:
    """The file that CONF means."""
    return Path(conf) if "/" in conf or conf.endswith(".conf") else _CONFIGURATIONS / f"{conf}.conf"


def read_conf(conf: str) -> InterfaceConfig:
    """The configuration that CONF means, with a private key in it.

    Raises:
        OSError: the file cannot be read.
        ConfigError: something is wrong in it.
    """
    from wgpy.config import InterfaceConfig

    path = path_of_conf(conf)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        print(f"wgpy: warning: others can read {path}, which holds a private key: chmod 600 {path}", file=sys.stderr)
    try:
        config = InterfaceConfig.from_ini(read_text(str(path)))
    except ConfigError as problem:
        raise ConfigError(f"{path}: {problem}; `wgpy check {path}` says more") from None
    if config.private_key is None:
        raise ConfigError(f"{path} has no PrivateKey; make one with `wgpy genkey`")
    return config
