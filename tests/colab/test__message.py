"""google.colab._message, which libraries such as wandb ask for the notebook's text: nobody answers, and at once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from colabkit.colab import _message
from tests.colab.conftest import INSTALL, IS_COLAB, run


@pytest.mark.skipif(IS_COLAB, reason="google.colab itself is installed here: nothing stands in its place")
def test_libraries_that_ask_for_the_notebook_get_no_answer_at_once(tmp_path):
    run(
        INSTALL + "import time; install(); import google.colab as colab; began = time.monotonic()\n"
        "assert colab._message.blocking_request('get_ipynb', timeout_sec=5) is None and time.monotonic() - began < 2\n"
        "from google.colab._message import MessageError; from google.colab import errors\n"
        "assert issubclass(MessageError, errors.Error)",
        tmp_path,
    )


def test_where_colabs_page_answers_it_is_asked(monkeypatch):
    asked = []
    colab = SimpleNamespace(blocking_request=lambda *arguments: asked.append(arguments) or {"cells": []})
    monkeypatch.setattr(_message, "real", lambda name, runtime, *, answered: colab)
    assert _message.blocking_request("get_ipynb", timeout_sec=9) == {"cells": []}
    assert asked == [("get_ipynb", "", 9, None)]
