"""Tests of colabkit.colab.fetched_secrets: what kernels fetch is known before it can be printed, and stays private."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from colabkit.colab.fetched_secrets import KnownSecrets, tell


@pytest.fixture
def known(monkeypatch):
    monkeypatch.delenv("COLABKIT_FETCHED_SECRETS", raising=False)
    secrets = KnownSecrets(["from the start"])
    yield secrets
    secrets.close()


def test_nobody_listens():
    tell("nothing happens")


def test_what_another_process_fetches_is_known_at_once_longest_first(known):
    assert list(known) == ["from the start"]
    code = "import sys; from colabkit.colab.fetched_secrets import tell; [tell(v) for v in sys.argv[1:]]"
    subprocess.run([sys.executable, "-c", code, "a line\nand another one", "ab", "ünï!", "ünï!"], check=True)
    assert list(known) == ["a line\nand another one", "from the start", "ünï!"]
    path = Path(os.environ["COLABKIT_FETCHED_SECRETS"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tell("the last one")
    known.close()
    assert "the last one" in list(known) and not path.exists() and "COLABKIT_FETCHED_SECRETS" not in os.environ
    tell("too late")
    assert not path.exists()


def test_half_a_line_is_not_taken_before_it_is_whole(known):
    path = Path(os.environ["COLABKIT_FETCHED_SECRETS"])
    with open(path, "a") as opened:
        opened.write('"half')
        opened.flush()
        assert list(known) == ["from the start"]
        opened.write('way"\n')
    assert "halfway" in list(known)


def test_one_notebook_inside_another_leaves_the_outer_ones_file(known):
    outer = os.environ["COLABKIT_FETCHED_SECRETS"]
    inner = KnownSecrets([])
    assert os.environ["COLABKIT_FETCHED_SECRETS"] != outer
    inner.close()
    assert os.environ["COLABKIT_FETCHED_SECRETS"] == outer
