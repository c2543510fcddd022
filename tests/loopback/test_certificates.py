"""Certificates for loopback: an authority and what it vouches for, as OpenSSL checks them; made once a folder."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

from colabkit.loopback.certificates import make_certificates


def greeted(certificates, context: ssl.SSLContext, name: str) -> str:
    """Return what a client hears of a server with these certificates, asked by a name. Raises: ssl.SSLError."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            raw, _ = listener.accept()
            try:
                with certificates.server_context().wrap_socket(raw, server_side=True) as tls:
                    tls.sendall(b"hello")
            except OSError:
                raw.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname()) as raw,
                context.wrap_socket(raw, server_hostname=name) as tls,
            ):
                return tls.recv(5).decode()
        finally:
            thread.join()


def strict(certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates.authority))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def test_the_authority_vouches_for_the_names_and_for_no_others(tmp_path):
    certificates = make_certificates(tmp_path)
    assert greeted(certificates, strict(certificates), "127.0.0.1") == "hello"
    assert greeted(certificates, strict(certificates), "localhost") == "hello"
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        greeted(certificates, strict(certificates), "example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        greeted(certificates, ssl.create_default_context(), "localhost")
    other = make_certificates(tmp_path / "other", names=("store.internal",))
    assert greeted(other, strict(other), "store.internal") == "hello"
    with pytest.raises(ssl.SSLCertVerificationError):
        greeted(other, strict(certificates), "store.internal")


def test_one_that_vouches_for_itself(tmp_path):
    own = make_certificates(tmp_path, self_signed=True)
    assert own.authority.read_bytes() in own.server.read_bytes()
    assert greeted(own, ssl.create_default_context(cafile=str(own.authority)), "localhost") == "hello"


def test_those_of_a_folder_are_kept_until_one_is_missing(tmp_path):
    first = make_certificates(tmp_path)
    contents = first.authority.read_bytes(), first.server.read_bytes()
    again = make_certificates(tmp_path)
    assert again == first and (again.authority.read_bytes(), again.server.read_bytes()) == contents
    first.authority.unlink()
    made = make_certificates(tmp_path)
    assert made.server.read_bytes() != contents[1] and greeted(made, strict(made), "localhost") == "hello"


def test_days_end(tmp_path):
    old = make_certificates(tmp_path, days=-1)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        greeted(old, strict(old), "localhost")
