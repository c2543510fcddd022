"""google.colab.syntax: the language of a text is named, and the text comes back as it is."""

from __future__ import annotations

import pytest

from colabkit.colab import syntax

TEXTS = {
    "html": "<b>&amp;</b>\n",
    "javascript": "const x = `a ${1}`;",
    "sql": "select '%' -- ü",
    "css": "a::before { content: '\\201C' }",
}


@pytest.mark.parametrize("language", syntax.__all__)
def test_a_text_comes_back_as_it_is(language):
    text = TEXTS[language]
    assert getattr(syntax, language)(text) is text
