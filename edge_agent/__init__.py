"""The edge agent: one small pod per cluster that holds the tunnel to the hub and fronts the API server.

    bootstrap Job:  token -> bootstrap -> hub's answer -> Secret, ConfigMap
    edge pod:       state (Secret, ConfigMap) -> tunnel -> control (beats, hello, nodes)
                                                       -> apiproxy (the hub's requests) -> kube -> API server

`contract` is what both ends agreed upon, `settings` what the chart says, `cli` the door. The agent never imports the
hub, listens on nothing of the pod network but the probes' port, and dials nothing but hub and API server.
"""

__version__ = "0.1.0"
