"""Tests of colabkit.colab.userdata and secret_sources: where secrets come from, and that none is shown."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colabkit.colab import userdata
from colabkit.colab.secret_sources import env_files

HANGING_KEYRING = """
import keyring.backend, time, sys
class Keyring(keyring.backend.KeyringBackend):
    priority = 1
    def get_password(self, service, name):
        {do}
    def set_password(self, *a): pass
    def delete_password(self, *a): pass
"""


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def in_process(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own, whose keyring is chosen when it starts."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[2])])} | env
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


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


@pytest.mark.parametrize("key", ["", None, 7, b"A", [], "a b", "a\tb", "A\n", " "])
def test_names_that_cannot_be_one(key):
    with pytest.raises(ValueError, match="fix:"):
        userdata.get(key)


@pytest.mark.parametrize("key", ["a-b", "ä", "密钥", "A=B", "../x", "A\0B", "x" * 5000])
def test_odd_names_are_just_not_found(key):
    with pytest.raises(userdata.SecretNotFoundError) as caught:
        userdata.get(key)
    assert key in str(caught.value)


def test_the_error_says_how_to_give_the_value():
    began = time.monotonic()
    with pytest.raises(userdata.SecretNotFoundError) as caught:
        userdata.get("HF_TOKEN")
    text = str(caught.value)
    assert text.startswith("Secret HF_TOKEN does not exist.") and time.monotonic() - began < 5
    assert "environment variable HF_TOKEN" in text and ".env" in text and "keyring set colabkit HF_TOKEN" in text


@pytest.mark.parametrize("name", ["SecretNotFoundError", "NotebookAccessError", "TimeoutException"])
def test_exceptions_take_the_name_and_cross_processes(name):
    error = getattr(userdata, name)("A")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error) and str(back) == str(error) and "A" in str(back)


def test_fetched_values_are_kept_for_redaction(monkeypatch):
    monkeypatch.setenv("A", "s3cret-value")
    assert userdata.get("A") == "s3cret-value"
    assert "s3cret-value" in userdata.fetched_values()
    with pytest.raises(AttributeError):
        userdata.fetched_values().add("x")  # a copy that nobody can change


def test_values_are_in_no_output(tmp_path):
    put(tmp_path / ".env", "A=s3cret-value\n")
    done = in_process(
        "import logging; logging.basicConfig(level=0)\nfrom colabkit.colab import userdata\n"
        "userdata.get('A')\ntry: userdata.get('B')\nexcept Exception as e: print(repr(e), e)",
        tmp_path,
    )
    assert done.returncode == 0 and "B does not exist" in done.stdout
    assert "s3cret-value" not in done.stdout + done.stderr


def test_many_threads_may_ask_at_once(bare_machine):
    from concurrent.futures import ThreadPoolExecutor

    put(bare_machine / ".env", "\n".join(f"K{n}=v{n}" for n in range(20)))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(userdata.get, [f"K{n}" for n in range(20)])) == [f"v{n}" for n in range(20)]
