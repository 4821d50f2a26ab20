"""The trio shell: the only nursery, the only clock, the only logger."""
