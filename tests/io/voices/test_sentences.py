"""Sentences to be spoken: many, varied, in words alone."""

from __future__ import annotations

from colabkit.io.voices import LANGUAGES, sentences


def test_sentences_are_many_varied_and_without_digits():
    assert len(LANGUAGES) >= 8
    for language in LANGUAGES:
        texts = sentences(language)
        assert len(texts) == len(set(texts)) >= 30
        lengths = [sum(any(c.isalnum() for c in token) for token in text.split()) for text in texts]
        assert min(lengths) <= 4 and max(lengths) >= 8 and 3 <= min(lengths) and max(lengths) <= 15
        assert not any(c.isdigit() for text in texts for c in text)
        assert all(text[-1] in ".?!;" and text == " ".join(text.split()) for text in texts)
    assert sentences("en-US") == sentences("en")
    assert any("а" <= c <= "я" for c in sentences("ru")[0]) and any("α" <= c <= "ω" for c in sentences("el")[0])
