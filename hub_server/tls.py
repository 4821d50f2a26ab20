"""The certificate that the hub serves: given files, or one of its own small CA, made on first start and renewed.

A CA of its own, rather than one certificate that signs itself, so that what edges and kubeconfigs were given stays true
when the certificate is renewed or gets another name. Files that change are read again without a restart.
"""

from __future__ import annotations

import datetime
import logging
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hub_server.keyfiles import check_private, write_private

__all__ = ["Certificate", "ensure_own", "keep_fresh", "server_context"]

_log = logging.getLogger("hub.tls")

CA_LIFE = datetime.timedelta(days=3650)
LIFE = datetime.timedelta(days=397)  # the most that browsers accept
RENEW_BEFORE = datetime.timedelta(days=30)
LOOK_EVERY = 60.0
_SKEW = datetime.timedelta(minutes=10)  # clocks of those who connect may be a little behind


@dataclass(frozen=True, slots=True)
class Certificate:
    """Where the certificate lies, and which CA others need to know; None for one that everybody knows."""

    chain: Path
    key: Path
    ca_pem: str | None

    def check(self) -> None:
        """See that the files can be used.

        Raises:
            OSError: one cannot be read, which names it.
            PermissionError: others may read the key.
            ValueError: they are no PEM, or do not belong together; names the file.
        """
        for path in (self.chain, self.key):
            with path.open("rb") as file:
                if path == self.key:
                    check_private(path, os.fstat(file.fileno()))
        try:
            self.leaf()
        except ValueError:
            raise ValueError(f"{self.chain} holds no certificate in PEM") from None
        try:
            # Without a word for an encrypted key, OpenSSL would ask at the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key, password="")
        except ssl.SSLError as problem:
            what = {"KEY_VALUES_MISMATCH": f"{self.key} is not the key of the certificate in {self.chain}"}
            text = what.get(problem.reason, f"{self.key} holds no key in PEM that is not encrypted")
            raise ValueError(text) from None

    def leaf(self) -> x509.Certificate:
        """The certificate itself, first of the chain."""
        return x509.load_pem_x509_certificate(self.chain.read_bytes())

    def warnings(self, host: str, now: datetime.datetime | None = None) -> list[str]:
        """What clients will not like about it: other names than the one they use, a time that is over or not come."""
        now, leaf = now or datetime.datetime.now(datetime.UTC), self.leaf()
        found = []
        names = _names(leaf)
        if not any(_covers(name, host) for name in names):
            found.append(f"it is for {', '.join(names) or 'no name'}, and public_url is at {host}")
        if leaf.not_valid_after_utc <= now:
            found.append(f"it expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        if leaf.not_valid_before_utc > now:
            found.append(f"it is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
        return found


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """How the hub speaks TLS: 1.2 or newer, and HTTP/1.1 in it.

    Raises:
        OSError, ssl.SSLError: as `Certificate.check`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Whatever a client offers beside it, or names none: it is spoken to in HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(certificate.chain, certificate.key)
    return context


def read_ca(path: Path) -> str:
    """The certificates of an authority.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds none.
    """
    text = path.read_text(errors="replace")
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise ValueError(f"{path} (tls_ca) holds no certificate in PEM") from None
    return text


def ensure_own(
    folder: Path, names: Sequence[str], now: datetime.datetime | None = None, *, may_make_ca: bool = True
) -> Certificate:
    """The hub's own certificate for these names and addresses; made or renewed when it must be.

    Raises:
        FileNotFoundError: the CA lacks what is needed of it, and a new one may not be made.
        OSError, ValueError: a file cannot be used.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_path, ca_key_path = folder / "ca.crt", folder / "ca.key"
    if may_make_ca and not (ca_path.exists() and ca_key_path.exists()):
        _make_ca(ca_path, ca_key_path, now)
    if ca_key_path.exists():
        check_private(ca_key_path, ca_key_path.stat())
    made = Certificate(folder / "tls.crt", folder / "tls.key", ca_path.read_text())
    if not _serves(made, names, now):
        _make_leaf(made, ca_path, ca_key_path, names, now)
    return made


def _serves(certificate: Certificate, names: Sequence[str], now: datetime.datetime) -> bool:
    try:
        leaf = x509.load_pem_x509_certificate(certificate.chain.read_bytes())
        certificate.check()
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return False
    known = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(known) == set(_alternatives(names)) and leaf.not_valid_after_utc - now > RENEW_BEFORE


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        known = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*known.get_values_for_type(x509.DNSName), *map(str, known.get_values_for_type(x509.IPAddress))]


def _covers(name: str, host: str) -> bool:
    """Whether a name of a certificate is that of a host; a star stands for one label (RFC 6125 section 6.4.3)."""
    name, host = name.lower(), host.lower()
    return name == host or (name.startswith("*.") and name[1:] == host[host.find(".") :] and "." in host)


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    result: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            result.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            result.append(x509.DNSName(name))
    return result


def _make_ca(path: Path, key_path: Path, now: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Daalu hub's own CA")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(name, name, key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(key_path, _pem(key))
    write_private(path, certificate.public_bytes(serialization.Encoding.PEM))


def _make_leaf(
    where: Certificate, ca_path: Path, ca_key_path: Path, names: Sequence[str], now: datetime.datetime
) -> None:
    ca = x509.load_pem_x509_certificate(ca_path.read_bytes())
    ca_key = serialization.load_pem_private_key(ca_key_path.read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey), "made by _make_ca"
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    certificate = (
        _builder(subject, ca.subject, key.public_key(), now, LIFE)
        .add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(where.key, _pem(key))
    write_private(where.chain, certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


async def keep_fresh(certificate: Certificate, context: ssl.SSLContext, own: tuple[Path, Sequence[str]] | None) -> None:
    """Read the files again when they change, and renew the hub's own in time; until cancelled.

    Args:
        certificate: what is served.
        context: new connections see what was loaded into it last.
        own: folder and names for `ensure_own`; None for given files.
    """
    seen = _stamp(certificate)
    while True:
        await trio.sleep(LOOK_EVERY)
        try:
            if own is not None:
                await trio.to_thread.run_sync(lambda: ensure_own(*own, may_make_ca=False))
            stamp = _stamp(certificate)
            if stamp == seen:
                continue
            # First into a context of its own: a pair that does not fit would spoil the one in use.
            certificate.check()
            context.load_cert_chain(certificate.chain, certificate.key)
        except (OSError, ValueError) as problem:
            _log.warning("the new certificate cannot be used, the old one stays: %s", problem)
            continue
        seen = stamp
        _log.info("the certificate was read again from %s", certificate.chain)


def _stamp(certificate: Certificate) -> tuple[object, ...]:
    result: list[object] = []
    for path in (certificate.chain, certificate.key):
        try:
            status = path.stat()
        except OSError:
            return ()
        result += [status.st_mtime_ns, status.st_ino, status.st_size]
    return tuple(result)
