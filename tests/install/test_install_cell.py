"""The notebook's install cell, run in real kernels of fresh environments: what it adds, leaves alone, and says."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.install import fresh
from tests.install.fresh import Kernel, install_cell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NOWHERE = "http://127.0.0.1:9/simple"  # nothing listens there
DEAD_NETWORK = {
    "PIP_INDEX_URL": NOWHERE,
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_RETRIES": "0",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_NO_CACHE_DIR": "1",
}
WHERE_THEY_ARE = "import torch, numpy; print(torch.__file__, torch.__version__, numpy.__file__, numpy.__version__)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Make an environment that has everything but colabkit, as Colab nearly does; yields its folder."""
    folder = tmp_path_factory.mktemp("whole") / "env"
    fresh.environment(folder)
    return folder


@pytest.fixture
def cwd(tmp_path):
    """Make the folder a kernel starts in, with a folder in it that has the package's name, as ~ and /content have."""
    (tmp_path / "work" / "colabkit").mkdir(parents=True)
    return tmp_path / "work"


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def test_it_installs_colabkit_alone_and_the_second_time_does_nothing(whole, wheel, cwd):
    source = wheel.as_uri()
    with Kernel(python_of(whole), cwd) as kernel:
        before, error = kernel.run(WHERE_THEY_ARE)
        assert not error and str(whole / "preinstalled") in before
        printed, error = kernel.run(install_cell(source))
        assert not error, printed
        printed, error = kernel.run("import colabkit; print(colabkit.__file__)")
        assert not error and str(whole / "lib") in printed, "it must be usable without a restart"
        assert kernel.run(WHERE_THEY_ARE)[0] == before
        began = time.monotonic()
        assert kernel.run(install_cell(source)) == ("", "") and time.monotonic() - began < 2
    assert fresh.own_packages(whole) == {"colabkit"}
    # A new kernel, no network, and an address that is gone: what is satisfied asks nobody.
    with Kernel(python_of(whole), cwd, **DEAD_NETWORK) as kernel:
        assert kernel.run(install_cell("file:///gone/colabkit.whl")) == ("", "")
        assert kernel.run(WHERE_THEY_ARE)[0] == before
    listed = subprocess.run([whole / "bin" / "colabkit", "list"], cwd=cwd, capture_output=True, text=True)
    assert listed.returncode == 0 and "diarization" in listed.stdout, listed.stderr
    checked = subprocess.run([whole / "bin" / "colabkit", "check"], cwd=cwd, capture_output=True, text=True)
    assert checked.returncode == 0 and "used as installed" in checked.stdout, checked.stderr


def test_from_git_what_is_missing_is_fetched_and_a_constraint_is_kept(tmp_path, cwd, index):
    """The address in its real form, git+...@main; two packages are missing, one of them is held back by PIP_CONSTRAINT.

    ipywidgets are missing, too, and stay so: a kernel without them works in plain lines.
    """
    folder = tmp_path / "env"
    python = fresh.environment(folder, without={"obstore", "espeakng_loader", "ipywidgets"})
    (tmp_path / "held.txt").write_text("obstore==0.11.0\ntorch==2.13.0\n")
    with (
        fresh.repository_of(fresh.copy_of_checkout(tmp_path / "checkout")) as source,
        Kernel(python, cwd, PIP_CONSTRAINT=str(tmp_path / "held.txt"), PIP_RETRIES="1") as kernel,
    ):
        before, _ = kernel.run(WHERE_THEY_ARE)
        printed, error = kernel.run(install_cell(source))
        assert not error, printed
        assert (
            kernel.run("import colabkit.runs.state; from importlib.metadata import version; print(version('obstore'))")[
                0
            ]
            == "0.11.0\n"
        )
        assert kernel.run(WHERE_THEY_ARE)[0] == before
        printed, error = kernel.run("import colabkit; print(colabkit.machine_table())")
        assert not error and "all works without" in printed and "headless" in printed
    assert fresh.own_packages(folder) == {"colabkit", "obstore", "espeakng_loader"}


