"""The places of secrets on a machine without Colab's: environment, .env files, the system's keyring."""

from __future__ import annotations

import os

import pytest

from colabkit.colab import userdata
from colabkit.colab.secret_sources import env_files
from tests.colab.conftest import in_process, put

HANGING_KEYRING = """
import keyring.backend, time, sys
class Keyring(keyring.backend.KeyringBackend):
    priority = 1
    def get_password(self, service, name):
        {do}
    def set_password(self, *a): pass
    def delete_password(self, *a): pass
"""


def test_the_environment_comes_first_then_env_files(bare_machine, monkeypatch):
    put(bare_machine / ".env", "TOKEN=of the file\nOTHER='with space'\n")
    assert userdata.get("TOKEN") == "of the file" and userdata.get("OTHER") == "with space"
    monkeypatch.setenv("TOKEN", "of the environment")
    assert userdata.get("TOKEN") == "of the environment"
    monkeypatch.setenv("TOKEN", "")  # set, but to nothing: as good as not set
    assert userdata.get("TOKEN") == "of the file"
    assert "OTHER" not in os.environ, "a .env file is read, never put into the environment"


def test_env_files_are_sought_upwards_to_the_top_of_a_repository(bare_machine, monkeypatch):
    project = bare_machine / "project"
    (project / ".git").mkdir(parents=True)
    put(bare_machine / ".env", "A=home\nB=home\n")
    put(project / ".env", "A=project\n")
    put(project / "notebooks" / ".env", "C=notebooks\n")
    monkeypatch.chdir(project / "notebooks")
    assert list(env_files()) == [project / "notebooks" / ".env", project / ".env"]
    assert (userdata.get("A"), userdata.get("C")) == ("project", "notebooks")
    with pytest.raises(userdata.SecretNotFoundError):
        userdata.get("B")  # outside the repository
    (project / ".git").rmdir()
    assert userdata.get("B") == "home"


def test_env_files_above_home_are_not_read(tmp_path, bare_machine):
    put(tmp_path / ".env", "A=above")
    with pytest.raises(userdata.SecretNotFoundError):
        userdata.get("A")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00bin\x00", b"no equals sign", b"=\n=x", b"A\n", b"A=\n", b""])
def test_broken_env_files_are_passed_over(bare_machine, content):
    put(bare_machine / ".env", content)
    with pytest.raises(userdata.SecretNotFoundError):
        userdata.get("A")


def test_an_env_folder_and_a_removed_working_directory_do_no_harm(bare_machine, monkeypatch):
    (bare_machine / ".env").mkdir()
    with pytest.raises(userdata.SecretNotFoundError):
        userdata.get("A")
    gone = bare_machine / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(userdata.SecretNotFoundError):
        userdata.get("A")


def test_a_keyring_is_asked_under_colabkit(tmp_path):
    put(tmp_path / "ring.py", HANGING_KEYRING.format(do="return f'{service}/{name}'"))
    done = in_process(
        "from colabkit.colab import userdata; print(userdata.get('A'), userdata.fetched_values())",
        tmp_path,
        PYTHON_KEYRING_BACKEND="ring.Keyring",
    )
    assert done.stdout.strip() == "colabkit/A frozenset({'colabkit/A'})", done.stderr


@pytest.mark.parametrize(
    "do", ["time.sleep(60)", "raise RuntimeError('locked')", "sys.exit(3)", "return ''", "return None"]
)
def test_a_keyring_that_hangs_or_fails_does_not_hurt(tmp_path, do):
    put(tmp_path / "ring.py", HANGING_KEYRING.format(do=do))
    code = (
        "import time; from colabkit.colab import userdata\n"
        "for n in range(2):\n"
        "    began = time.monotonic()\n"
        "    try: userdata.get('A')\n"
        "    except userdata.SecretNotFoundError: print(time.monotonic() - began)\n"
    )
    done = in_process(code, tmp_path, PYTHON_KEYRING_BACKEND="ring.Keyring")
    first, second = map(float, done.stdout.split())
    assert first < 5 and second < 1, done.stderr  # the second time it is not asked again
