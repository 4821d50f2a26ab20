"""The behaviours B1 to B36 and B40 of a WireGuard, each named by its test, on virtual time and a wiretap."""
