"""A machine without secrets, credentials or settings of its own, for every test of colabkit.colab."""

from __future__ import annotations

import os

import pytest

from colabkit.colab import secret_sources, userdata


@pytest.fixture(autouse=True)
def bare_machine(tmp_path, monkeypatch):
    """Run in an empty home folder, with no variable that these calls look at and a keyring that holds nothing."""
    for name in [
        name for name in os.environ if name.startswith(("COLAB", "GOOGLE_", "CLOUDSDK", "VERTEX", "JPY_", "HF_"))
    ]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr(secret_sources, "_keyring_hangs", set())
    userdata.forget()
    yield home
    userdata.forget()
