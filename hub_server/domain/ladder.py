"""Awaiting handshake: the hops from invite to connected, what the hub knows, and what to try.

A ladder, never a spinner: each hop says since when it waits. Source: product.md section 8, A38.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hub_server.domain.reasons import EXPLANATIONS, Reason
from hub_server.domain.status import SILENT, Phase

REASSURE_AFTER, HINT_AFTER, CAUSES_AFTER = 30.0, 120.0, 300.0
PATIENCE = 5.0  # seconds in which a handshake is confirmed or tried again

StepKey = Literal["invited", "redeemed", "key", "packet", "handshake", "api"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the hub knows of a row that is joining; times are Unix seconds."""

    now: float
    phase: Phase
    reason: Reason | None
    invited_at: float
    invite_expires_at: float | None
    redeemed_at: float | None = None
    redeemed_from: str | None = None
    first_packet_at: float | None = None
    connected_at: float | None = None
    api_state: str | None = None
    api_errno: str | None = None
    api_at: float | None = None
    job: str | None = None
    namespace: str | None = None
    hub_host: str = ""
    udp_port: int = 51820


@dataclass(frozen=True, slots=True)
class Hop:
    """One hop."""

    key: StepKey
    title: str
    state: Literal["done", "current", "waiting", "failed"]
    at: float | None = None
    took: float | None = None
    since: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """A cause, in the handbook's words, and the command that shows it."""

    title: str
    text: str
    command: str | None


def hops(facts: Facts) -> tuple[Hop, ...]:
    """The six hops, each done, current, waiting or failed."""
    origin = f"Token redeemed from {facts.redeemed_from}" if facts.redeemed_from else "Token redeemed"
    api_done = facts.connected_at is not None and facts.api_state == "ok"
    done: list[tuple[StepKey, str, str, float | None]] = [
        ("invited", "Invite created", "Invite", facts.invited_at),
        ("redeemed", origin, "Waiting for the bootstrap Job to redeem the token", facts.redeemed_at),
        # The answer leaves right after the redemption is committed: what follows is the edge's.
        ("key", "Key installed", "Key", facts.redeemed_at),
        ("packet", "First packet seen", f"Waiting for the first packet on UDP {facts.udp_port}", facts.first_packet_at),
        ("handshake", "Handshake confirmed", "Waiting for the handshake to be confirmed", facts.connected_at),
        ("api", *_of_api(facts), facts.api_at if api_done else None),
    ]
    result: list[Hop] = []
    before: float | None = None
    is_waiting = False
    for key, finished, waiting, at in done:
        if at is None and key == "packet" and facts.connected_at is not None:
            at = facts.connected_at
        if at is not None and not is_waiting:
            took = None if before is None else max(0.0, at - before)
            result.append(Hop(key, finished, "done", at=at, took=took))
            before = at
        elif not is_waiting:
            is_waiting = True
            failed = _failure(facts, key)
            state: Literal["current", "failed"] = "failed" if failed else "current"
            title = _FAILED.get(key, waiting) if failed else waiting
            result.append(Hop(key, title, state, since=before, detail=failed or _waiting_detail(key)))
        else:
            result.append(Hop(key, finished.removesuffix(" seen"), "waiting"))
    return tuple(result)


_FAILED: dict[StepKey, str] = {"redeemed": "Token not redeemed", "api": "API server does not answer the edge"}


def _of_api(facts: Facts) -> tuple[str, str]:
    """What the last hop is called when it is done, and before: what was heard of a tunnel that is down is history."""
    done = "API server answers" if facts.phase is Phase.CONNECTED else "API server answered"
    return done, "Waiting for the API server to answer"


def has_left(facts: Facts) -> bool:
    """Whether the cluster had joined, and its tunnel is down now."""
    return facts.connected_at is not None and facts.phase in SILENT


def _failure(facts: Facts, key: StepKey) -> str:
    if key == "redeemed" and facts.reason is Reason.INVITE_EXPIRED:
        return "the invite has expired: regenerate it"
    if key == "redeemed" and facts.reason is Reason.INVITE_REVOKED:
        return "the invite was withdrawn: regenerate it"
    if key == "api" and facts.api_state in ("unreachable", "forbidden"):
        return f"tunnel up, API server unreachable from the edge pod: {facts.api_errno or facts.api_state}"
    return ""


def _waiting_detail(key: StepKey) -> str:
    return "usually under 30 seconds" if key in ("packet", "handshake", "api") else ""


