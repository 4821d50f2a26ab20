"""The hub over HTTPS: `POST /v1/edge/bootstrap`, `/self` and `/probe`, and what its answers mean.

Every way to fail is one row of a table: exit code, cause, remedy, and whether another try may help. Bodies are never
logged. The hub is trusted for its WireGuard key, which the token carries; TLS is verified on top of that, always.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import socket
import ssl
import urllib.parse
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import h11
import trio

from edge_agent import __version__
from edge_agent.contract import PROTOCOL, Exchange, HubConfig, Token, canonical_key, encode_key
from edge_agent.dial import Origin, Proxy, ProxyRefused, bypasses, cause_of, proxy_of
from edge_agent.foreign import Document, ForeignError, digits, http_date
from edge_agent.http import Answer, open_connection
from edge_agent.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.settings import Settings

__all__ = ["CAUSES", "Cause", "HubApi", "Joined", "Probe", "SelfState", "Stop", "stop_of"]

_TIMEOUT: Final = 30.0
_MOST: Final = 65536


@dataclasses.dataclass(frozen=True, slots=True)
class Cause:
    """One way in which a bootstrap ends.

    Attributes:
        exit_code: of the Job.
        text: what it means, and what to do.
        is_final: whether another try cannot help.
    """

    exit_code: int
    text: str
    is_final: bool = True


_NEW_INVITE: Final = "press Regenerate on the cluster's page and run the new command as `helm upgrade --install`"
CAUSES: Final = {
    "bad_setting": Cause(2, "a setting is missing or wrong"),
    "bad_token": Cause(2, "the token was not copied whole; copy the command again"),
    "token_expired": Cause(10, f"the token is older than an hour; {_NEW_INVITE}"),
    "token_revoked": Cause(10, f"the token was withdrawn or replaced by a newer one; {_NEW_INVITE}"),
    "token_used": Cause(
        11,
        "the token was already used by another cluster, or by this one before its Secret was lost (NeedsNewInvite); "
        f"{_NEW_INVITE}",
    ),
    "token_unknown": Cause(12, f"the hub does not know this token; check hub.url, or {_NEW_INVITE}"),
    "bad_pubkey": Cause(13, "the hub refuses our key: another cluster has it; empty the key Secret"),
    "bad_proof": Cause(
        13, f"the hub cannot verify our key: hub.url leads to another hub than the token; {_NEW_INVITE}"
    ),
    "clock_skew": Cause(
        13, "the clock of this node is wrong by more than 10 minutes; set it (NTP) and run the Job again"
    ),
    "version_too_old": Cause(14, "this chart is too old for the hub; run `helm upgrade` with the newest --version"),
    "unexpected_answer": Cause(15, "this is no answer of a hub; check hub.url and what stands between (proxy, portal)"),
    "tls": Cause(20, "the hub's TLS certificate is not to be trusted; check hub.url, the date, and hub.caBundle"),
    "hub_key": Cause(20, f"the answer was not signed by the hub that made the token; check hub.url, or {_NEW_INVITE}"),
    "network": Cause(21, "the hub cannot be reached; allow egress to it on 443/tcp (BootstrapUnreachable)", False),
    "rate_limited": Cause(21, "the hub asks to wait", False),
    "unavailable": Cause(21, "the hub is busy or away", False),
    "proxy": Cause(
        21, "the proxy of HTTPS_PROXY lets nobody through to the hub; ask its owner, or set NO_PROXY", False
    ),
    "dns": Cause(
        22, "the hub's name has no address; check hub.url and the cluster's DNS (BootstrapUnreachable)", False
    ),
    "api_unreachable": Cause(
        23, "the API server cannot be reached from this pod; a NetworkPolicy may forbid it", False
    ),
    "api_forbidden": Cause(24, "the bootstrap account lacks a permission; install the chart's RBAC (rbac.create)"),
}


class Stop(Exception):
    """The bootstrap cannot go on, now or at all.

    Attributes:
        code: a row of `CAUSES`.
        detail: what was seen, without secrets.
        retry_after: seconds the hub asks to wait, None if it does not.
    """

    def __init__(self, code: str, detail: str = "", *, retry_after: float | None = None) -> None:
        """Name the cause."""
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after

    @property
    def cause(self) -> Cause:
        """The row."""
        return CAUSES[self.code]

    def line(self) -> str:
        """One line for people: cause, what it means, what to do."""
        detail = f" ({self.detail})" if self.detail else ""
        return " ".join(f"{self.code}: {self.cause.text}{detail}".split())


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Joined:
    """A redeemed token.

    Attributes:
        config: public.
        psk: secret.
    """

    config: HubConfig
    psk: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class SelfState:
    """What the hub says of us.

    Attributes:
        state: active, deleted, revoked, blocked or unknown.
        at: since when, Unix seconds, or None.
        config: the current one, or None.
    """

    state: str
    at: float | None
    config: HubConfig | None


class Probe(NamedTuple):
    """Where a handshake is answered for a minute.

    Attributes:
        hub_key: of the hub, 32 octets.
        endpoints: `host:port` each.
    """

    hub_key: bytes
    endpoints: tuple[str, ...]


class HubApi:
    """The four requests an edge may make without a tunnel; each has a fresh connection and a fresh nonce.

    Attributes:
        clock_skew: seconds that our clock is ahead of the hub's, as of its last answer; None where it did not say.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        random: Callable[[int], bytes] = os.urandom,
        wall_clock: Callable[[], float] | None = None,
    ) -> None:
        """Remember where the hub is."""
        import time

        self.clock_skew: float | None = None
        self._settings = settings
        self._random = random
        self._wall_clock = wall_clock or time.time
        parts = urllib.parse.urlsplit(settings.hub_url)
        self._base = parts.path.rstrip("/")
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._is_tls = parts.scheme == "https"

    async def bootstrap(
        self, token: Token, exchange: Exchange, *, kube_version: str, cluster_uid: str | None
    ) -> Joined:
        """Redeem a token for our key.

        Raises:
            Stop: says whether another try may help.
        """
        nonce, ts = self._random(16), math.floor(self._wall_clock())
        answer = await self._post(
            "/v1/edge/bootstrap",
            {
                "token": token.text,
                "pubkey": encode_key(exchange.public_key),
                "proof": encode_key(exchange.request_proof(token.id, nonce, ts)),
                "nonce": encode_key(nonce),
                "ts": ts,
                "protocol": PROTOCOL,
                "chart_version": self._settings.chart_version,
                "agent_version": __version__,
                "kube_version": kube_version,
                "cluster_uid": cluster_uid,
            },
        )
        document = self._signed(answer, exchange, nonce)
        try:
            config = HubConfig.from_document(document)
            psk = exchange.open_psk(document.text("psk_sealed"), config.cluster_id)
        except ValueError as problem:
            raise Stop("unexpected_answer", str(problem)) from None
        if config.hub_key != token.hub_key:
            raise Stop("hub_key", "the answer names another hub key than the token")
        return Joined(config, psk)

    async def ask_self(self, exchange: Exchange) -> SelfState:
        """What has become of us.

        Raises:
            Stop: likewise.
        """
        nonce, ts = self._random(16), math.floor(self._wall_clock())
        answer = await self._post(
            "/v1/edge/self",
            {
                "pubkey": encode_key(exchange.public_key),
                "proof": encode_key(exchange.self_proof(nonce, ts)),
                "nonce": encode_key(nonce),
                "ts": ts,
            },
        )
        document = self._signed(answer, exchange, nonce)
        try:
            state = document.line("state", most=40)
            config = HubConfig.from_document(document.get("config")) if document.has("config") else None
            return SelfState(state, document.time("at"), config)
        except ValueError as problem:
            raise Stop("unexpected_answer", str(problem)) from None

    async def probe(self, public_key: bytes) -> Probe:
        """Ask for a handshake with a key that no hub knows, to see whether UDP gets there and back.

        Raises:
            Stop: likewise; `unexpected_answer` from a hub that is too old for it.
        """
        answer = await self._post("/v1/edge/probe", {"pubkey": encode_key(public_key)})
        try:
            document = Document.parse(answer.body, _MOST)
            endpoints = document.texts("endpoints", most=300)[:16]
            return Probe(canonical_key(document.octets("pubkey", length=32)), endpoints)
        except ForeignError as problem:
            raise Stop("unexpected_answer", str(problem)) from None

    def proxy(self) -> Proxy | None:
        """The proxy on the way to the hub, of HTTPS_PROXY and NO_PROXY; None where the hub is dialled itself.

        Raises:
            Stop: HTTPS_PROXY is none.
        """
        settings = self._settings
        if not self._is_tls or bypasses(settings.no_proxy, self._host, self._port):
            return None
        try:
            return proxy_of(settings.https_proxy)
        except (ValueError, OSError) as problem:
            raise Stop("bad_setting", f"HTTPS_PROXY: {problem}") from None

    def origin(self) -> Origin:
        """Whom to dial.

        Raises:
            Stop: the file of certificate authorities cannot be read.
        """
        if not self._is_tls:
            return Origin(self._host, self._port, None)
        context = client_context(None)
        if self._settings.hub_ca:
            try:
                context.load_verify_locations(self._settings.hub_ca)
            except (OSError, ssl.SSLError) as problem:
                raise Stop("bad_setting", f"--hub-ca {self._settings.hub_ca}: {problem}") from None
        if self._settings.hub_ca_pem:
            try:
                context.load_verify_locations(cadata=self._settings.hub_ca_pem)
            except (ValueError, ssl.SSLError) as problem:
                raise Stop("bad_setting", f"--hub-ca-pem: {problem}") from None
        return Origin(self._host, self._port, context)

    async def _post(self, path: str, document: dict[str, Any]) -> Answer:
        origin, proxy = self.origin(), self.proxy()
        headers = [
            (b"host", origin.authority.encode()),
            (b"user-agent", f"daalu-edge/{__version__}".encode()),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json"),
            (b"connection", b"close"),
        ]
        try:
            with trio.fail_after(_TIMEOUT):
                connection = await open_connection(origin, proxy)
                try:
                    body = json.dumps(document).encode()
                    answer = await connection.ask("POST", self._base + path, headers, body, most=_MOST)
                finally:
                    await connection.aclose()
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as problem:
            raise stop_of(problem, f"{self._host}:{self._port}") from None
        except h11.RemoteProtocolError as problem:
            raise Stop("network", f"not HTTP: {problem}") from None
        except ValueError as problem:  # not sooner: an SSLCertVerificationError is one too
            raise Stop("unexpected_answer", str(problem)) from None
        self.clock_skew = _skew(answer, self._wall_clock())
        if answer.status != 200:
            raise _refusal(answer, self._wall_clock())
        return answer

    @staticmethod
    def _signed(answer: Answer, exchange: Exchange, nonce: bytes) -> Document:
        if not exchange.is_signed(answer.body, nonce, answer.header("daalu-answer-mac")):
            raise Stop("hub_key")
        try:
            return Document.parse(answer.body, _MOST)
        except ForeignError as problem:
            raise Stop("unexpected_answer", str(problem)) from None


