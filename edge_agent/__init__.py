"""The edge agent: one small pod per cluster that holds the tunnel to the hub. Empty until the hub and edge exist."""
