"""A TCP/IP stack without I/O: packets in, packets out, the time passed as an argument.

    receive(slabs, now)  ->  stack (demultiplexing)  ->  tcp, udp, icmp  ->  sockets whose readiness changed
    emit(now, budget)    <-  stack (fair between flows)  <-  tcp.sender (runs of bytes become rows of a slab)

It knows no peers, no keys and no sockets of the system; `runtime/netdevice` puts it behind the PacketDevice door.
"""
