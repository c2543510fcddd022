"""Times of words and phonemes: in order, and where the sound is."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.io.voices import LANGUAGES, make_speakers, speak, utterance
from colabkit.io.voices.espeak import END, PHONEME, WORD, Event
from colabkit.io.voices.speech_times import align, to_words

pytest.importorskip("espeakng_loader")


def test_every_word_holds_sound_where_it_is_said_to_be():
    """Silence put between words must lie between the spans, and each span must be loud within."""
    speaker = make_speakers(1)[0]
    made = speak(speaker, "Seven. Boats. Crossed. Every. Bay.")
    level = np.sqrt(np.convolve(made.wave**2, np.ones(320) / 320, "same"))
    loud = level > level.max() * 0.02
    edges = np.flatnonzero(np.diff(np.pad(loud, 1).astype(int)))
    bursts = [(a / 16_000, b / 16_000) for a, b in edges.reshape(-1, 2)]
    islands = [bursts[0]]
    for start, end in bursts[1:]:
        if start - islands[-1][1] < 0.15:  # a stop within the word
            islands[-1] = islands[-1][0], end
        else:
            islands.append((start, end))
    assert len(islands) == len(made.words) == 5
    for (word, start, end), (first, last) in zip(made.words, islands, strict=True):
        assert abs(start - first) < 0.08 and abs(end - last) < 0.1, word


def test_phonemes_are_in_order_within_their_words():
    for speaker in make_speakers(16, languages=LANGUAGES):
        made = utterance(speaker, 2)
        phonemes = made.phonemes
        assert len(phonemes) >= len(made.words)
        for (_, start, end), following in zip(phonemes, [*phonemes[1:], None], strict=True):
            assert end > start
            assert following is None or following[1] >= end - 1e-9
        for _, start, end in phonemes:
            assert any(w[1] - 1e-9 <= start and end <= w[2] + 1e-9 for w in _merged(made.words))
        assert not any(mark in symbol for symbol, _, _ in phonemes for mark in "ˈˌ(:")


def _merged(words):
    """Join words that touch: those spoken as one share phonemes."""
    joined = [list(words[0])]
    for word, start, end in words[1:]:
        if start - joined[-1][2] < 1e-6:
            joined[-1][2] = end
        else:
            joined.append([word, start, end])
    return joined


def test_events_become_spans():
    events = [
        Event(WORD, 0, 0, ""),
        Event(PHONEME, 200, 0, "ˈa:"),  # told after its onset: it starts with its word
        Event(PHONEME, 1000, 0, "n-^"),
        Event(PHONEME, 1500, 0, "(en)"),  # a change of language is no sound
        Event(PHONEME, 2000, 0, ""),  # a pause
        Event(WORD, 3000, 4, ""),
        Event(PHONEME, 3000, 4, "o"),
        Event(PHONEME, 4000, 4, ""),  # a glide: the word goes on at once
        Event(PHONEME, 4500, 4, "t"),
        Event(WORD, 5000, 9, ""),  # nothing is heard of it
    ]
    phonemes, words = align(events, 6000)
    assert phonemes == [("aː", 0, 1000), ("n", 1000, 2000), ("o", 3000, 4500), ("t", 4500, 5000)]
    assert words == [(0, 0, 2000), (4, 3000, 5000)]
    assert align([Event(END, 0, 0, "")], 0) == ([], [])


def test_a_phoneme_without_time_gets_a_third_of_its_neighbours():
    def spans(*events):
        return align([Event(WORD, 0, 0, ""), *(Event(PHONEME, at, 0, symbol) for at, symbol in events)], 900)[0]

    assert spans((0, "e"), (600, "l"), (600, "f")) == [("e", 0, 400), ("l", 400, 600), ("f", 600, 900)]
    assert spans((0, "l"), (0, "f")) == [("l", 0, 300), ("f", 300, 900)]


def test_words_spoken_as_one_share_their_time_by_length():
    assert to_words("Ja, \u201cof the\u201d - end.", [(0, 0, 100), (4, 100, 900), (16, 900, 1000)]) == [
        ("Ja", 0.0, 100.0),
        ("of", 100.0, 100.0 + 800 * 3 / 7),
        ("the", 100.0 + 800 * 3 / 7, 900.0),
        ("end", 900.0, 1000.0),
    ]
