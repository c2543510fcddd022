"""The texts of a listing cleaned, the vocabulary of those to train on, what is left aside and what is not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.pipelines.asr.config import TextConfig
from colabkit.pipelines.asr.data.texts import open_texts
from colabkit.pipelines.asr.text.cleaner import Cleaner
from colabkit.pipelines.asr.text.step import clean_listing
from colabkit.pipelines.asr.text.vocabulary import Vocabulary
from tests.pipelines.asr.speech_files import NAMES, as_csv, texts_of, write_files


def cleaned(listing, told, text=None, **how):
    return clean_listing(listing, Cleaner(text or TextConfig()), told, **how)


def test_the_text_step_makes_the_vocabulary_of_training_texts_alone(tmp_path, listed, told):
    write_files(tmp_path, [*NAMES, "test/t0.wav", "test/t1.wav"])
    (tmp_path / "clips" / "t.csv").write_text(as_csv((Path(n).name, f"Zwölf, words {i}!") for i, n in enumerate(NAMES)))
    (tmp_path / "test" / "t.csv").write_text("file,text\nt0.wav,naïve words\nt1.wav,...\n")
    listing = listed(tmp_path / "clips", test_source=str(tmp_path / "test"))
    found = cleaned(listing, told)
    assert found.unknown == {"validation": {}, "test": {"ï": 1, "a": 1}} and found.characters["ö"] == len(
        listing["train"]
    )
    assert "ï" not in found.vocabulary.characters and "ö" in found.vocabulary.characters
    assert found.listing["test"].texts.to_list() == ["naïve words"]
    assert found.left_aside == {"nothing is left of its transcript after cleaning": 1}
    assert any("ï" in reason for reason in told.problems.values())
    assert len(found.listing["test"].seconds) == 1 and found.listing["test"].names[0] == "t0.wav"
    found.save(tmp_path)
    again = open_texts(tmp_path / "texts.safetensors", listing)
    assert again.fingerprint == found.listing.fingerprint != listing.fingerprint
    assert Vocabulary.load(tmp_path) == found.vocabulary and texts_of(again) == texts_of(found.listing)
    assert np.array_equal(again["train"].take([1]).read_wave(0), again["train"].read_wave(1))
    assert again["train"].take([1]).texts[0] == again["train"].texts[1]


def test_rare_characters_and_unusable_numbers_leave_training(tmp_path, listed, told):
    write_files(tmp_path, NAMES)
    texts = ["plain words of usual letters"] * 8 + ["one ñ here", "on 3/4/2020"]
    (tmp_path / "t.csv").write_text(as_csv(zip(NAMES, texts, strict=True)))
    tried = (listed(tmp_path, held_out_fraction=0.1, validation_fraction=0.1, seed=seed) for seed in range(30))
    listing = next(found for found in tried if set(texts[-2:]) <= set(found["train"].texts.to_list()))
    found = cleaned(listing, told, rare_fraction=0.009)
    assert found.rare.keys() >= {"ñ"} and "ñ" not in found.vocabulary.characters
    assert found.left_aside == {
        "it holds numbers joined by a sign, which may be read in several ways": 1,
        "it holds a rare character": 1,
    }
    assert (
        set(found.listing["train"].texts.to_list()) == set(texts[:1])
        and len(found.kept["train"]) == len(listing["train"]) - 2
    )
    assert cleaned(listing, told).rare == {}


def test_a_split_that_loses_all_its_texts_is_an_error_with_the_reason(tmp_path, listed, told):
    write_files(tmp_path, NAMES)
    (tmp_path / "t.csv").write_text(as_csv(zip(NAMES, ["on 3/4/2020"] * 10, strict=True)))
    with pytest.raises(DataError, match="No text of") as caught:
        cleaned(listed(tmp_path), told)
    assert "joined by a sign" in str(caught.value) and "text.digits" in caught.value.fix


def test_a_language_without_number_words_says_so_through_choose(tmp_path, listed, told):
    write_files(tmp_path, NAMES)
    (tmp_path / "t.csv").write_text(as_csv(zip(NAMES, ["शब्द"] * 10, strict=True)))
    cleaned(listed(tmp_path), told, text=TextConfig(language="hi"))
    assert told.chosen["text.digits"][0] == "refuse"
