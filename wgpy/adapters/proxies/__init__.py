"""Doors on this machine that lead into the tunnel, for programs that cannot be changed.

    SOCKS5, HTTP, forwards (socks5, http, forwards)   one handler per connection, each behind the same gate
        |
    Gate (gate)                                       who may come in, how many, for how long; what is counted
        |
    relay (wgpy.adapters.relay)                       octets both ways, half-close and reset included
        |
    Net (wgpy.adapters.net)                           the tunnel: names are resolved in there

`service` opens the doors that somebody asks for, and closes them in good order.
"""
