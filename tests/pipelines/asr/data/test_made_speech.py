"""Voices made on the spot: what they say, and that the same settings say the same."""

from __future__ import annotations

import pytest

from colabkit.core.errors import UsageError
from colabkit.pipelines.asr.data.made_speech import closed_sentences
from tests.pipelines.asr.speech_files import texts_of


def test_voices_say_every_word_of_a_closed_vocabulary(listed, tmp_path, told):
    words = ("red", "green", "blue", "one", "two")
    how = {"vocabulary": words, "num_voices": 6, "sentences_per_voice": 3}
    (tmp_path / "first").mkdir()
    listing = listed("voices", folder=tmp_path / "first", **how)
    assert listing.fingerprint == listed("voices", **how).fingerprint != listed("voices", seed=1, **how).fingerprint
    texts = [text.split() for text in texts_of(listing).values()]
    assert len(texts) == 18 and all(2 <= len(text) <= 5 and set(text) <= set(words) for text in texts)
    speakers = [set(split.speakers) for split in listing.splits.values()]
    assert sum(map(len, speakers)) == 6 and told.chosen["data.split_by"][0] == "speaker"
    said = closed_sentences(words, "anna", 0)
    drawn = " ".join(next(said) for _ in range(40)).split()
    assert max(drawn.count(w) for w in words) - min(drawn.count(w) for w in words) <= 2


def test_voices_say_everyday_sentences_of_the_language(listed):
    listing = listed("voices", language="de", num_voices=3, sentences_per_voice=2)
    assert any(set("äöüß") & set(text) for text in texts_of(listing).values())
    assert all("-de-" in name for name in texts_of(listing))
    with pytest.raises(UsageError) as caught:
        listed("voices", language="kaa")
    assert "data.vocabulary" in caught.value.fix
