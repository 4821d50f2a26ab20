"""The hub: where operators invite, see and reach private clusters. Empty until the hub and edge exist."""
