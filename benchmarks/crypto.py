"""What each primitive costs, on one core: where a packet's and a handshake's time goes at least.

Warm means that the same few buffers are used again and again; cold, that each run meets buffers which the caches have
forgotten, as in a daemon between system calls.
"""

from __future__ import annotations

import argparse
import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import wgpy
from benchmarks import host
from benchmarks.clock import Stopwatch
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result
from wgpy.crypto import dh, kdf, xchacha
from wgpy.crypto.aead import TransportCipher
from wgpy.noise.cookie import CookieChecker
from wgpy.noise.replay import ReplayWindow
from wgpy.wire.checksum import checksum

# The rows of a full UDP_SEGMENT send at an inner MTU of 1420.
_ROWS: Final = 45
# More than any cache of the second level holds.
_COLD_OCTETS: Final = 64 << 20
_SECONDS: Final = 0.15


@dataclass(frozen=True, slots=True)
class Primitive:
    """One thing to measure.

    Attributes:
        key: in the JSON file.
        label: for people.
        group: `handshakes` or `packets`.
        run: does it once, or `count` times.
        count: how many that are.
    """

    key: str
    label: str
    group: str
    run: Callable[[], object]
    count: int = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks crypto`: none of its own."""


def run(options: argparse.Namespace) -> Result:
    """Measure."""
    result = Result("crypto", host.describe())
    result.options = {"rounds": options.rounds}
    primitives = make_primitives()
    progress = Progress(options.rounds * len(primitives))
    try:
        for _ in range(options.rounds):
            for primitive in primitives:
                progress.show(primitive.label)
                row = result.row(primitive.key, primitive.label, "µs", is_more_better=False, group=primitive.group)
                row.add(OURS, seconds_for(primitive) * 1e6)
                progress.step()
    finally:
        progress.close()
    return result


def seconds_for(primitive: Primitive) -> float:
    """CPU seconds of one, taken over as many as fit into a moment."""
    primitive.run()
    watch, times = Stopwatch(), 0
    repetitions = 1
    while watch.seconds < _SECONDS:
        with watch:
            for _ in range(repetitions):
                primitive.run()
        times += repetitions
        repetitions *= 2
    return watch.seconds / times / primitive.count


def make_primitives() -> list[Primitive]:
    """Everything that a handshake or a packet needs."""
    secret = dh.Secret(secrets.token_bytes(32))
    public = dh.Secret(secrets.token_bytes(32)).public
    key, data = secrets.token_bytes(32), secrets.token_bytes(32)
    message = secrets.token_bytes(148)
    nonce = secrets.token_bytes(24)
    checker = CookieChecker(public)
    packet = secrets.token_bytes(1420)
    text = str(wgpy.PublicKey(public))
    handshakes = [
        Primitive("x25519/generate", "X25519, new key pair", "", lambda: dh.Secret(secrets.token_bytes(32))),
        Primitive("x25519/exchange", "X25519, shared secret", "", lambda: secret.exchange(public)),
        Primitive("blake2s/mac", "BLAKE2s keyed, 148 octets", "", lambda: kdf.mac(key, message)),
        Primitive("kdf/3", "HMAC-BLAKE2s chain of 3", "", lambda: kdf.kdf3(key, data)),
        Primitive("mac1", "mac1 check", "", lambda: checker.check_mac1(message)),
        Primitive("xchacha", "XChaCha20-Poly1305, cookie", "", lambda: xchacha.seal(key, nonce, key[:16], key[:16])),
        Primitive("base64", "public key from base64", "", lambda: wgpy.PublicKey(text)),
    ]
    packets = [
        *(_seal(size, is_cold=False) for size in (64, 1420, 8920)),
        _seal(1420, is_cold=True),
        *(_open(size) for size in (64, 1420, 8920)),
        _replay(),
        Primitive("checksum", "Internet checksum, 1420 octets", "", lambda: checksum(packet)),
    ]
    return [
        Primitive(one.key, one.label, group, one.run, one.count)
        for group, ones in (("handshakes", handshakes), ("packets, each", packets))
        for one in ones
    ]


def _rows(size: int, total: int) -> list[tuple[list[memoryview], list[memoryview]]]:
    """Batches of rows, with and without room for the tag, in one buffer of about so many octets."""
    batches = max(1, total // (_ROWS * (size + 16)))
    view = memoryview(bytearray(batches * _ROWS * (size + 16)))
    starts = range(0, len(view), size + 16)
    sealed = [view[at : at + size + 16] for at in starts]
    packets = [view[at : at + size] for at in starts]
    return [(packets[first : first + _ROWS], sealed[first : first + _ROWS]) for first in range(0, len(sealed), _ROWS)]


def _nonces() -> list[memoryview]:
    return [memoryview(bytes(4) + number.to_bytes(8, "little")) for number in range(_ROWS)]


def _seal(size: int, *, is_cold: bool) -> Primitive:
    cipher, nonces = TransportCipher(secrets.token_bytes(32)), _nonces()
    turns = itertools.cycle(_rows(size, _COLD_OCTETS if is_cold else 0))

    def seal() -> None:
        packets, sealed = next(turns)
        cipher.seal_rows(nonces, packets, sealed)

    label = f"seal {size:,} octets in place, {'cold' if is_cold else 'warm'}"
    return Primitive(f"seal/{size}{'/cold' if is_cold else ''}", label, "", seal, _ROWS)


def _open(size: int) -> Primitive:
    cipher, nonces = TransportCipher(secrets.token_bytes(32)), _nonces()
    packets, sealed = _rows(size, 0)[0]
    cipher.seal_rows(nonces, packets, sealed)
    # Out of place: what was opened in place could not be opened again.
    outputs = [memoryview(bytearray(size)) for _ in range(_ROWS)]

    def open_() -> None:
        assert not cipher.open_rows(nonces, sealed, outputs), "every tag is right"

    return Primitive(f"open/{size}", f"open {size:,} octets, warm", "", open_, _ROWS)


def _replay() -> Primitive:
    window, counter = ReplayWindow(), itertools.count(0, _ROWS)

    def accept() -> None:
        first = next(counter)
        assert not window.accept_rows(range(first, first + _ROWS), ()), "counters that grow are accepted"

    return Primitive("replay", f"replay window, in batches of {_ROWS}", "", accept, _ROWS)
