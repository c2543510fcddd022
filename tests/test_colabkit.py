"""colabkit itself: public names that are loaded when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import colabkit


def test_public_names_load_when_used():
    code = "import colabkit; print(len([getattr(colabkit, name) for name in dir(colabkit)]) > 3)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "True"
    )


def test_every_public_name_is_listed_and_is_what_its_module_has():
    from colabkit.core.errors import ColabkitError
    from colabkit.core.table import Table

    assert colabkit.ColabkitError is ColabkitError and colabkit.Table is Table
    assert dir(colabkit) == sorted(colabkit.__all__) and "__version__" in colabkit.__all__


def test_a_name_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(AttributeError, match="no attribute 'confgure'; it has .*configure"):
        colabkit.confgure  # noqa: B018
