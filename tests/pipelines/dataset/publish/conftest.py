"""A Hub on loopback that takes datasets."""

from __future__ import annotations

import pytest

from tests.servers.busy_hub import BusyHub

TOKEN, READER = "hf_" + "w" * 34, "hf_" + "r" * 34


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # read once, when it is imported
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with BusyHub(folder=tmp_path / "hub") as server:
        server.writers, server.tokens = {TOKEN: ("me", "lab")}, {READER}
        yield server
