"""A machine without secrets, credentials or settings of its own, for every test of colabkit.colab; a page's kernel."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from colabkit.colab import secret_sources, userdata
from tests.colab.kernels import ALL, kernel

ROOT = Path(__file__).resolve().parents[2]
IS_COLAB = importlib.util.find_spec("google") is not None and importlib.util.find_spec("google.colab") is not None
INSTALL = "from colabkit.colab import install, uninstall; "


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


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def in_process(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own, whose keyring is chosen when it starts."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])} | env
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def run(code: str, folder: Path, *paths: Path, isolated: bool = False) -> str:
    """Run code in a fresh interpreter and return what it prints; isolated, without anything installed."""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT])),
        "PYTHONWARNINGS": "error::ImportWarning",
    }
    done = subprocess.run(
        [sys.executable, *(["-S"] if isolated else []), "-c", code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A kernel whose client is a page that answers and draws widgets."""
    with kernel(tmp_path_factory.mktemp("page"), allow_stdin=True) as started:
        started.run(ALL)
        yield started
