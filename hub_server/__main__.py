"""`daalu-hub`, also as `python -m hub_server`: says in a line when the hub's libraries are not installed."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run one command and exit with its code; see `cli`."""
    try:
        from hub_server.cli import main as run

        run()
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in ("hub_server", "wgpy"):
            raise
        print(
            f"daalu-hub: {missing.name} is not installed: the hub needs its own libraries, "
            "pip install 'wgpy[hub]' brings them",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
