"""Turn the events of espeak-ng into spans of words and phonemes."""

from __future__ import annotations

import bisect
import re
import unicodedata

import numpy as np

from colabkit.io.voices import espeak

_LONGEST_GLIDE_SAMPLES = 1_300  # 60 ms


def align(events: list[espeak.Event], num_samples: int) -> tuple[list[tuple], list[tuple]]:
    """Return phonemes as (symbol, start, end) and words as (index in the text, start, end), in samples.

    A phoneme ends where the next event starts, and the first of a word starts with the word: espeak-ng
    reports a vowel after its onset. A nameless phoneme is a glide of the one before it if the word goes on at
    once, else a pause.
    """
    heard = [e for e in events if not e.symbol.startswith("(")]  # "(en)": a change of language, not a sound
    phonemes: list[list] = []
    words: list[list] = []
    at_start, going_on = False, False
    last = espeak.Event(espeak.END, num_samples, 0, "")
    for event, following in zip(heard, [*heard[1:], last], strict=True):
        # Stress marks and espeak-ng's own marks of variants are no part of the IPA symbol.
        symbol = event.symbol.strip("ˈˌ").rstrip("-^").replace(":", "ː")
        if event.kind == espeak.WORD:
            words.append([event.text_index, event.sample, None])
        if event.kind != espeak.PHONEME:
            at_start, going_on = event.kind == espeak.WORD, False
        elif symbol:
            start = words[-1][1] if at_start else event.sample
            if going_on and start - phonemes[-1][2] < _LONGEST_GLIDE_SAMPLES:
                phonemes[-1][2] = start
            phonemes.append([symbol, start, following.sample])
            at_start, going_on = False, True
            if words:
                words[-1][2] = following.sample
    _part_merged(phonemes)
    return [tuple(p) for p in phonemes], [tuple(w) for w in words if w[2] is not None]


def _part_merged(phonemes: list[list]) -> None:
    """Give a phoneme that espeak-ng spoke within its neighbour, as the l of "shelf", a third of it."""
    for i, (_, start, end) in enumerate(phonemes):
        if end > start:
            continue
        if i and phonemes[i - 1][2] == start:
            phonemes[i][1] = phonemes[i - 1][2] = start - (start - phonemes[i - 1][1]) // 3
        elif i + 1 < len(phonemes) and phonemes[i + 1][1] == end:
            phonemes[i][2] = phonemes[i + 1][1] = end + (phonemes[i + 1][2] - end) // 3


def to_words(text: str, spans: list[tuple]) -> list[tuple[str, float, float]]:
    """Give every word of `text` its span in samples; words spoken as one share theirs by their length."""
    tokens = [found for found in re.finditer(r"\S+", text) if any(c.isalnum() for c in found.group())]
    ends = [token.end() for token in tokens]
    hulls: dict[int, list] = {}
    for index, start, end in spans:
        i = min(bisect.bisect_right(ends, index), len(tokens) - 1)
        hull = hulls.setdefault(i, [start, end])
        hull[1] = max(hull[1], end)
    firsts = sorted(hulls)
    words = []
    for first, after in zip(firsts, [*firsts[1:], len(tokens)], strict=True):
        group = tokens[0 if first == firsts[0] else first : after]
        start, end = hulls[first]
        shares = np.cumsum([0] + [len(token.group()) for token in group]) / sum(len(t.group()) for t in group)
        for token, low, high in zip(group, shares[:-1], shares[1:], strict=True):
            span = float(start + low * (end - start)), float(start + high * (end - start))
            words.append((_strip(token.group()), *span))
    return words


def _strip(word: str) -> str:
    """Take punctuation off both ends."""
    kept = [i for i, character in enumerate(word) if character.isalnum() or unicodedata.combining(character)]
    return word[kept[0] : kept[-1] + 1]
