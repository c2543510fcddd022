"""Certificates that the user trusts: shown with their fingerprints, pinned as files, asked for by all that opens TLS.

A pinned certificate is trusted for its host and port alone, and nothing else is taken there: not its names, dates or
authority count, but that it is exactly this one. It is what ssh does with the keys of hosts.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from colabkit.core.disk import faults_told
from colabkit.core.errors import DataError, UsageError, missing_extra
from colabkit.core.files import write_atomic
from colabkit.core.table import Table
from colabkit.core.versions.differences import issuers_shown

_VARIABLE = "COLABKIT_CERTIFICATES"
_SECONDS = 10.0
_HELP = """\
Show the certificate of a server that no authority known here vouches for, and pin it: from then on this server, and no
other, is taken at this address, with verification on. Compare the fingerprint with what the server's owner tells you.\
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate of a chain. `fingerprint` is the SHA-256 of its DER form, in hex."""

    der: bytes
    fingerprint: str
    subject: str
    issuer: str
    valid_from: datetime
    valid_until: datetime
    names: tuple[str, ...]

    @property
    def pem(self) -> str:
        return ssl.DER_cert_to_PEM_cert(self.der)


def folder() -> Path:
    """Return where pinned certificates lie: COLABKIT_CERTIFICATES, or ~/.config/colabkit/certificates."""
    given = os.environ.get(_VARIABLE)
    configuration = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(given or f"{configuration}/colabkit/certificates").expanduser()


def pinned_for(endpoint: str) -> list[Path]:
    """Return the file of the certificate pinned for an address, in a list that is empty where there is none."""
    if not endpoint.startswith("https://"):
        return []
    path = _place(*host_and_port(endpoint))
    return [path] if path.is_file() else []


def pinned_fingerprint(endpoint: str) -> str:
    """Return the SHA-256 of the certificate pinned for an address, "" for none. Raises: DataError for a broken file."""
    for path in pinned_for(endpoint):
        try:
            return hashlib.sha256(ssl.PEM_cert_to_DER_cert(path.read_text(encoding="ascii"))).hexdigest()
        except (OSError, ValueError) as error:
            raise DataError(
                "Cannot read a pinned certificate",
                got=type(error).__name__,
                where=path,
                fix=f"remove the file and pin it again: colabkit trust {endpoint}",
            ) from error
    return ""


def host_and_port(url: str) -> tuple[str, int]:
    """Return host and port of an address, with https understood. Raises: UsageError."""
    text = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port or 443
    except ValueError:
        host, port, parts = None, 0, urlsplit("https://")
    if not host or parts.scheme != "https":
        raise UsageError(
            "There is no certificate to trust at this address",
            got=re.sub(r"//[^/]*@", "//", url).partition("?")[0],
            expected="https://HOST:PORT",
            fix="give the address as it stands in the endpoint's setting",
        )
    return host, port