def stop_of(problem: BaseException, where: str) -> Stop:
    """What a failure of the network means."""
    cause = cause_of(problem)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Stop("tls", f"{where}: {cause.verify_message}")
    if isinstance(cause, ProxyRefused):
        return Stop("proxy", str(cause.strerror))
    if isinstance(cause, socket.gaierror):
        return Stop("dns", f"{where}: {cause.strerror}")
    return Stop("network", f"{where}: {cause.strerror or cause}")


def _refusal(answer: Answer, now: float) -> Stop:
    """What a status other than 200 means; the code in the body decides where the hub sent one."""
    retry_after = _seconds(answer.header("retry-after"))
    if answer.status == 429:
        return Stop("rate_limited", retry_after=retry_after)
    try:
        problem = Document.parse(answer.body, _MOST)
        code = problem.text("code", most=100)
        theirs = problem.time("now")
    except ForeignError:
        code, theirs = "", None
    if answer.status >= 500:
        return Stop("unavailable", code or f"status {answer.status}", retry_after=retry_after)
    if code == "clock_skew" and theirs is not None:
        minutes = (now - theirs) / 60
        return Stop(code, f"here it is {abs(minutes):.0f} min {'later' if minutes > 0 else 'earlier'} than at the hub")
    if code in CAUSES and CAUSES[code].is_final:
        return Stop(code)
    return Stop("unexpected_answer", f"status {answer.status}")


def _skew(answer: Answer, now: float) -> float | None:
    theirs = http_date(answer.header("date"))
    return None if theirs is None else now - theirs


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; a hub that asks for more than a day asks for a day."""
    try:
        return None if text is None else min(digits("retry-after", text, 0, 10**9), 86400) * 1.0
    except ForeignError:
        return None
