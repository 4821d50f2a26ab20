"""What `wgpy check` says about a file: everything that is wrong, and everything that will surprise."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

from wgpy.config.file import read
from wgpy.config.values import Prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wgpy.config.file import Reading
    from wgpy.config.interface import InterfaceConfig, PeerConfig
    from wgpy.errors import ConfigError
    from wgpy.ini import Section

__all__ = ["Diagnosis", "check"]

# Every pair of prefixes is compared, which is for files that people write.
_OVERLAPS_CHECKED: Final = 512


class Diagnosis(NamedTuple):
    """One thing that is wrong with a file, or may be.

    Attributes:
        is_error: whether the file cannot be used as it is.
        line: counted from 1.
        column: counted from 1.
        field: which key, empty if none applies.
        message: what is wrong and how to mend it.
    """

    is_error: bool
    line: int
    column: int
    field: str
    message: str


def check(text: str | bytes) -> list[Diagnosis]:
    """Everything that is wrong or doubtful in a configuration file, in order of lines."""
    found: list[Diagnosis] = []

    def report(error: ConfigError) -> None:
        found.append(Diagnosis(True, error.line or 1, error.column or 1, error.field, error.message))

    reading = read(text, report)
    if not found:
        found += _of_interface(reading)
        found += _of_peers(reading)
        found += _overlaps(reading)
    return sorted(found, key=lambda diagnosis: (diagnosis.line, diagnosis.column))


def _doubt(sections: Sequence[Section], key: str, message: str) -> Diagnosis:
    """A warning at the last line that says a key, or at the heading of the section where it is missing."""
    entries = [entry for section in sections for entry in section.entries if entry.key == key.lower()]
    if entries:
        return Diagnosis(False, entries[-1].line, entries[-1].column, key, message)
    return Diagnosis(False, sections[0].line if sections else 1, 1, key, message)


def _of_interface(reading: Reading) -> Iterator[Diagnosis]:
    config, sections = reading.config, reading.interface
    if config.private_key is None:
        yield _doubt(
            sections, "PrivateKey", "without a private key nothing is sent or answered; make one with `wgpy genkey`"
        )
    if not config.peers:
        yield _doubt(sections, "Peer", "there is no [Peer]: nobody can be reached")
    message = _about_mtu(config)
    if message:
        yield _doubt(sections, "MTU", message)
    owned = [prefix for peer in config.peers for prefix in peer.allowed_ips]
    outside = [server for server in config.dns if not any(prefix.holds(Prefix.parse(server)) for prefix in owned)]
    if outside and owned:
        yield _doubt(
            sections,
            "DNS",
            f"{', '.join(outside)} lies outside every AllowedIPs: the tunnel does not lead there, so names are asked "
            "for beside it or not at all; add it to the AllowedIPs of the peer that has it",
        )


def _about_mtu(config: InterfaceConfig) -> str:
    if config.mtu is None:
        return ""
    # Outer headers: 40 of IPv6, or 20 of IPv4, 8 of UDP and 32 of WireGuard, within the 1500 of an Ethernet.
    largest = 1440 if all(p.endpoint and p.endpoint.version == 4 for p in config.peers) and config.peers else 1420
    if config.mtu > largest:
        return f"{config.mtu} will not fit through a path of 1500: packets are fragmented or lost; use {largest}"
    if config.mtu < 1280 and any(address.version == 6 for address in config.addresses):
        return f"IPv6 needs an MTU of 1280 (RFC 8200), and this is {config.mtu}"
    if config.mtu < 576:
        return f"{config.mtu} is less than the 576 that every host takes (RFC 791): most of each packet is headers"
    return ""


def _of_peers(reading: Reading) -> Iterator[Diagnosis]:
    config = reading.config
    for peer in config.peers:
        sections = reading.peers[peer.public_key]
        if config.private_key is not None and peer.public_key == config.private_key.public_key:
            yield _doubt(sections, "PublicKey", "this is our own public key: the peer will be ignored")
        if len(sections) > 1:
            yield Diagnosis(
                False, sections[-1].line, 1, "PublicKey",
                f"this peer has a section in line {sections[0].line} already: what is said here replaces what was said "
                "there, AllowedIPs altogether; make them one",
            )  # fmt: skip
        if not peer.allowed_ips:
            yield _doubt(
                sections, "AllowedIPs", "the peer has no AllowedIPs: nothing is routed to it or accepted from it"
            )
        if peer.endpoint is not None and not peer.persistent_keepalive and not config.listen_port:
            yield _doubt(
                sections,
                "PersistentKeepalive",
                "behind NAT the peer cannot reach us after a silence; PersistentKeepalive = 25 keeps the way open",
            )
        yield from _of_writing(peer, sections)


def _of_writing(peer: PeerConfig, sections: Sequence[Section]) -> Iterator[Diagnosis]:
    """What is taken, and was perhaps not meant."""
    for entry in (entry for section in sections for entry in section.entries):
        if entry.key == "allowedips":
            for part in entry.value.split(","):
                written = part.lstrip("+-")
                if "/" in written and ipaddress.ip_address(written.partition("/")[0]) != _first(Prefix.parse(written)):
                    yield Diagnosis(
                        False, entry.line, entry.column, "AllowedIPs",
                        f"{written} has host bits, which count for nothing: it is {Prefix.parse(written)}; for one "
                        f"address write {written.partition('/')[0]}",
                    )  # fmt: skip
        elif entry.key == "endpoint" and peer.endpoint and peer.endpoint.version == 6 and "]" not in entry.value:
            yield Diagnosis(
                False, entry.line, entry.column, "Endpoint",
                f"what stands behind the last colon is the port: {peer.endpoint} is meant? Brackets make it certain",
            )  # fmt: skip


def _first(prefix: Prefix) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.IPv4Address(prefix.network) if prefix.version == 4 else ipaddress.IPv6Address(prefix.network)


def _overlaps(reading: Reading) -> Iterator[Diagnosis]:
    owners: list[tuple[Prefix, int]] = []
    for number, peer in enumerate(reading.config.peers, 1):
        for prefix in peer.allowed_ips:
            for other, owner in owners:
                if not (other.holds(prefix) or prefix.holds(other)):
                    continue
                if other == prefix:
                    message = f"{prefix} belongs to Peer[{owner}] too: only this later one keeps it"
                else:
                    narrow, wide = (prefix, other) if other.holds(prefix) else (other, prefix)
                    message = (
                        f"{prefix} overlaps {other} of Peer[{owner}]: within {wide}, {narrow} goes to its own peer"
                    )
                yield _doubt(reading.peers[peer.public_key], "AllowedIPs", message)
                break
        owners += [(prefix, number) for prefix in peer.allowed_ips[:_OVERLAPS_CHECKED]]
