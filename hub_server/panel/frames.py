"""What passes between the hub and the worker of a line: frames of a JSON header and octets.

    frame = length of header, 4 octets | length of octets, 4 octets | header, a JSON object | octets

The hub sends one `command`, the worker any number of `ask`, each answered by one `reply`, and at last one `result`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["LONGEST_OUTPUT", "PREFIX", "Question", "Reply", "packed"]

PREFIX: Final = struct.Struct("!II")
LONGEST_OUTPUT: Final = 2**20


@dataclass(frozen=True, slots=True)
class Question:
    """One request to the API server.

    Attributes:
        target: path and query.
        accept: media types.
        review: the body of a POST that asks what one may; None for a GET.
        most: octets that the answer may have.
        is_text: whether what came counts although a limit ended it: a log.
    """

    target: str
    accept: str
    review: Mapping[str, Any] | None
    most: int
    is_text: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of it.

    Attributes:
        status: of HTTP; 0 when there was no answer.
        octets: the body.
        problem: why there was no answer, to people; empty when there was.
        is_too_large: there was more than was asked for.
        is_over: the time of the line is over.
    """

    status: int
    octets: bytes | bytearray
    problem: str = ""
    is_too_large: bool = False
    is_over: bool = False


def packed(header: Mapping[str, Any], octets: int = 0) -> bytes:
    """The beginning of a frame; as many octets follow."""
    text = json.dumps(header).encode()
    return PREFIX.pack(len(text), octets) + text
