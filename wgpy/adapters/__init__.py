"""Bridges from the streams of a tunnel to other worlds; each optional dependency stays in its own module."""
