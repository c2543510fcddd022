"""Certificates for servers on loopback: an authority of their own, and what it vouches for."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from colabkit.core import files

_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the PEM files lie: the authority's certificate, and the server's chain with its key."""

    authority: Path
    server: Path

    def server_context(self) -> ssl.SSLContext:
        """Return what a server proves itself with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        return context


def make_certificates(
    folder: Path, *, names: tuple[str, ...] = ("127.0.0.1", "localhost"), self_signed: bool = False, days: int = _DAYS
) -> Certificates:
    """Return the certificates of a folder, made where there are none.

    self_signed: the server's certificate vouches for itself, as those of appliances do.
    """
    found = Certificates(folder / "authority.pem", folder / "server.pem")
    if found.authority.exists() and found.server.exists():
        return found
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    if self_signed:
        own = _certificate("colabkit loopback server", key, None, None, names, days)
        authority, chain = own, own
    else:
        authority_key = ec.generate_private_key(ec.SECP256R1())
        issuer = _certificate("colabkit loopback authority", authority_key, None, None, (), days)
        authority = issuer
        chain = _certificate("colabkit loopback server", key, issuer, authority_key, names, days)
    files.write_atomic(found.server, chain.public_bytes(serialization.Encoding.PEM) + secret)
    files.write_atomic(found.authority, authority.public_bytes(serialization.Encoding.PEM))
    return found


def _certificate(title: str, key: Any, issuer: Any, issuer_key: Any, names: tuple[str, ...], days: int) -> Any:
    """Return a certificate; without an issuer it signs itself, and is an authority where it has no names.

    With all that RFC 5280 asks for: Python 3.13 takes no less (ssl.VERIFY_X509_STRICT).
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer_key or key).public_key()), critical=False
        )
    )
    if names:
        known = [x509.IPAddress(ip_address(n)) if n.replace(".", "").isdigit() else x509.DNSName(n) for n in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    # one that vouches for itself is taken for an authority where it is trusted, and says nothing of keys
    if issuer or not names:
        builder = builder.add_extension(_key_usage(is_authority=not names), critical=True)
    return builder.sign(issuer_key or key, hashes.SHA256())


def _key_usage(*, is_authority: bool) -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
