"""Notebooks are found by name, number, path or address, also where colabkit is installed without its repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from colabkit.core.errors import UsageError
from colabkit.headless.lookup import find_notebook

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "01_streaming_diarization.ipynb"


@pytest.mark.parametrize("name", ["01", "diarization", "01_streaming_diarization", "01_streaming_diarization.ipynb"])
def test_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_notebook(name)) == NOTEBOOK, "beside the package"
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / NOTEBOOK.name).write_text("mine")
    assert find_notebook(name) == f"notebooks/{NOTEBOOK.name}", "mine goes first"


def test_paths_and_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ünï.ipynb").touch()
    for name in ("ünï.ipynb", str(tmp_path / "ünï.ipynb"), "s3://bucket/a.ipynb", "gs://b/x"):
        assert find_notebook(name) == name


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("99", "colabkit notebook asr"),
        ("diarisation", "colabkit notebook diarization"),
        ("", "colabkit"),
        ("no/such.ipynb", "correct the path"),
        ("x.ipynb", "correct the path"),
        ("https://host/a.ipynb", "did you mean"),
        ("gcs://bucket/a.ipynb", "gs://bucket/a.ipynb"),
        ("S3://b/a.ipynb", "s3://b/a.ipynb"),
    ],
)
def test_what_there_is_not(name, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        find_notebook(name)
    assert meant in caught.value.fix


def test_installed_without_its_repository(tmp_path):
    """Built and installed as pip does it; then the notebook is taken away, and the error says how to get it."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "colabkit", "notebooks"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source / name)], check=True)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--ignore-installed",
            "--prefix",
            str(tmp_path / "prefix"),
            str(source),
        ],
        check=True,
        capture_output=True,
    )
    site = next((tmp_path / "prefix").rglob("site-packages"))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom colabkit.headless.lookup import find_notebook\n"
        "from colabkit.core.errors import UsageError\n"
        "try: print(find_notebook('01'))\nexcept UsageError as error: print(error)"
    )

    def ask() -> str:
        return subprocess.run(
            [sys.executable, "-P", "-c", code, str(site)], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    found = Path(ask())
    assert found.read_bytes() == NOTEBOOK.read_bytes() and tmp_path in found.parents
    found.unlink()
    assert "is not on this machine" in (text := ask()) and f"copy notebooks/{NOTEBOOK.name}" in text
