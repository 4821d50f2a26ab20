"""The hub's own certificate: a client that knows the CA trusts it under every name, and nobody else does."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
import trio
import trio.testing

from hub_server import tls

NAMES = ("hub.example", "localhost", "127.0.0.1", "::1")


def shake_hands(certificate: tls.Certificate, name: str, ca_pem: str | None) -> None:
    """A TLS handshake in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.chain, certificate.key)
    client = ssl.create_default_context(cadata=ca_pem)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
    assert not ends


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_knows_the_ca_trusts_every_name(tmp_path: Path, name: str) -> None:
    made = tls.ensure_own(tmp_path / "tls", NAMES)
    shake_hands(made, name, made.ca_pem)


def test_nobody_else_trusts_it(tmp_path: Path) -> None:
    made = tls.ensure_own(tmp_path / "tls", NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(made, "localhost", None)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(made, "other.example", made.ca_pem)


def test_it_stays_as_long_as_it_serves(tmp_path: Path) -> None:
    first = tls.ensure_own(tmp_path / "tls", NAMES)
    before = first.chain.read_bytes()
    assert tls.ensure_own(tmp_path / "tls", NAMES) == first
    assert first.chain.read_bytes() == before


@pytest.mark.parametrize(("days", "names"), [(380, NAMES), (0, ("new.example",))], ids=["late", "another name"])
def test_it_is_renewed_under_the_same_ca(tmp_path: Path, days: int, names: tuple[str, ...]) -> None:
    first = tls.ensure_own(tmp_path / "tls", NAMES)
    before = first.chain.read_bytes()
    again = tls.ensure_own(tmp_path / "tls", names, datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days))
    assert again.chain.read_bytes() != before
    assert again.ca_pem == first.ca_pem


def test_its_files_are_for_the_hub_alone(tmp_path: Path) -> None:
    tls.ensure_own(tmp_path / "tls", NAMES)
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, other = tls.ensure_own(tmp_path / "one", NAMES), tls.ensure_own(tmp_path / "other", NAMES)
    with pytest.raises(ValueError, match="is not the key of"):
        tls.Certificate(one.chain, other.key, None).check()


async def test_new_files_are_served_without_a_restart(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A broken pair is left alone, and the next good one is taken."""
    served, fresh = tls.ensure_own(tmp_path / "served", NAMES), tls.ensure_own(tmp_path / "fresh", ("new.example",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served.chain, served.key)

    def served_now() -> None:
        client = ssl.create_default_context(cadata=fresh.ca_pem)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        end = client.wrap_bio(to_client, to_server, server_hostname="new.example")
        server = context.wrap_bio(to_server, to_client, server_side=True)
        for one in (end, server, end):
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                continue

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls.keep_fresh, served, context, None)
        await trio.sleep(1)
        with pytest.raises(ssl.SSLCertVerificationError):
            served_now()
        served.chain.write_bytes(fresh.chain.read_bytes())
        await trio.sleep(tls.LOOK_EVERY + 1)
        with pytest.raises(ssl.SSLCertVerificationError):
            served_now()
        served.key.write_bytes(fresh.key.read_bytes())
        await trio.sleep(tls.LOOK_EVERY + 1)
        served_now()
        nursery.cancel_scope.cancel()
