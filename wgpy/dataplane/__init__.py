"""What happens to packets in bulk: rows of a slab, sealed, opened, split and merged. Knows no peers, no timers, no handshake."""
