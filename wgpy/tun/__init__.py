"""Packets in and out of the kernel.

The PacketDevice door, the Linux TUN driver, and a pair of devices joined in memory.
"""
