"""A Hub and an S3 on loopback, and clients for both."""

from __future__ import annotations

import random

import pytest
import urllib3

from colabkit.loopback.certificates import make_certificates
from colabkit.loopback.hub import HubServer
from tests.servers.refusing_s3 import RefusingS3

KEYS = {"mouse": "cheese/and+more"}
LARGE = random.Random(0).randbytes(3_000_000)


@pytest.fixture(scope="module")
def http():
    return urllib3.PoolManager(maxsize=32, retries=urllib3.Retry(2, connect=0, read=0))


@pytest.fixture
def hub():
    with HubServer(page_entries=3) as server:
        yield server


def link(http, hub: HubServer, path: str) -> str:
    answer = http.request("GET", f"{hub.url}/datasets/{path}", redirect=False)
    assert answer.status == 302 and answer.headers["Location"].startswith(f"http://localhost:{hub.port}/cdn/")
    return answer.headers["Location"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(certificates):
    with RefusingS3(tls=certificates.server_context(), keys=KEYS) as server:
        server.make_bucket("voices")
        yield server


def boto(server, certificates, secret=KEYS["mouse"], key="mouse"):
    boto3 = pytest.importorskip("boto3")
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        verify=str(certificates.authority),
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


def obstore_of(server, certificates, **config):
    store = pytest.importorskip("obstore.store")
    return store.S3Store(
        "voices",
        config={
            "endpoint": server.url,
            "access_key_id": "mouse",
            "secret_access_key": KEYS["mouse"],
            "region": "us-east-1",
            **config,
        },
        client_options={"root_certificate": certificates.authority.read_bytes()},
    )