def refused(python: Path, cwd: Path, source: str, **env: str) -> str:
    """Run the cell where it must fail; returns what it printed, after holding the error to its form."""
    with Kernel(python, cwd, **env) as kernel:
        began = time.monotonic()
        printed, error = kernel.run(install_cell(source))
        assert error.startswith("AssertionError: Not installed: mend what pip says above"), printed
        assert time.monotonic() - began < 60
        assert "ModuleNotFoundError" in kernel.run("import colabkit.core")[1]
    return printed


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Make an environment like the whole one for cells that fail, so that it stays without colabkit."""
    folder = tmp_path_factory.mktemp("bare") / "env"
    fresh.environment(folder, without={"obstore"})
    yield folder
    assert fresh.own_packages(folder) == set(), "a failed install left something behind"


def test_no_network_is_one_clear_error(bare, cwd):
    printed = refused(python_of(bare), cwd, "git+http://127.0.0.1:9/someone/kit@main", **DEAD_NETWORK)
    assert re.search(r"unable to access|Failed to connect|Cannot find command 'git'", printed), printed


def test_a_dependency_that_cannot_be_had_is_named(bare, wheel, cwd):
    assert "obstore" in refused(python_of(bare), cwd, wheel.as_uri(), **DEAD_NETWORK)


def test_a_constraint_that_cannot_be_kept_is_a_conflict(bare, wheel, cwd, tmp_path):
    (tmp_path / "held.txt").write_text("torch==1.0\n")
    printed = refused(python_of(bare), cwd, wheel.as_uri(), PIP_CONSTRAINT=str(tmp_path / "held.txt"), **DEAD_NETWORK)
    assert "Cannot install colabkit[diarization]" in printed and "conflicting dependencies" in printed, printed


def test_an_old_python_is_named(bare, cwd, tmp_path):
    """As seen by a Python older than colabkit wants: here every Python is."""
    checkout = fresh.copy_of_checkout(tmp_path / "checkout")
    settings = checkout / "pyproject.toml"
    settings.write_text(settings.read_text().replace('requires-python = ">=3.11"', 'requires-python = ">=3.99"'))
    later = fresh.wheel_of(checkout, tmp_path)
    assert "requires a different Python" in refused(python_of(bare), cwd, later.as_uri(), **DEAD_NETWORK)


def test_a_kernel_without_pip_is_told(tmp_path, wheel, cwd):
    python = fresh.environment(tmp_path / "env", without={"pip"})
    assert "No module named pip" in refused(python, cwd, wheel.as_uri())


@pytest.mark.skipif(
    "COLABKIT_FULL_INSTALL" not in os.environ,
    reason="takes two minutes and 2 GB of disk: COLABKIT_FULL_INSTALL=1 runs it",
)
def test_everything_from_the_index(tmp_path, cwd, index):
    """A kernel and nothing else, PyTorch held to constraints.txt's version (or another build, by PIP_* settings)."""
    fresh.venv.create(tmp_path / "env", with_pip=True)
    python = python_of(tmp_path / "env")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "ipykernel"], check=True)
    torch = next(
        line for line in (fresh.ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    )
    (tmp_path / "held.txt").write_text(torch)
    with (
        fresh.repository_of(fresh.copy_of_checkout(tmp_path / "checkout")) as source,
        Kernel(python, cwd, PIP_CONSTRAINT=str(tmp_path / "held.txt")) as kernel,
    ):
        printed, error = kernel.run(install_cell(source))
        assert not error, printed
        assert kernel.run(install_cell(source)) == ("", "")
        printed, error = kernel.run("import colabkit, torch; print(torch.__version__)")
        assert not error and printed.startswith(torch.removeprefix("torch=="))
    ran = subprocess.run([tmp_path / "env/bin/colabkit", "list"], cwd=cwd, capture_output=True, text=True)
    assert ran.returncode == 0 and "diarization" in ran.stdout, ran.stderr
