"""Transcribed speech made on the spot: many voices that say sentences of a closed vocabulary, or everyday ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from colabkit.core.errors import UsageError
from colabkit.io import voices
from colabkit.io.samples.index import SampleIndex
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.config import DataConfig

FEWEST_WORDS, MOST_WORDS = 2, 5  # in a sentence of a closed vocabulary


def write_voices(config: DataConfig, language: str, folder: Path) -> SampleIndex:
    """Make the voices' speech and write it to shards with text, speaker and sex. The same settings give the same bytes.

    Raises: UsageError for a language without sentences of its own where no vocabulary is given.
    """
    if not config.vocabulary and language.partition("-")[0].lower() not in voices.LANGUAGES:
        raise UsageError(
            "There are no built-in sentences in this language",
            got=language,
            expected=", ".join(voices.LANGUAGES),
            where="text.language",
            fix="give words to say: data.vocabulary=one,two,three",
        )
    with ShardWriter(folder) as writer:
        for voice in voices.make_speakers(config.num_voices, seed=config.seed, languages=(language,)):
            said = closed_sentences(config.vocabulary, voice.name, config.seed)
            for number in range(config.sentences_per_voice):
                made = (
                    voices.speak(voice, next(said), seed=config.seed)
                    if config.vocabulary
                    else voices.utterance(voice, number, seed=config.seed)
                )
                writer.add(
                    f"{voice.name}-{number}",
                    flac_bytes(made.wave, RATE_HZ),
                    ".flac",
                    {"speaker": voice.name, "sex": voice.sex, "text": made.text},
                )
    return writer.index


def closed_sentences(words: tuple[str, ...], name: str, seed: int) -> Iterator[str]:
    """Yield sentences of 2 to 5 words without end; every word is said once before any is said again."""
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big"))
    held: list[str] = []
    while words:
        length = int(draw.integers(FEWEST_WORDS, MOST_WORDS + 1))
        while len(held) < length:
            held += [words[i] for i in draw.permutation(len(words))]
        yield " ".join(held[:length])
        del held[:length]
