"""The two clients of a bucket, each asked without anything around it that would try again."""

from __future__ import annotations

import pytest

from colabkit.io.places.http.obstore_client import ObstoreClient
from colabkit.io.places.http.signed_client import SignedClient
from colabkit.io.places.http.signing import Signer
from colabkit.io.places.s3 import _maker
from tests.io.places.conftest import KEY, SECRET


@pytest.fixture
def obstore_client(profile) -> ObstoreClient:
    return ObstoreClient(_maker(profile, "keys", "us-east-1"))


@pytest.fixture
def signed_client(server, certificates) -> SignedClient:
    signer = Signer(KEY, SECRET, "", "us-east-1")
    return SignedClient(f"{server.url}/bucket", signer, ca_bundle=str(certificates.authority))


@pytest.fixture(params=["obstore_client", "signed_client"])
def any_client(request):
    """Each of the clients: what their protocol says holds for both."""
    return request.getfixturevalue(request.param)