def waited(facts: Facts) -> float:
    """Seconds in the current hop."""
    for hop in hops(facts):
        if hop.state in ("current", "failed"):
            return max(0.0, facts.now - (hop.since or facts.invited_at))
    return 0.0


def is_finished(facts: Facts) -> bool:
    """Connected, and the API server answers."""
    return facts.phase is Phase.CONNECTED and facts.api_state == "ok"


def _is_settled(facts: Facts) -> bool:
    """Whether nothing is waited for: it is done, it had been done, or its token can never be used."""
    is_void = facts.redeemed_at is None and facts.reason in (Reason.INVITE_EXPIRED, Reason.INVITE_REVOKED)
    return is_finished(facts) or has_left(facts) or is_void or facts.phase is Phase.BLOCKED


def known(facts: Facts) -> str:
    """What the hub itself knows, one sentence; shown above every guess."""
    if is_finished(facts):
        return "Connected: the tunnel is up and the API server answers."
    if facts.phase is Phase.BLOCKED:
        return "The cluster is blocked until an admin accepts it."
    if facts.connected_at is not None and facts.phase is Phase.CONNECTED:
        if facts.api_state in ("unreachable", "forbidden"):
            return (
                f"The tunnel is up; the edge pod does not reach its API server: {facts.api_errno or facts.api_state}."
            )
        return "The tunnel is up; the edge has not told yet whether its API server answers."
    if has_left(facts):
        means = EXPLANATIONS[facts.reason].means if facts.reason else "nothing is heard of the edge"
        return f"The cluster had joined; its tunnel is down now: {means}."
    if facts.redeemed_at is None:
        if facts.reason is Reason.INVITE_EXPIRED:
            return "The token was not used within its hour."
        if facts.reason is Reason.INVITE_REVOKED:
            return "The token was withdrawn before it was used."
        return "The token has not been used yet: the bootstrap Job has not reached the hub."
    if facts.first_packet_at is None:
        return "The token was redeemed, but no WireGuard packet has arrived."
    if facts.now - facts.first_packet_at < PATIENCE:
        return "The first packet has arrived: the handshake is on its way."
    if facts.reason is Reason.CLOCK_SKEW:
        return "Handshakes arrive with a timestamp that the hub refuses: the node's clock is off."
    return "Handshakes arrive but are never confirmed: the Secret may hold another key than the hub knows."


def reassurance(facts: Facts) -> str:
    """From 30 seconds on."""
    if _is_settled(facts) or waited(facts) < REASSURE_AFTER:
        return ""
    if facts.redeemed_at is None:
        return "Nothing is wrong yet: pulling the image and starting the Job can take a minute."
    return "This usually takes under 30 seconds; a slow image pull or a busy node makes it longer."


def hint(facts: Facts) -> str:
    """From two minutes on: the likeliest cause, by what the hub knows."""
    if _is_settled(facts) or waited(facts) < HINT_AFTER:
        return ""
    if facts.redeemed_at is None:
        return "Look whether the Job runs, and whether it may reach the hub on 443/tcp."
    if facts.first_packet_at is None:
        return f"Look whether the cluster may send UDP to {facts.hub_host}:{facts.udp_port}."
    if facts.connected_at is None:
        return "Run the bootstrap Job again and look at the Secret; check the node's clock."
    return "Look for a NetworkPolicy that keeps the edge pod from the API server."


def causes(facts: Facts) -> tuple[Advice, ...]:
    """From five minutes on: the handbook's three causes in its order, with exact commands."""
    if _is_settled(facts) or waited(facts) < CAUSES_AFTER:
        return ()
    port, namespace = facts.udp_port, facts.namespace or "daalu-edge"
    # By its label where the edge has not told the name of the Job, which ends in a digest of its values.
    job = f"job/{facts.job}" if facts.job else "-l app.kubernetes.io/component=bootstrap --tail=-1"
    return (
        Advice(
            "Egress firewall",
            f"The edge pod can't reach {facts.hub_host} on UDP/{port}. Verify your egress policy permits it.",
            f"kubectl -n {namespace} exec deploy/daalu-edge -- daalu-edge doctor",
        ),
        Advice(
            "Bootstrap Job failed",
            "See whether the Job failed; if so, its log names the cause in one line.",
            f"kubectl -n {namespace} get jobs\nkubectl -n {namespace} logs {job}",
        ),
        Advice(
            "Token expired",
            "The bootstrap token is valid for 1 hour. If you generated the invite a while ago, regenerate it.",
            None,
        ),
    )
