"""Error rates: the same as jiwer's on the whole, intervals that cover, empty references, the worst first."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest

from colabkit.core.errors import UsageError
from colabkit.pipelines.asr.evaluate.metrics import resample_rates, score

WORDS = "the cat sat on a mat and looked at two red birds that sang".split()


def made(number: int, errors: float, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return sentences and what a recogniser that errs at a share of the words might hear."""
    draw = np.random.default_rng(seed)
    references, hypotheses = [], []
    for _ in range(number):
        words = list(draw.choice(WORDS, draw.integers(3, 12)))
        heard = []
        for word in words:
            kind = draw.random() / errors if errors else 9
            heard += [] if kind < 0.3 else ["zzz"] if kind < 0.6 else [word, "uh"] if kind < 1 else [word]
        references.append(" ".join(words))
        hypotheses.append(" ".join(heard))
    return references, hypotheses


def test_rates_and_counts_are_those_of_jiwer():
    references, hypotheses = made(200, 0.3)
    found, words = score(references, hypotheses), jiwer.process_words(references, hypotheses)
    characters = jiwer.process_characters(references, hypotheses)
    assert found.wer == pytest.approx(words.wer) and found.cer == pytest.approx(characters.cer)
    totals = found.to_dict()
    wanted = [words.substitutions, words.deletions, words.insertions]
    assert [totals[k] for k in ("substitutions", "deletions", "insertions")] == wanted
    for i in (0, 7, 199):
        assert found.row(i)["wer"] == pytest.approx(jiwer.wer(references[i], hypotheses[i]))
        assert found.row(i)["cer"] == pytest.approx(jiwer.cer(references[i], hypotheses[i]))


def test_empty_references_count_what_was_heard_in_them():
    found = score(["a b", "", "c", ""], ["a b", "noise here", "", ""])
    assert found.words.errors.tolist() == [0, 2, 1, 0] and found.wer == pytest.approx(3 / 3)
    assert found.words.insertions[1] == 2 and found.words.deletions[2] == 1
    silent = score(["", ""], ["", "x"])
    assert silent.wer == 1.0 and score([""], [""]).wer == 0.0


def test_no_errors_are_none():
    references, _ = made(20, 0.0)
    found = score(references, [f"  {r}  " for r in references])
    assert (found.wer, found.cer, found.wer_interval, found.exact_fraction) == (0, 0, (0, 0), 1) and found.worst(
        5
    ) == []


def test_intervals_hold_the_rate_shrink_with_samples_and_are_the_same_again():
    small, large = score(*made(40, 0.3)), score(*made(1000, 0.3))
    for found in (small, large):
        for rate, (low, high) in ((found.wer, found.wer_interval), (found.cer, found.cer_interval)):
            assert low < rate < high
    width = [s.wer_interval[1] - s.wer_interval[0] for s in (small, large)]
    assert width[1] < width[0] / 3
    assert score(*made(40, 0.3)).wer_interval == small.wer_interval != score(*made(40, 0.3), seed=1).wer_interval
    narrow = score(*made(40, 0.3), confidence=0.5).wer_interval
    assert small.wer_interval[0] < narrow[0] < narrow[1] < small.wer_interval[1]


def test_intervals_cover_the_true_rate_as_often_as_they_say():
    truth = score(*made(20_000, 0.2, seed=99), num_resamples=1).wer
    inside = 0
    for seed in range(100):
        low, high = score(*made(60, 0.2, seed=seed), confidence=0.9, num_resamples=300).wer_interval
        inside += low <= truth <= high
    assert 78 <= inside <= 98


def test_the_worst_come_first():
    found = score(["a b c", "a b", "a", "x y z w"], ["a b c", "q r", "q", "x y q q"])
    assert [row["sample"] for row in found.worst(10)] == [1, 3, 2] and len(found.worst(1)) == 1
    assert len(found.table()) == 4 and found.worst(1)[0]["hypothesis"] == "q r"


def test_two_decoders_are_compared_on_the_same_draws():
    references, bad = made(200, 0.3)
    better = [r if i % 2 else h for i, (r, h) in enumerate(zip(references, bad, strict=True))]
    edits = [score(references, heard).words for heard in (bad, better, bad)]
    first, second, again = resample_rates(edits, seed=0, num_resamples=500)
    assert (second < first).all() and (first == again).all() and len(set(first.tolist())) > 10


@pytest.mark.parametrize(
    "references, hypotheses, how", [([], [], {}), (["a"], [], {}), (["a"], ["a"], {"confidence": 1.0})]
)
def test_what_cannot_be_scored_is_refused(references, hypotheses, how):
    with pytest.raises(UsageError):
        score(references, hypotheses, **how)
