"""Places on loopback: a store behind TLS, certified by an authority made for it, and one of each kind with the same
files; in an environment without anybody's keys."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from colabkit.io.places import Pinned, S3Profile, open_place
from colabkit.loopback.certificates import Certificates, make_certificates
from colabkit.loopback.hub import HubServer
from tests.servers.gcs import GcsServer
from tests.servers.refusing_s3 import RefusingS3
from tests.servers.s3 import S3Server as MotoS3

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
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HUB_OFFLINE",
)
NAMES = [
    "README.md",
    "a.wav",
    "dir/b c.flac",
    "dir/déjà vu/日本 🎧.wav",
    "dir/100%25 #1?x=y&z+.wav",
    "dir2/big.tar",
    "dir2/empty.wav",
]


def contents() -> dict[str, bytes]:
    dice = random.Random(1)
    sizes = dict(zip(NAMES, (900, 1, 70_000, 65_537, 5_000, 400_000, 0), strict=True))
    return {name: dice.randbytes(size) for name, size in sizes.items()}


FILES = contents()


class Faults:
    """Answers the next requests with what is given, then lets them through."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    def __call__(self, request):
        self.requests.append(request)
        return self.answers.pop(0) if self.answers else None


@pytest.fixture(autouse=True)
def nobodys_environment(monkeypatch, tmp_path):
    """Nothing of the machine's own logins and settings counts."""
    import huggingface_hub.constants

    for name in OF_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name, value in {
        "AWS_SHARED_CREDENTIALS_FILE": tmp_path / "none",
        "AWS_CONFIG_FILE": tmp_path / "none",
        "AWS_EC2_METADATA_DISABLED": "true",
        "COLABKIT_CERTIFICATES": tmp_path / "pins",
        "NO_GCE_CHECK": "true",
        "GCE_METADATA_HOST": "127.0.0.1:1",
        "CLOUDSDK_CONFIG": tmp_path,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(certificates):
    with RefusingS3(tls=certificates.server_context(), keys={KEY: SECRET}) as running:
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


@pytest.fixture(params=["obstore", "pinned"])
def either(request, server, profile):
    """Objects by either client."""
    if request.param == "pinned":
        from colabkit.io.places.http import trust

        trust.pin(server.url, confirm=lambda _: True)
    return open_place("s3://bucket/p", profile=profile)


def without_secrets(error: Exception) -> str:
    """Return all that a user could see of an error, which holds no key and no signature."""
    text = f"{error} {error!r} {error.__cause__!r}"
    assert SECRET not in text and KEY not in text and "Signature=" not in text
    return text


def write_files(folder: Path, sizes: dict[str, int]) -> Path:
    """Write files of these sizes, their names being their content."""
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((name.encode() * (size // len(name) + 1))[:size])
    return folder


@pytest.fixture(scope="module")
def hub():
    with HubServer(page_entries=3) as server:
        server.add_dataset("org/na-me_1.0", FILES | {".gitattributes": b"x"})
        yield server


def fill(server):
    """Put the files at the top of a bucket and in a folder of it, beside what is no file of that folder."""
    for name, content in FILES.items():
        server.put("bucket", name, content)
        server.put("bucket", f"set/one/{name}", content)
    server.put("bucket", "set/one-not/x.wav", b"x")
    server.put("bucket", "set/one/folder/", b"")


@pytest.fixture(scope="session")
def s3():
    with MotoS3() as server:
        fill(server)
        server.put("bucket", "set/one/.colabkit-x.tmp", b"x")
        yield server


@pytest.fixture(scope="module")
def gcs():
    with GcsServer() as server:
        fill(server)
        yield server


@pytest.fixture
def at(request, monkeypatch, tmp_path):
    """Return a function kind -> address, which sets the environment for it; through a proxy if its address is given."""

    def prepare(kind: str, proxy: str | None = None) -> str:
        if kind == "folder":
            for name, content in FILES.items():
                (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "data" / name).write_bytes(content)
            return os.fspath(tmp_path / "data")
        server = request.getfixturevalue(kind)
        for name, value in server.environment(proxy).items():
            monkeypatch.setenv(name, value)
        return {"hub": "hub:org/na-me_1.0", "s3": "s3://bucket/set/one/", "gcs": "gs://bucket/set/one"}[kind]

    return prepare


def pinned(address) -> Pinned:
    """Return a place pinned to what lies there."""
    return Pinned(open_place(address))
