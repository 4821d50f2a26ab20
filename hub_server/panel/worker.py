"""The process that reads a cluster's answers for one line, and prints: `python -m hub_server.panel.worker`.

It asks through its standard output and is answered on its standard input (see `frames`). Whatever a document holds
costs this process at most its bounds; the hub then says that the line failed. No network, no file, no secret in here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import sys
import traceback
from typing import Any, BinaryIO, Final

from hub_server.domain.panel import Command
from hub_server.panel.frames import PREFIX, Question, Reply, packed
from hub_server.panel.line import run_line

# The interpreter itself holds a quarter of it; what the hub holds of a line, an answer and a result, comes on top.
_MEMORY: Final = 36 * 2**20
_SECONDS_OF_PROCESSOR: Final = 20


def main() -> int:
    """Run one line."""
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS_OF_PROCESSOR, _SECONDS_OF_PROCESSOR))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)  # pages and kubectl come first
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    header, _ = _read(source)
    command = Command(header["verb"], tuple(header["words"]), header["flags"])

    def ask(question: Question) -> Reply:
        sink.write(packed({"ask": dataclasses.asdict(question)}))
        sink.flush()
        answer, octets = _read(source)
        return Reply(**answer, octets=octets)

    try:
        result = dataclasses.asdict(run_line(command, ask, header["now"]))
    except MemoryError:
        result = {"fault": "memory"}
    except Exception as problem:
        # Where, never what: a document's content stays in here.
        at = traceback.extract_tb(problem.__traceback__)[-1]
        result = {"fault": f"{type(problem).__name__} in {os.path.basename(at.filename)}, line {at.lineno}"}
    sink.write(packed({"result": result}))
    sink.flush()
    return 0


def _read(source: BinaryIO) -> tuple[dict[str, Any], bytes]:
    prefix = source.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        sys.exit(0)  # the hub has given up this line
    header, octets = PREFIX.unpack(prefix)
    return json.loads(source.read(header)), source.read(octets)


if __name__ == "__main__":
    sys.exit(main())
