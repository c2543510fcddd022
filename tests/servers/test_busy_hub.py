"""A Hub with quotas refuses as the real one does."""

from __future__ import annotations

import time

import pytest
import urllib3

from colabkit.io.places.http.patience import ordered_wait_seconds
from tests.servers.busy_hub import BusyHub, Quota


@pytest.fixture
def http():
    return urllib3.PoolManager()


@pytest.fixture
def hub():
    with BusyHub() as server:
        yield server


def test_quotas_refuse_with_the_fields_of_the_real_one(hub, http):
    hub.add_dataset("o/s", {"a": b"x"})
    hub.api_quota = Quota(2, 0.5)
    ask = lambda: http.request("GET", f"{hub.url}/api/datasets/o/s", retries=False)  # noqa: E731
    answers = [ask() for _ in range(4)]
    assert [a.status for a in answers] == [200, 200, 429, 429] and hub.api_quota.refused == 2
    assert ordered_wait_seconds(answers[-1].headers) == 1 and "q=2;w=1" in answers[-1].headers["RateLimit-Policy"]
    time.sleep(0.55)
    assert ask().status == 200
    hub.api_quota = Quota(0, 60, with_retry_after=True)
    assert ask().headers["Retry-After"] == "60"
