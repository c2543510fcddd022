"""google.colab.userdata: secrets by name, which names can be one, and that no value is shown."""

from __future__ import annotations

import pickle
import time

import pytest

from colabkit.colab import userdata
from tests.colab.conftest import in_process, put


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
