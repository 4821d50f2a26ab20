"""The hub: where operators invite, see and reach private clusters."""

__version__ = "0.1.0"
