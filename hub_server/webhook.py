"""One delivery of a webhook: the name is looked up, every address judged, and the judged address dialled.

Redirects are not followed. What goes wrong is told by its kind alone: an address, a name or a word of the other side
in it would show the inside of a network to whoever may make a channel.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import h11
import trio

from hub_server.domain.targets import is_allowed

__all__ = ["Refused", "Unreachable", "Webhooks", "check_url", "signature"]

TIMEOUT: Final = 10.0
ANSWER_LIMIT: Final = 64 * 1024
_LOOK_UP_WITHIN: Final = 3.0  # where somebody waits for it
_LOOKUPS: Final = 32  # names that are looked up at once: each holds a thread
_NOT_PUBLIC: Final = "{} leads to an address that is not public, which webhooks may not go to (setting webhook_allow)"

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


class Refused(Exception):
    """The target answered, but not with 2xx: it lives, and does not want this message."""


class Unreachable(Exception):
    """The target could not be asked, or did not answer: the text is the kind of failure."""


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """The value of `Daalu-Signature`: a time and an HMAC-SHA256 over the time, a dot and the body."""
    mac = hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={mac}"


def check_url(url: str) -> str:
    """Return what is wrong with the address of a webhook as it is written, or the empty string."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "that is not a URL"
    if parts.scheme != "https":
        return "a webhook is an https:// URL"
    if not parts.hostname or parts.username or parts.password or parts.fragment or port == 0:
        return "a webhook is https://HOST[:PORT]/PATH without credentials"
    if any(ord(character) <= 32 or ord(character) >= 127 for character in url):
        return "a URL has no spaces or special characters: encode them"
    return ""


class Webhooks:
    """Sends messages to URLs."""

    def __init__(
        self,
        allow: Sequence[IPv4Network | IPv6Network] = (),
        *,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        """Take the networks that are allowed though they are not public; tests take their own CA and names."""
        self._allow = tuple(allow)
        self._tls = tls or ssl.create_default_context()
        self._lookup = lookup or self._look_up
        self._lookups = trio.CapacityLimiter(_LOOKUPS)

    async def check_target(self, url: str) -> str:
        """Return why messages may not go to a URL, or the empty string; a name that is not known yet is no reason."""
        parts = urlsplit(url)
        try:
            with trio.move_on_after(_LOOK_UP_WITHIN):
                await self._judged(parts.hostname or "", parts.port or 443)
        except Refused as refused:
            return str(refused)
        except Unreachable:
            pass
        return ""

    async def post(self, url: str, body: bytes, *, secret: bytes, delivery: str, timestamp: int) -> None:
        """Deliver one message.

        Raises:
            Refused: the target may not be asked, or answered with something else than 2xx.
            Unreachable: there was no answer.
        """
        try:
            with trio.fail_after(TIMEOUT):
                status = await self._post(url, body, secret, delivery, timestamp)
        except trio.TooSlowError:
            raise Unreachable(f"no answer within {TIMEOUT:g} s") from None
        except (OSError, trio.BrokenResourceError, h11.ProtocolError, ValueError) as problem:
            raise Unreachable(_kind(problem)) from problem
        if not 200 <= status < 300:
            raise Refused(f"answered {status}" + (": redirects are not followed" if 300 <= status < 400 else ""))

    async def _post(self, url: str, body: bytes, secret: bytes, delivery: str, timestamp: int) -> int:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        addresses = await self._judged(host, port)
        stream = trio.SSLStream(await _dial(addresses, port), self._tls, server_hostname=host, https_compatible=True)
        async with stream:
            await stream.do_handshake()
            connection = h11.Connection(h11.CLIENT)
            events: list[Any] = [
                h11.Request(
                    method="POST",
                    target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
                    headers=[
                        ("Host", parts.netloc),
                        ("Content-Type", "application/json"),
                        ("Content-Length", str(len(body))),
                        ("User-Agent", "daalu-hub"),
                        ("Daalu-Delivery", delivery),
                        ("Daalu-Signature", signature(secret, timestamp, body)),
                        ("Connection", "close"),
                    ],
                ),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ]
            await stream.send_all(b"".join(connection.send(event) or b"" for event in events))
            return await _status(connection, stream)

    async def _judged(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a name, if webhooks may go to every one of them."""
        try:
            addresses = await self._lookup(host, port)
        except (OSError, UnicodeError):
            raise Unreachable("the name is not known") from None
        if not addresses:
            raise Unreachable("the name is not known")
        for address in addresses:
            if not is_allowed(_address(address), self._allow):
                raise Refused(_NOT_PUBLIC.format(host[:100]))
        return addresses

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        # In threads of its own number: names without an answer must not use up those of the whole hub.
        found = await trio.to_thread.run_sync(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            limiter=self._lookups,
            abandon_on_cancel=True,
        )
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _dial(addresses: Sequence[str], port: int) -> trio.SocketStream:
    """Dial what was judged, not the name: it could lead somewhere else the second time."""
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return await trio.open_tcp_stream(address, port)
    return await trio.open_tcp_stream(addresses[-1], port)


def _address(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text.partition("%")[0])


async def _status(connection: h11.Connection, stream: trio.abc.ReceiveStream) -> int:
    seen = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is h11.NEED_DATA:
            data = await stream.receive_some(16384)
            if not data:
                raise Unreachable("closed without an answer")
            seen += len(data)
            if seen > ANSWER_LIMIT:
                raise Unreachable("the answer has no end")
            connection.receive_data(bytes(data))


def _kind(problem: BaseException) -> str:
    """What kind of failure it was; never its text, which names addresses."""
    cause = problem.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "its certificate is not valid"
    if isinstance(cause, ssl.SSLError):
        return "it does not speak TLS as we do"
    match problem:
        case h11.ProtocolError() | ValueError():
            return "it does not speak HTTP"
        case trio.BrokenResourceError():
            return "the connection broke off"
        case _:
            return "no connection"
