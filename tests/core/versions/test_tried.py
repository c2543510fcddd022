"""Versions that were tried: which, within what bounds, and what lies outside of them on a machine."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from colabkit.core.versions import tried
from colabkit.core.versions.tried import Environment

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def two(monkeypatch):
    """Say that two environments were tried."""
    known = (
        Environment("old", "2026-01-01", "3.11.2", {"torch": "2.6.0", "pyarrow": "16.0"}),
        Environment("new", "2026-02-01", "3.13.0", {"torch": "2.11.0+cu128", "obstore": "0.12.1"}),
    )
    monkeypatch.setattr(tried, "environments", lambda: known)


@pytest.fixture
def installed(monkeypatch):
    def set_installed(**versions):
        monkeypatch.setattr(tried, "installed_version", lambda name: versions.get(name, ""))

    return set_installed


def test_bounds_are_the_lowest_and_the_highest(two):
    assert tried.bounds("torch") == ("2.6.0", "2.11.0+cu128") and tried.bounds("python") == ("3.11.2", "3.13.0")
    assert tried.bounds("pyarrow") == ("16.0", "16.0") and tried.bounds("nothing") == ("", "")


@pytest.mark.parametrize(
    "version, told",
    [
        ("2.6.0", []),
        ("2.9.1", []),
        ("2.11.3", []),
        ("2.5.1", ["torch 2.5.1 is older than 2.6.0"]),
        ("2.12.0", ["torch 2.12.0 is newer than 2.11.0+cu128"]),
        ("", []),
    ],
)
def test_what_lies_outside_is_told_and_repairs_do_not_count(two, installed, version, told):
    installed(torch=version)
    assert tried.outside() == told
    assert tried.row("3.12.1")[1] == ("not all tried" if told else "tried")


def test_a_long_list_is_shortened(two, installed):
    installed(torch="9", pyarrow="1", obstore="0.1")
    row = tried.row("3.15.0")
    assert "torch 9 is newer" in row[2] and "python 3.15.0 is newer than 3.13.0" in row[2] and "3 more" not in row[2]


def test_colab_and_the_newest_are_among_what_was_tried():
    names = {environment.name for environment in tried.environments()}
    assert {"Colab", "newest"} <= names
    freeze = (ROOT / "tests/install/colab-freeze.txt").read_text(encoding="utf-8")
    colab = next(environment for environment in tried.environments() if environment.name == "Colab")
    for name in ("transformers", "numpy", "pyarrow", "ipykernel", "gcsfs"):
        assert f"\n{name}=={colab.versions[name]}\n" in freeze, (
            f"Colab's list is newer: make test-colab, then record {name}"
        )


def test_nothing_is_imported_to_compare():
    heavy = set(sys.modules)
    tried.row("3.12.0")
    assert not {"torch", "transformers", "pyarrow"} & (set(sys.modules) - heavy)
    assert importlib.metadata.version("numpy") == tried.installed_version("numpy")
