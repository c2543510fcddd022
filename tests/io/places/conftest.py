"""A store on loopback behind TLS, certified by an authority made for it, and an environment without anybody's keys."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from colabkit.io.places import S3Profile, open_place
from colabkit.loopback.certificates import Certificates, make_certificates
from colabkit.loopback.s3 import S3Server

KEY, SECRET = "AKIAOBJECTSTEST00001", "a-secret-key-of-the-tests/+0123456789"
OF_ENVIRONMENT = (
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AWS_SKIP_SIGNATURE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_BUCKET",
    "S3_ENDPOINT_URL",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "S3_BUCKET_NAME",
    "S3_REGION",
    "S3_SESSION_TOKEN",
    "S3_CA_BUNDLE",
    "STORAGE_EMULATOR_HOST",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)


class Server(S3Server):
    """The store, which also cuts connections.

    `resets` of the next requests end without an answer, after `written` or before.
    """

    resets, writes_before_reset = 0, False

    def exchange(self, request, client) -> None:
        if self.resets > 0:
            self.resets -= 1
            if self.writes_before_reset:
                self.answer(request)
            client.stays = False
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sock.close()
            return
        super().exchange(request, client)


@pytest.fixture(autouse=True)
def nobodys_environment(monkeypatch, tmp_path):
    for name in OF_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("COLABKIT_CERTIFICATES", str(tmp_path / "pins"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(certificates):
    with Server(tls=certificates.server_context(), keys={KEY: SECRET}) as running:
        running.make_bucket("bucket")
        yield running


@pytest.fixture
def profile(server, certificates) -> S3Profile:
    return S3Profile(
        bucket="bucket", endpoint=server.url, access_key=KEY, secret_key=SECRET, ca_bundle=str(certificates.authority)
    )


@pytest.fixture
def objects(profile):
    return open_place("s3://bucket/some/prefix", profile=profile)


@pytest.fixture(params=["s3", "pinned", "folder"])
def any_objects(request, server, profile, tmp_path):
    """Objects of every kind: what the protocol says holds for all of them."""
    if request.param == "folder":
        return open_place(tmp_path / "store")
    if request.param == "pinned":
        from colabkit.io.places.http import trust

        trust.pin(server.url, confirm=lambda _: True)
        profile = S3Profile(bucket="bucket", endpoint=server.url, access_key=KEY, secret_key=SECRET)
    return open_place("s3://bucket/some/prefix", profile=profile)


def write_files(folder: Path, sizes: dict[str, int]) -> Path:
    """Write files of these sizes, their names being their content."""
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((name.encode() * (size // len(name) + 1))[:size])
    return folder
