"""Faces of a tunnel for everybody who does not write trio: other libraries, threads, sockets, proxies, whole programs.

Each optional library is imported in the module of its name and nowhere else.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """A module of this package, loaded when it is first asked for."""
    if name not in __dir__():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]
