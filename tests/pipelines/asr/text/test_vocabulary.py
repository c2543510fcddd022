"""The vocabulary against transformers' tokenizer: same files, same numbers, same text; nothing of a script is lost."""

from __future__ import annotations

import random

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.io.voices.sentences import SENTENCES
from colabkit.pipelines.asr.config import TextConfig
from colabkit.pipelines.asr.text.cleaner import Cleaner
from colabkit.pipelines.asr.text.vocabulary import (
    DELIMITER,
    PAD,
    UNKNOWN,
    Vocabulary,
    choose_characters,
    count_characters,
)
from tests.pipelines.asr.ctc import collapse

TEXTS = ["don't stop", "हिन्दी में क्षत्रिय", "العَرَبِيَّةُ", "น้ำใจ", "oʻzbek gʻalaba", "漢字 カナ", "straße"]


@pytest.fixture
def vocabulary():
    return Vocabulary.of(set("".join(TEXTS)))


@pytest.fixture
def tokenizer(vocabulary, tmp_path):
    from transformers import Wav2Vec2CTCTokenizer

    vocabulary.save(tmp_path)
    return Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)


def test_special_tokens_come_first_and_order_does_not_depend_on_the_texts(vocabulary):
    assert vocabulary.tokens[:3] == (PAD, UNKNOWN, DELIMITER) and vocabulary.blank == 0
    shuffled = list("".join(TEXTS))
    random.Random(1).shuffle(shuffled)
    assert Vocabulary.of(shuffled) == vocabulary and list(vocabulary.tokens[3:]) == sorted(vocabulary.tokens[3:])


def test_every_text_comes_back_whole(vocabulary):
    for text in TEXTS:
        assert vocabulary.decode(vocabulary.encode(text)) == text
    every = [Cleaner(TextConfig(language=k)).clean(s) for k, sentences in SENTENCES.items() for s in sentences]
    whole = Vocabulary.of(count_characters(every))
    assert [whole.decode(whole.encode(text)) for text in every] == every


def test_transformers_reads_the_same_numbers_and_text(vocabulary, tokenizer):
    assert len(tokenizer) == len(vocabulary) and tokenizer.get_vocab() == vocabulary.indices
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.word_delimiter_token_id) == (0, 1, 2)
    for text in [*TEXTS, "unknown ξ here", "x"]:
        assert tokenizer(text).input_ids == vocabulary.encode(text)
    draw = np.random.default_rng(0)
    for _ in range(200):
        path = draw.integers(0, len(vocabulary), draw.integers(1, 30)).repeat(draw.integers(1, 3))
        assert " ".join(tokenizer.decode(path.tolist()).split()) == vocabulary.decode(collapse(path))


def test_what_the_tokenizer_saves_is_read_again(vocabulary, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "again")
    assert Vocabulary.load(tmp_path / "again") == vocabulary == Vocabulary.load(tmp_path)


def test_the_vocabulary_of_a_fine_tuned_model_is_read_with_its_own_names(tmp_path):
    (tmp_path / "vocab.json").write_text('{"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6}')
    read = Vocabulary.load(tmp_path)
    assert (read.blank, read.unknown_index, read.delimiter, read.characters) == (0, 3, 4, "ET")
    assert read.decode([1, 5, 4, 6, 2]) == "E T" and read.encode("ET?") == [5, 6, 3]


def test_unknown_characters_are_encoded_as_unknown(vocabulary):
    assert vocabulary.encode("ξ") == [vocabulary.unknown_index]
    assert vocabulary.decode(vocabulary.encode("dξ")) == f"d{UNKNOWN}"


def test_rare_characters_are_left_out_with_their_counts():
    counts = count_characters(["aaaa bbbb", "aaab", "aañ"])
    assert counts == {"a": 9, "b": 5, "ñ": 1}
    assert choose_characters(counts, 0.0)[1] == {}
    vocabulary, rare = choose_characters(counts, 0.1)
    assert rare == {"ñ": 1} and vocabulary.characters == "ab"


def test_counting_goes_over_many_texts_in_pieces(monkeypatch):
    monkeypatch.setattr("colabkit.pipelines.asr.text.vocabulary._TEXTS_AT_ONCE", 3)
    assert count_characters(["ab", "b", "", "ab", "b 𝄞"]) == {"a": 2, "b": 4, "𝄞": 1}


@pytest.mark.parametrize("content", ['{"a": 0, "b": 2}', "[]", '{"a": 0, "b": 1}', '{"de": {"a": 0}}'])
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, content):
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(DataError):
        Vocabulary.load(tmp_path)