def fetch_certificate(host: str, port: int = 443) -> list[Certificate]:
    """Return the chain that a server shows, its own certificate first; nothing of it is verified. Raises: DataError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is looked at here, not trusted
    try:
        with (
            socket.create_connection((host, port), _SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=host) as tls,
        ):
            chain = [tls.getpeercert(binary_form=True), *issuers_shown(tls)]
    except OSError as error:
        raise DataError(
            "Cannot ask for the certificate",
            got=error.strerror or type(error).__name__,
            where=f"{host}:{port}",
            fix="check host and port, and that this machine may reach them without a proxy",
        ) from error
    return [_described(der) for der in chain]


def is_trusted_already(host: str, port: int) -> bool:
    """Tell whether the authorities that this machine knows vouch for a server."""
    try:
        with socket.create_connection((host, port), _SECONDS) as raw:
            ssl.create_default_context().wrap_socket(raw, server_hostname=host).close()
    except OSError:
        return False
    return True


def pin(url: str, *, fingerprint: str = "", confirm: Callable[[str], bool] | None = None) -> Path:
    """Show the certificate of a server and write it down as trusted, and return where.

    It must be the one of `fingerprint` (SHA-256, hex), or `confirm` must say yes to a question. Raises: UsageError,
    DataError.
    """
    host, port = host_and_port(url)
    chain = fetch_certificate(host, port)
    leaf, wanted = chain[0], _cleaned(fingerprint)
    print(table(chain, f"{host}:{port}"), flush=True)
    if wanted and wanted != leaf.fingerprint:
        raise UsageError(
            "This is not the certificate that you expect: nothing was pinned",
            got=leaf.fingerprint,
            expected=wanted,
            where=f"{host}:{port}",
            fix="ask the server's owner for its SHA-256 fingerprint; somebody may stand between here and there",
        )
    if not wanted and not (
        confirm and confirm(f"Is this the fingerprint that the owner of {host}:{port} told you? [yes/no] ")
    ):
        raise UsageError(
            "Nothing was pinned: nobody said that this is the right certificate",
            where=f"{host}:{port}",
            fix="compare the fingerprint with what its owner tells you, then: "
            f"colabkit trust {url} --fingerprint SHA256",
        )
    path = _place(host, port)
    with faults_told(path, "write the certificate"):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(path, leaf.pem)
    return path


def table(chain: list[Certificate], where: str) -> Table:
    """Return what a chain says of itself, for people."""
    rows = []
    for place, one in enumerate(chain):
        pairs = [
            ("SHA-256", _in_pairs(one.fingerprint)),
            ("subject", one.subject),
            ("issuer", one.issuer),
            ("names", ", ".join(one.names) or "none"),
            (
                "valid",
                f"{one.valid_from:%Y-%m-%d} to {one.valid_until:%Y-%m-%d}"
                + (" (EXPIRED)" if one.valid_until < datetime.now(UTC) else ""),
            ),
        ]
        rows += [
            [("server" if place == 0 else f"issuer {place}") if row == 0 else "", name, value]
            for row, (name, value) in enumerate(pairs)
        ]
    return Table(["certificate", "", "value"], rows, title=f"what {where} shows")


def add_command(commands: Any) -> None:
    """Add the command `trust` to the command line."""
    command = commands.add_parser(
        "trust", help="show a server's certificate and trust it from now on", description=_HELP
    )
    command.add_argument("url", metavar="URL", help="the server's address, such as https://s3.internal.example:9021")
    command.add_argument(
        "--fingerprint", default="", metavar="SHA256", help="pin without a question, if it is this one"
    )
    command.add_argument("--forget", action="store_true", help="trust it no more")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command. Raises: ColabkitError."""
    host, port = host_and_port(options.url)
    if options.forget:
        with faults_told(_place(host, port), "remove the certificate"):
            was_there = _place(host, port).is_file()
            _place(host, port).unlink(missing_ok=True)
        print(f"{host}:{port} is {'pinned no more' if was_there else 'not pinned'}", flush=True)
        return
    if not options.fingerprint and is_trusted_already(host, port):
        print(f"{host}:{port} needs no pin: an authority that this machine knows vouches for it", flush=True)
        return
    path = pin(options.url, fingerprint=options.fingerprint, confirm=_ask if sys.stdin.isatty() else None)
    print(f"pinned: {path}", flush=True)


def _ask(question: str) -> bool:
    try:
        return input(question).strip().lower() == "yes"
    except EOFError:
        return False


def _place(host: str, port: int) -> Path:
    return folder() / f"{re.sub(r'[^a-z0-9.-]', '-', host.lower())}_{port}.pem"


def _cleaned(fingerprint: str) -> str:
    text = (
        re.sub(r"^sha-?256[:=\s]*", "", fingerprint.strip(), flags=re.IGNORECASE)
        .replace(":", "")
        .replace(" ", "")
        .lower()
    )
    if text and not re.fullmatch(r"[0-9a-f]{64}", text):
        raise UsageError(
            "This is no SHA-256 fingerprint",
            got=fingerprint,
            expected="64 hex digits, with or without colons",
            fix="openssl x509 -noout -fingerprint -sha256 -in CERTIFICATE.pem prints it",
        )
    return text


def _in_pairs(fingerprint: str) -> str:
    return ":".join(fingerprint[i : i + 2] for i in range(0, len(fingerprint), 2)).upper()


def _described(der: bytes) -> Certificate:
    try:
        from cryptography import x509
    except ModuleNotFoundError as error:
        raise missing_extra(error, "dataset") from error
    found = x509.load_der_x509_certificate(der)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known = tuple(str(one.value) for one in names if isinstance(one, x509.DNSName | x509.IPAddress))
    except (x509.ExtensionNotFound, ValueError):
        known = ()
    return Certificate(
        der,
        hashlib.sha256(der).hexdigest(),
        found.subject.rfc4514_string(),
        found.issuer.rfc4514_string(),
        found.not_valid_before_utc,
        found.not_valid_after_utc,
        known,
    )
