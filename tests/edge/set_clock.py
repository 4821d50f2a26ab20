"""`daalu-edge` on a node whose clock somebody sets: `python -m tests.edge.set_clock FILE WORDS...`.

The file holds how many seconds the wall clock is ahead; it is read at every look. Durations are not touched.
"""

from __future__ import annotations

import pathlib
import sys
import time

_file = pathlib.Path(sys.argv.pop(1))
_real_time = time.time


def _set_time() -> float:
    return _real_time() + float(_file.read_text())


time.time = _set_time

from edge_agent.cli import main  # noqa: E402 # what it imports takes the clock that was set

if __name__ == "__main__":
    main()
