"""Shared by the tests of what several processes do together."""

from __future__ import annotations

import pytest

from tests.training.processes.gloo_processes import Processes


@pytest.fixture(scope="package")
def two():
    """Return two processes that carry out functions together."""
    with Processes() as processes:
        yield processes
