"""Shared by the tests of texts: cleaning that is checked to change nothing the second time."""

from __future__ import annotations

import pytest

from colabkit.pipelines.asr.config import TextConfig
from colabkit.pipelines.asr.text.cleaner import Cleaner


@pytest.fixture(scope="session")
def clean():
    """Return a function that cleans a text as settings say."""

    def clean(text: str, **settings) -> str:
        cleaner = Cleaner(TextConfig(**settings))
        found = cleaner.clean(text)
        assert cleaner.clean(found) == found
        return found

    return clean
