"""A small store to encode."""

from __future__ import annotations

import pytest

from tests.pipelines.dataset.encode.small_store import Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)
