"""What the install tests share: one wheel of this checkout, and whether there is an index to install from."""

from __future__ import annotations

import pytest

from tests.install import fresh


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Build this checkout's wheel once."""
    checkout = fresh.copy_of_checkout(tmp_path_factory.mktemp("checkout") / "colabkit-source")
    return fresh.wheel_of(checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def index():
    """Skip where no package can be had."""
    if not fresh.index_answers():
        pytest.skip("no package index answers: this test installs from one")
