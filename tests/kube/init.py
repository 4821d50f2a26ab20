"""The first process of a sandbox: it holds the namespaces open and buries the children of those who died.

`python -I tests/kube/init.py`; when it ends, the kernel ends everything else in its PID namespace.
"""

import os
import signal


def main() -> None:
    """Wait for children for ever; SIGCHLD only has to interrupt the pause."""
    signal.signal(signal.SIGCHLD, lambda *_: None)
    print("holding", flush=True)
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            pass
        signal.sigtimedwait([signal.SIGCHLD], 1.0)


if __name__ == "__main__":
    main()
