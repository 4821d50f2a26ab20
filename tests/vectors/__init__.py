"""Numbers that others computed. `SOURCES.md` says where each file is from."""

from __future__ import annotations

import json
import pathlib
from typing import Any

HERE = pathlib.Path(__file__).parent


def load(name: str) -> Any:
    """The content of one file, its hexadecimal texts as octets; `peer` is a name."""
    return _octets(json.loads((HERE / f"{name}.json").read_text()))


def _octets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: one if key == "peer" else _octets(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_octets(one) for one in value]
    return bytes.fromhex(value) if isinstance(value, str) else value
