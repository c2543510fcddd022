"""The n-gram model: probabilities that add up, Kneser-Ney by hand, files that come back the same."""

from __future__ import annotations

import gzip
import math
import random

import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.asr.evaluate.language_model import END, NgramModel


def sentences(number: int, seed: int = 0) -> list[str]:
    """Return sentences of a chain in which each word says much about the next."""
    draw, found = random.Random(seed), []
    for _ in range(number):
        place, words = draw.randrange(8), []
        for _ in range(draw.randint(2, 9)):
            words.append("abcdefgh"[place])
            place = (place + draw.choice([1, 1, 1, 3])) % 8
        found.append(" ".join(words))
    return found


def sentence_log_prob(model: NgramModel, text: str) -> float:
    """Return the log probability of a whole sentence with its end."""
    total, state = 0.0, model.begin()
    for word in text.split():
        log_prob, state = model.score(state, word)
        total += log_prob
    return total + model.end(state)


def perplexity(model: NgramModel, texts: list[str]) -> float:
    """Return the perplexity by word, sentence ends counted."""
    total = sum(sentence_log_prob(model, text) for text in texts)
    return math.exp(-total / sum(len(text.split()) + 1 for text in texts))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_add_up_to_one_after_any_words(order):
    model = NgramModel.train(sentences(150), order)
    for context in ("", "a", "a b", "c d e f", "zz", "a zz b", "b a h"):
        state = model.begin()
        for word in context.split():
            _, state = model.score(state, word)
        total = sum(math.exp(model.score(state, word)[0]) for word in model.words[2:]) + math.exp(model.end(state))
        assert total == pytest.approx(1.0, abs=1e-9)
        assert len(state) <= max(order - 1, 0)


def test_kneser_ney_by_hand():
    """San Francisco: "francisco" is frequent, but only after "san": elsewhere no likelier than a word seen once."""
    texts = ["san francisco"] * 6 + ["the glass", "a glass", "my glass"]
    model = NgramModel.train(texts, 2)
    _, elsewhere = model.score(model.begin(), "never")
    assert model.score(elsewhere, "glass")[0] > model.score(elsewhere, "francisco")[0]
    # Lower order: the words each was seen after; usual discounts 0.5, 1 and 1.5, since counts of some sizes are
    # missing. san 1, francisco 1, the 1, a 1, my 1, glass 3, </s> 2: 10 in all, freed (5 * 0.5 + 1.5 + 1) / 10 = 0.5,
    # over 8 words.
    unigram = (3 - 1.5) / 10 + 0.5 / 8
    # After san: francisco 6 times, of 6; freed 1.5 / 6.
    assert math.exp(model.score(elsewhere, "glass")[0]) == pytest.approx(unigram)
    _, san = model.score(model.begin(), "san")
    assert math.exp(model.score(san, "francisco")[0]) == pytest.approx(
        (6 - 1.5) / 6 + 1.5 / 6 * ((1 - 0.5) / 10 + 0.5 / 8)
    )


def test_longer_contexts_predict_unseen_sentences_better():
    seen, unseen = sentences(2000), sentences(300, seed=1)
    perplexities = [perplexity(NgramModel.train(seen, order), unseen) for order in (1, 2, 3)]
    assert perplexities[0] > 1.5 * perplexities[1] and perplexities[2] < 1.05 * perplexities[1]
    assert perplexities[1] < 5


@pytest.mark.parametrize("order", [1, 3])
def test_arpa_files_come_back_the_same(tmp_path, order):
    model = NgramModel.train(sentences(100), order)
    model.save(tmp_path / "m.arpa")
    text = (tmp_path / "m.arpa").read_text()
    assert text.startswith("\\data\\\nngram 1=11\n") and text.endswith("\\end\\\n")
    (tmp_path / "m.arpa.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("m.arpa", "m.arpa.gz"):
        read = NgramModel.load(tmp_path / name)
        for sentence in [*sentences(20, seed=5), "zz a", ""]:
            assert sentence_log_prob(read, sentence) == pytest.approx(sentence_log_prob(model, sentence), abs=1e-4)


def test_no_words_and_no_order_are_refused():
    with pytest.raises(DataError):
        NgramModel.train(["", "  "])
    with pytest.raises(UsageError):
        NgramModel.train(["a"], 0)
    model = NgramModel.train(["a"], 5)
    assert sentence_log_prob(model, "a") > math.log(0.05) and END in model.words
