"""What happens to packets in bulk: rows of a slab, split, sealed, opened and merged.

Knows no peers, no timers, no handshake.
"""
