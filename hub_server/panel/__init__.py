"""The "kubectl run" panel: a line to API requests, answers to what kubectl would print. No shell, and no kubectl.

    line -> domain.panel.parse -> Command -> a worker process -> `Line`: get, describe, logs, ... -> PanelResult
                                     ask -> here -> Upstream -> edge -> API server
                                             octets, counted -> the worker reads and prints them

A cluster may be hostile, and what it answers is read in a process of its own (`worker`), which has bounds on memory and
processor time and ends with its line: the hub itself only carries octets. Requests run as the identity of the grant,
like those of a kubeconfig.
"""

from hub_server.panel.run import LONGEST_OUTPUT, TIME_LIMIT, Panel

__all__ = ["LONGEST_OUTPUT", "TIME_LIMIT", "Panel"]
