"""Packets in and out of the kernel: the PacketDevice door, the Linux TUN driver, and a pair of devices joined in memory."""
