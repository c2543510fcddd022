"""Shared by the tests of all pipelines: one thread, and a stand-in for a run."""

from __future__ import annotations

import pytest
import torch

from tests.pipelines.stand_in import StandInRun


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Two cores are shared by many; and results do not depend on how a sum was split."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path):
    return StandInRun(tmp_path)


@pytest.fixture(scope="session")
def new_run():
    """Return a maker of runs, for tests that continue in the same folder."""
    return StandInRun
