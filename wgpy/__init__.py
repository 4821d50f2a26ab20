"""WireGuard in Python."""
