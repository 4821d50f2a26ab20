"""The hub's front door: HTTP/1.1 and WebSocket on trio, over h11 and wsproto, for one ASGI application.

Nothing else is spoken: HTTP/2 by preface is refused, `Upgrade: h2c` and any upgrade but WebSocket are ignored as RFC
9110 section 7.8 allows, and the request is answered in HTTP/1.1. Each connection is a task of its own whose failure is
its own; time, octets and descriptors of each are bounded (`limits`, `room`).

    server.py      accept loop, places, TLS, the end in order
    room.py        who may be connected, and who goes when it is full
    transport.py   a socket as a stream; how TLS begins
    connection.py  requests in turn; refusals of our own; the application's failures
    request.py     a head as h11 read it -> ASGI scope, or a refusal
    exchange.py    one request and its answer as ASGI
    websocket.py   one WebSocket as ASGI
    chatter.py     rate-limited lines about strangers
    limits.py      numbers

What an application may rely on, beyond ASGI 3 (spec version 2.5):

- `scope["state"]["request_id"]` is the request's id, made here. It is in the answer (`x-request-id`), in refusals of
  the server's own, and in the log line of a failure. No id is taken from outside.
- `receive()` returns `http.disconnect` only when the client hung up (or was given up: its body came too slowly or was
  malformed) BEFORE the answer was complete. Once the last `http.response.body` was sent, nothing is delivered any
  more: a `receive()` that waits then goes on waiting, until the application stops waiting for it, or is ended by the
  server five seconds later. So a task that waits for the disconnect beside the answer may be cancelled when the answer
  is done, in any order, and never mistakes the end of a good answer for a hang-up.
- `send()` of the last piece returns when all of the answer was handed to the kernel: the answer was given. It raises
  `HungUp`, an OSError, when nobody is there to take it, the stall of a reader included; what the application then lets
  out is no failure and is not logged as one.
- An application that returns before its answer is complete breaks it off: the client sees that it is not whole.
- What an application raises is logged once with its id and answered with 500 if nothing was sent; a `HubError` is
  answered with its own status.
"""

from hub_server.http.connection import Application, Explain, Scope, Service, problem_document
from hub_server.http.exchange import HungUp, Message
from hub_server.http.limits import Limits, places, raise_descriptor_limit
from hub_server.http.room import Room
from hub_server.http.server import Server, Statistics

__all__ = [
    "Application",
    "Explain",
    "HungUp",
    "Limits",
    "Message",
    "Room",
    "Scope",
    "Server",
    "Service",
    "Statistics",
    "places",
    "problem_document",
    "raise_descriptor_limit",
]
