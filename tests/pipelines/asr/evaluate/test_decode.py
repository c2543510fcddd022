"""Decoding against all paths counted one by one; times; the n-gram model that mends what noise has spoilt."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from colabkit.core.errors import UsageError
from colabkit.pipelines.asr.evaluate.decode import BeamDecoder, align, greedy
from colabkit.pipelines.asr.evaluate.language_model import NgramModel
from colabkit.pipelines.asr.evaluate.metrics import resample_rates, score
from colabkit.pipelines.asr.text.vocabulary import Vocabulary
from tests.pipelines.asr.ctc import collapse

SMALL = Vocabulary.of("ab")


def beam(log_probs_TC, vocabulary, *, language_model=None, lm_weight=0.5, word_bonus=1.0, **times):
    decoder = BeamDecoder(vocabulary, language_model=language_model, lm_weight=lm_weight, word_bonus=word_bonus)
    return decoder.decode(log_probs_TC, **times)


def normal(logits: np.ndarray) -> np.ndarray:
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


def random_log_probs(num_frames: int, num_classes: int, seed: int, spread: float = 2.0) -> np.ndarray:
    return normal(np.random.default_rng(seed).normal(size=(num_frames, num_classes)) * spread)


def all_texts(log_probs_TC: np.ndarray, vocabulary: Vocabulary) -> dict[tuple[int, ...], float]:
    """Return the log probability of every token sequence: all its paths added up, one by one."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(len(vocabulary)), repeat=len(log_probs_TC)):
        tokens = tuple(collapse(path))
        found[tokens] = np.logaddexp(
            found.get(tokens, -np.inf), log_probs_TC[range(len(path)), path].sum(dtype=np.float64)
        )
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("with_model", [False, True])
def test_the_beam_adds_up_all_paths_of_a_text(seed, with_model):
    log_probs = random_log_probs(5, len(SMALL), seed)
    model = NgramModel.train(["a b", "ab a", "b b a"], 2) if with_model else None

    def with_words(tokens: tuple[int, ...], log_prob: float) -> float:
        if model is None:
            return log_prob
        state = model.begin()
        for word in "".join(" " if t == SMALL.delimiter else SMALL.tokens[t] for t in tokens).split():
            word_log_prob, state = model.score(state, word)
            log_prob += 0.7 * word_log_prob + 0.3
        return log_prob + 0.7 * model.end(state)

    wanted = {tokens: with_words(tokens, log_prob) for tokens, log_prob in all_texts(log_probs, SMALL).items()}
    found = BeamDecoder(
        SMALL, width=10**6, language_model=model, lm_weight=0.7, word_bonus=0.3, least_log_prob=-1e9
    ).search(log_probs)
    assert len(found) == len(wanted)
    assert {tuple(tokens): s for s, tokens in found} == pytest.approx(wanted, abs=1e-4)
    assert tuple(found[0][1]) == max(wanted, key=wanted.get)


@pytest.mark.parametrize("seed", range(4))
def test_a_narrow_beam_finds_the_best_of_small_cases(seed):
    log_probs = random_log_probs(6, len(SMALL), 100 + seed)
    wanted = all_texts(log_probs, SMALL)
    assert tuple(BeamDecoder(SMALL, width=12).search(log_probs)[0][1]) == max(wanted, key=wanted.get)


@pytest.mark.parametrize("seed", range(5))
def test_alignment_is_the_best_path_of_its_text(seed):
    log_probs = random_log_probs(6, len(SMALL), 200 + seed)
    for tokens in ([], [3], [3, 3], [3, 2, 4], [1, 1, 1]):
        path, best = align(log_probs, tokens, 0)
        assert collapse(path) == tokens
        paths = itertools.product(range(len(SMALL)), repeat=6)
        every = [log_probs[range(6), p].sum() for p in paths if collapse(p) == tokens]
        assert best.sum() == pytest.approx(max(every), abs=1e-4)
    with pytest.raises(UsageError):
        align(log_probs, [3, 3, 3, 3], 0)


@pytest.mark.parametrize("seed", range(5))
def test_alignment_is_torchaudio_s(seed):
    try:
        import torchaudio.functional as torchaudio
    except (ImportError, OSError) as error:  # a build for another torch
        pytest.skip(f"no torchaudio that imports: {error}")
    import torch

    draw = np.random.default_rng(seed)
    log_probs = random_log_probs(200, 12, 300 + seed)
    tokens = draw.integers(1, 12, 40).tolist()
    path, best = align(log_probs, tokens, 0)
    theirs, scores = torchaudio.forced_align(torch.from_numpy(log_probs)[None], torch.tensor([tokens]), blank=0)
    assert path.tolist() == theirs[0].tolist()
    np.testing.assert_allclose(best, scores[0].numpy(), atol=1e-6)


