"""Certificates of all kinds that appliances make for themselves: shown, pinned, verified in use, refused if changed."""

from __future__ import annotations

import argparse
import os
import shutil
import ssl
import subprocess

import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.places import Pinned, S3Profile, open_place
from colabkit.io.places.http import trust
from colabkit.io.places.http.links import Link
from colabkit.io.places.http.ranges import RangeClient
from colabkit.loopback.certificates import make_certificates
from colabkit.loopback.s3 import S3Server

NAMED = ["-addext", "subjectAltName=IP:127.0.0.1"]
# what `openssl req -x509` makes by itself is an authority: TLS libraries differ in whether that may be a server
KINDS = {
    "authority and server in one": ["-addext", "basicConstraints=critical,CA:TRUE", *NAMED],
    "server alone": ["-addext", "basicConstraints=critical,CA:FALSE", *NAMED],
    "without names": [],
    "of another name": ["-addext", "subjectAltName=DNS:storage.corp.example"],
}


@pytest.fixture(autouse=True)
def pins(tmp_path, monkeypatch):
    monkeypatch.setenv("COLABKIT_CERTIFICATES", str(tmp_path / "pins"))
    return tmp_path / "pins"


def self_signed(folder, *options):
    """Return the context of a server with a certificate of openssl's making, and its path."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder.mkdir(exist_ok=True)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=appliance",
            "-keyout",
            key,
            "-out",
            certificate,
            *options,
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def try_it(url: str) -> None:
    """Write by way of objects, and read by way of the client of ranges, whose links are signed elsewhere."""
    objects = open_place(
        "s3://bucket/p", profile=S3Profile(bucket="bucket", endpoint=url, access_key="AKIA", secret_key="s")
    )
    objects.put("x", b"0123456789")
    assert objects.get("x", 2, 4) == b"23" and [found.name for found in objects.list()] == ["x"]
    assert RangeClient().read(Link(lambda: (f"{url}/bucket/p/x", {})), 2, 4, "x") == b"23"
    with pytest.MonkeyPatch.context() as environment:  # and as a store that data is streamed from
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "AKIA",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        store = Pinned(open_place("s3://bucket/p"))
        assert [found.name for found in store.list()] == ["x"] and store.read("x", 2, 4) == b"23"


@pytest.mark.parametrize("kind", KINDS)
def test_a_pinned_certificate_of_its_own_making_is_verified(tmp_path, kind, capsys):
    context, certificate = self_signed(tmp_path / "one", *KINDS[kind])
    fingerprint = (
        subprocess.run(
            ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", certificate],
            check=True,
            capture_output=True,
            text=True,
        )
        .stdout.strip()
        .partition("=")[2]
    )
    with S3Server(tls=context) as server:
        server.make_bucket("bucket")
        with pytest.raises(UsageError, match="cannot prove who it is"):
            try_it(server.url)
        path = trust.pin(server.url, fingerprint=fingerprint)
        assert fingerprint in capsys.readouterr().out
        assert trust.pinned_for(server.url) == [path] and path.name == f"127.0.0.1_{server.port}.pem"
        try_it(server.url)
        port = server.port
    other, _ = self_signed(tmp_path / "two", *KINDS[kind])
    with S3Server(tls=other, port=port) as server:  # somebody else answers at the same address
        server.make_bucket("bucket")
        with pytest.raises(UsageError, match="another certificate than the one that is pinned") as caught:
            try_it(server.url)
        assert f"colabkit trust {server.url}" in caught.value.fix and not server.counts
        with pytest.raises(DataError, match="not trusted"):
            RangeClient().read(Link(lambda: (f"{server.url}/bucket/p/x", {})), 2, 4, "x")
        trust.pin(server.url, confirm=lambda question: "127.0.0.1" in question)
        try_it(server.url)


def test_a_pin_counts_for_its_address_alone(tmp_path):
    context, _ = self_signed(tmp_path / "one", *KINDS["authority and server in one"])
    with S3Server(tls=context) as pinned, S3Server(tls=context) as another:
        another.make_bucket("bucket")
        trust.pin(pinned.url, confirm=lambda _: True)
        assert not trust.pinned_for(another.url) and not trust.pinned_for(pinned.url.replace("https", "http"))
        with pytest.raises(UsageError, match="cannot prove"):
            try_it(another.url)


def test_a_server_of_a_private_authority(tmp_path):
    """Its own certificate is pinned, which vouches for nothing else, whoever its authority is."""
    made = make_certificates(tmp_path / "private")
    with S3Server(tls=made.server_context()) as server:
        server.make_bucket("bucket")
        chain = trust.fetch_certificate("127.0.0.1", server.port)
        assert chain[0].subject == "CN=colabkit loopback server" and chain[0].issuer == "CN=colabkit loopback authority"
        assert set(chain[0].names) == {"127.0.0.1", "localhost"} and chain[0].pem.startswith(
            "-----BEGIN CERTIFICATE-----"
        )
        assert chain[0].valid_from < chain[0].valid_until and len(chain[0].fingerprint) == 64
        trust.pin(server.url, confirm=lambda _: True)
        try_it(server.url)


def test_nothing_is_pinned_without_a_yes(tmp_path, pins):
    context, _ = self_signed(tmp_path / "one")
    with S3Server(tls=context) as server:
        for wrong in ({}, {"confirm": lambda _: False}, {"fingerprint": "ab" * 32}, {"fingerprint": "ab:cd"}):
            with pytest.raises(UsageError):
                trust.pin(server.url, **wrong)
        assert not pins.exists()
        # What answers is still shown, but nothing of it is written down: a different fingerprint names both.
        with pytest.raises(UsageError, match="not the certificate that you expect") as caught:
            trust.pin(server.url, fingerprint="SHA256:" + "AB" * 32)
        assert caught.value.expected == "ab" * 32


def test_the_command(tmp_path, capsys, monkeypatch):
    parser = argparse.ArgumentParser()
    trust.add_command(parser.add_subparsers())

    def run(*arguments):
        options = parser.parse_args(["trust", *arguments])
        options.command(options)
        return capsys.readouterr().out

    context, certificate = self_signed(tmp_path / "one", *NAMED)
    with S3Server(tls=context) as server:
        with pytest.raises(UsageError, match="nobody said"):
            run(server.url)
        fingerprint = trust.fetch_certificate("127.0.0.1", server.port)[0].fingerprint
        assert "pinned:" in run(server.url, "--fingerprint", fingerprint) and trust.pinned_for(server.url)
        assert "pinned no more" in run(server.url, "--forget") and not trust.pinned_for(server.url)
        assert "is not pinned" in run(server.url, "--forget")
        monkeypatch.setattr("sys.stdin", os.fdopen(os.open(os.devnull, os.O_RDONLY)))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert "needs no pin" in run(server.url)
    with pytest.raises(DataError, match="Cannot ask"):
        run("https://127.0.0.1:9")
    for address in ("http://127.0.0.1:9021", "https://", "ftp://x", "https://host:port"):
        with pytest.raises(UsageError, match="no certificate to trust"):
            run(address)


def test_a_broken_pin_is_told(pins):
    pins.mkdir()
    (pins / "host_9021.pem").write_text("no certificate")
    with pytest.raises(DataError, match="pinned certificate"):
        trust.pinned_fingerprint("https://HOST:9021/x")
    assert trust.pinned_fingerprint("https://host:9022") == ""


def test_where_pins_lie(monkeypatch, tmp_path):
    monkeypatch.delenv("COLABKIT_CERTIFICATES")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert trust.folder() == tmp_path / "config" / "colabkit" / "certificates"
    assert trust.host_and_port("s3.example") == ("s3.example", 443) == trust.host_and_port("https://s3.example/x")
    assert trust._place("fe80::1", 443).name == "fe80--1_443.pem"
