"""A browser and a JupyterLab server for all tests of this folder; without either they are skipped, and say why."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser import lab as lab_module
from tests.browser.lab import Lab, NotebookPage
from tests.contracts.conftest import ROOT
from tests.contracts.killing import environment


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium without a window."""
    missing = [name for name in ("playwright", "jupyterlab") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: pip install -e '.[test]'")
    path = lab_module.chromium()
    if path is None:
        pytest.skip("no Chromium or Chrome on PATH: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # In a container there is no user namespace for the sandbox, and /dev/shm is small.
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory, browser) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab"), environment(threads=1)) as running:
        yield running


@pytest.fixture(scope="session")
def pictures() -> Path:
    """The folder for pictures: COLABKIT_SCREENSHOTS, or out/browser, which is never committed."""
    return Path(os.environ.get("COLABKIT_SCREENSHOTS") or ROOT / "out" / "browser")


@pytest.fixture
def open_page(browser, lab, pictures) -> Iterator[Callable[[str], NotebookPage]]:
    """Return a function that opens a notebook of the server; its kernel ends with the test."""
    opened = []

    def open_notebook(name: str) -> NotebookPage:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.append(page)
        return NotebookPage(page, lab, name, pictures)

    yield open_notebook
    for page in opened:
        page.close()
    lab.shut_down_kernels()
