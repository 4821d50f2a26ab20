"""One question to the name servers inside the tunnel, as a machine: asks and answers, the time as an argument.

    start, handle_timer -> asks() -> (a socket of its own for each) -> receive_untrusted -> outcome

Every ask has a fresh identifier, a fresh port and the letters of its name in random case; an answer must repeat all
three from the address that was asked. Servers are asked in turn, DNS_TIMEOUT apart, DNS_ROUNDS times over; earlier asks
may still be answered meanwhile. What was truncated, or has lost the case of its letters on the way, is asked again over
TCP, where nobody can forge it from afar.

What was found is kept for as long as the answer says, in a small cache.

Source: RFC 1035 7, RFC 5452, RFC 6891 6.2.2, RFC 7766; draft-vixie-dnsext-dns0x20.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from wgpy.errors import BadPacket, DropReason
from wgpy.netstack.constants import (
    DNS_CACHE,
    DNS_CACHE_TIME,
    DNS_PAYLOAD,
    DNS_ROUNDS,
    DNS_TCP_TIMEOUT,
    DNS_TIMEOUT,
    NEVER,
)
from wgpy.wire import dns, ip
from wgpy.wire.dns import AAAA, CNAME, A, Name, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Ask", "Cache", "Outcome", "Query", "candidates"]

_MAX_ALIASES: Final = 16
_LONGEST_TTL: Final = 2**31 - 1  # RFC 2181 section 8
_FORMAT_ERROR: Final = 1
_NO_SUCH_NAME: Final = 3


class Outcome(enum.Enum):
    """How a question ended."""

    FOUND = "there are addresses"
    NO_DATA = "the name exists and has no address of this kind"
    NO_NAME = "there is no such name"
    SERVER_FAILURE = "every server refused or failed"
    NO_ANSWER = "no server answered"


class Ask(NamedTuple):
    """One message to one server, over a socket of its own.

    Attributes:
        server: address.
        over_tcp: over a stream, after two octets of length; else as a datagram.
        message: the query.
        name: as it is written in it.
    """

    server: str
    over_tcp: bool
    message: bytes
    name: Name


def candidates(host: str, search: Sequence[str]) -> list[str]:
    """The names that a host may have, as resolv.conf(5) orders them with `ndots:1`.

    One with a dot is taken as it is first, one without last; a dot at the end leaves nothing to search.
    """
    if host.endswith("."):
        return [host]
    longer = [f"{host}.{domain.strip('.')}" for domain in search]
    return [host, *longer] if "." in host else [*longer, host]


class Cache:
    """Answers by name and kind of address, bounded in number and time; the oldest goes first."""

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        """Know nothing."""
        self._answers: dict[tuple[Name, int], tuple[float, tuple[str, ...]]] = {}

    def get(self, name: str, version: int, now: float) -> tuple[str, ...]:
        """The addresses of a name, none when they are not known (any more).

        Raises:
            ValueError: the name cannot be one.
        """
        key = _lower(dns.parse_name(name)), version
        expires, addresses = self._answers.get(key, (NEVER, ()))
        if expires > now:
            return addresses
        del self._answers[key]
        return ()

    def put(self, query: Query, now: float) -> None:
        """Keep what a question found."""
        if query.addresses and query.ttl > 0:
            key = _lower(query.name), query.version
            self._answers.pop(key, None)
            self._answers[key] = now + min(query.ttl, DNS_CACHE_TIME), query.addresses
            if len(self._answers) > DNS_CACHE:
                del self._answers[next(iter(self._answers))]


class Query:
    """One name, one kind of address.

    Attributes:
        name: as it was given.
        version: of the addresses, 4 or 6.
        ttl: seconds for which the addresses are good.
        outcome: None until the question is settled.
        addresses: in the order of the answer.
        refused: answers that were not believed, by reason.
    """

    def __init__(self, name: str, version: int, servers: Sequence[str], *, random: Callable[[int], bytes]) -> None:
        """Prepare a question; `start` asks it.

        Args:
            name: of a host.
            version: 4 for A, 6 for AAAA.
            servers: addresses, at least one.
            random: gives so many random octets.

        Raises:
            ValueError: the name cannot be one.
        """
        self.outcome: Outcome | None = None
        self.addresses: tuple[str, ...] = ()
        self.refused: dict[DropReason, int] = {}
        self.name = dns.parse_name(name)
        self.version = version
        self.ttl = 0
        self._kind = A if version == 4 else AAAA
        self._turns = [server for _ in range(DNS_ROUNDS) for server in servers]
        self._random = random
        self._uses_edns = True
        self._was_answered = False
        self._deadline = NEVER
        self._asks: list[Ask] = []
        self._latest: Ask | None = None

    # --- out ---------------------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Ask the first server."""
        self._next(now)

    def asks(self) -> list[Ask]:
        """What is to be sent; handed out once."""
        asks, self._asks = self._asks, []
        return asks

    def next_deadline(self) -> float | None:
        """When the next server is asked, or the question given up; None when it is settled."""
        return None if self.outcome is not None else self._deadline

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self.outcome is None and now >= self._deadline:
            self._next(now)

    def failed(self, ask: Ask, now: float) -> None:
        """The network refused an ask, or its stream ended early: go on without waiting for its time to be over."""
        if self.outcome is None and ask is self._latest:
            self._next(now)

    def _next(self, now: float) -> None:
        if not self._turns:
            self.outcome = Outcome.SERVER_FAILURE if self._was_answered else Outcome.NO_ANSWER
            return
        self._ask(self._turns.pop(0), now, over_tcp=False)

    def _ask(self, server: str, now: float, *, over_tcp: bool) -> None:
        identifier = int.from_bytes(self._random(2))
        payload_size = DNS_PAYLOAD if self._uses_edns else None
        name = self._mixed_case()
        message = dns.encode_query(identifier, name, self._kind, payload_size=payload_size)
        self._latest = Ask(server, over_tcp, message, name)
        self._asks.append(self._latest)
        self._deadline = now + (DNS_TCP_TIMEOUT if over_tcp else DNS_TIMEOUT)

    def _mixed_case(self) -> Name:
        bits = int.from_bytes(self._random(32))
        labels = []
        for label in self.name:
            letters = bytearray(label.lower())
            for at, letter in enumerate(letters):
                if 0x61 <= letter <= 0x7A:
                    letters[at] = letter ^ (bits & 1) << 5
                    bits >>= 1
            labels.append(bytes(letters))
        return tuple(labels)

    # --- in ----------------------------------------------------------------------------------------------------------

    def receive_untrusted(self, ask: Ask, message: bytes, now: float) -> None:
        """Take what came back to the socket of an ask; what is not its answer is counted and changes nothing."""
        if self.outcome is not None:
            return
        try:
            response = Response.decode_untrusted(message)
            has_case = self._is_answer(ask, response)
        except BadPacket as bad:
            self.refused[bad.reason] = self.refused.get(bad.reason, 0) + 1
            return
        if (response.is_truncated or not has_case) and not ask.over_tcp:
            self._ask(ask.server, now, over_tcp=True)
        elif response.code == _FORMAT_ERROR and self._uses_edns:
            # RFC 6891 6.2.2: a server older than EDNS.
            self._uses_edns = False
            self._ask(ask.server, now, over_tcp=ask.over_tcp)
        elif response.code == _NO_SUCH_NAME:
            self.outcome = Outcome.NO_NAME
        elif response.code:
            self._was_answered = True
            self.failed(ask, now)
        else:
            self._take_addresses(response)
            self.outcome = Outcome.FOUND if self.addresses else Outcome.NO_DATA

    def _is_answer(self, ask: Ask, response: Response) -> bool:
        """Whether the letters have the case that we gave them.

        Raises:
            BadPacket: the answer is to something else.
        """
        name, kind = response.question
        is_answer = response.identifier == int.from_bytes(ask.message[:2]) and kind == self._kind
        if not is_answer or _lower(name) != _lower(ask.name):
            raise BadPacket(DropReason.DNS_FORGED)
        return name == ask.name

    def _take_addresses(self, response: Response) -> None:
        """Follow the aliases from the question to the addresses, which are good for as long as all of that is."""
        name = _lower(self.name)
        ttls = [_LONGEST_TTL]
        for _ in range(_MAX_ALIASES):
            found = [
                record
                for record in response.answers
                if record.kind == self._kind and record.data and _lower(record.name) == name
            ]
            if found:
                data = [record.data for record in found if isinstance(record.data, bytes)]
                self.addresses = tuple(dict.fromkeys(map(ip.to_text, data)))
                self.ttl = min(*ttls, *(record.ttl for record in found))
                return
            alias = next((r for r in response.answers if r.kind == CNAME and _lower(r.name) == name), None)
            if alias is None or not isinstance(alias.data, tuple):
                return
            ttls.append(alias.ttl)
            name = _lower(alias.data)


def _lower(name: Name) -> Name:
    return tuple(label.lower() for label in name)