def spelt(path: str, vocabulary: Vocabulary, sure: float = 6.0) -> np.ndarray:
    """Return log probabilities of a path written as characters: - is the blank, a space the delimiter."""
    logits = np.zeros((len(path), len(vocabulary)))
    for t, c in enumerate(path):
        logits[t, vocabulary.blank if c == "-" else vocabulary.delimiter if c == " " else vocabulary.indices[c]] = sure
    return normal(logits)


@pytest.mark.parametrize("decode", [greedy, beam])
def test_words_and_tokens_have_their_times(decode):
    vocabulary = Vocabulary.of("abc")
    found = decode(spelt("--aab-b  -c--", vocabulary), vocabulary, frame_seconds=0.02, start_seconds=10.0)
    assert found.text == "abb c"
    assert [(w.text, round(w.start_seconds, 2), round(w.end_seconds, 2)) for w in found.words] == [
        ("abb", 10.04, 10.14),
        ("c", 10.2, 10.22),
    ]
    assert "".join(t.text for t in found.tokens) == "abb c" and all(0.5 < w.probability <= 1 for w in found.words)
    assert all(a.end_seconds <= b.start_seconds for a, b in itertools.pairwise(found.tokens))
    nothing = decode(spelt("----", vocabulary), vocabulary)
    assert (nothing.text, nothing.words, nothing.tokens) == ("", (), ())


def test_greedy_is_what_transformers_decodes(tmp_path):
    from transformers import Wav2Vec2CTCTokenizer

    vocabulary = Vocabulary.of("abc'")
    vocabulary.save(tmp_path)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    for seed in range(20):
        log_probs = random_log_probs(40, len(vocabulary), seed)
        wanted = tokenizer.decode(log_probs.argmax(1), output_word_offsets=True)
        found = greedy(log_probs, vocabulary, frame_seconds=1.0)
        assert found.text == " ".join(wanted.text.split())
        offsets = [(w["word"], w["start_offset"], w["end_offset"]) for w in wanted.word_offsets if w["word"].strip()]
        assert [(w.text, int(w.start_seconds), int(w.end_seconds)) for w in found.words] == offsets


def heard(text: str, vocabulary: Vocabulary, noise: float, seed: int) -> np.ndarray:
    """Return a text's log probabilities as a model gives them, two frames a character, blanks between, with noise."""
    path = "-".join(c * 2 for c in text)
    logits = np.log(np.exp(spelt(path, vocabulary, 5.0)))
    return normal(logits + np.random.default_rng(seed).normal(size=logits.shape) * noise)


def test_the_model_of_the_training_texts_mends_what_noise_has_spoilt():
    words = "open close red green blue white left right one two three four".split()
    draw = np.random.default_rng(3)
    texts = [" ".join(draw.choice(words, draw.integers(2, 6))) for _ in range(340)]
    train, test = texts[:300], texts[300:]
    vocabulary, model = Vocabulary.of("".join(texts)), NgramModel.train(train, 2)
    spoilt = [heard(text, vocabulary, 1.2, seed) for seed, text in enumerate(test)]
    decoders = {
        "greedy": lambda x: greedy(x, vocabulary),
        "beam": lambda x: beam(x, vocabulary),
        "ngram": lambda x: beam(x, vocabulary, language_model=model, lm_weight=0.8, word_bonus=1.5),
    }
    scores = {name: score(test, [decode(x).text for x in spoilt]) for name, decode in decoders.items()}
    assert scores["greedy"].wer > 0.15
    assert scores["beam"].wer <= scores["greedy"].wer
    assert scores["ngram"].wer < 0.2 * scores["greedy"].wer
    without, helped = resample_rates((scores["greedy"].words, scores["ngram"].words), seed=0, num_resamples=2000)
    assert np.mean((helped < without) + 0.5 * (helped == without)) > 0.99


def test_what_is_left_in_the_beam_comes_best_first_and_the_best_is_decoded():
    decoder, log_probs = BeamDecoder(SMALL, width=8), random_log_probs(8, len(SMALL), 0)
    scores = [score for score, _ in decoder.search(log_probs)]
    assert len(scores) >= 4 and scores == sorted(scores, reverse=True) and decoder.decode(log_probs).score == scores[0]


def test_one_frame_and_wider_outputs_are_decoded():
    wide = random_log_probs(5, len(SMALL) + 3, 0)
    assert greedy(wide, SMALL).text == greedy(wide[:, : len(SMALL)], SMALL).text
    assert greedy(spelt("a", SMALL), SMALL).text == "a" == beam(spelt("a", SMALL), SMALL).text


@pytest.mark.parametrize("bad", [np.zeros((3, 2)), np.zeros(5), np.full((3, len(SMALL)), np.nan)])
def test_what_is_no_output_is_refused(bad):
    for decode in (greedy, beam):
        with pytest.raises(UsageError):
            decode(bad, SMALL)
    with pytest.raises(UsageError):
        BeamDecoder(SMALL, width=0)
