"""Make many distinct speakers, and speech with word and phoneme times, on the spot and without a download.

espeak-ng speaks; its few formant voices are spread into many speakers by the length of the vocal tract (the
wave is taken as sampled at another rate, with pitch and pace set to make up for it), by an equaliser curve
and by breath noise. The same speaker, text and seed give the same bytes on the same machine, in any process,
thread and order of calls.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from colabkit.core.errors import DataError, UsageError
from colabkit.io.voices import espeak
from colabkit.io.voices.colour import EQ_HZ, Speaker, colour, to_rate
from colabkit.io.voices.sentences import SENTENCES
from colabkit.io.voices.speech_times import align, to_words

LANGUAGES = tuple(SENTENCES)  # those with sentences of their own; speak() takes every language of espeak-ng

ACTIVE_LEVEL_DB = -23.0  # rms of the words relative to full scale
_PEAK = 0.98

_ENGLISH = "en-US en-GB-x-rp en en-GB-scotland en-GB-x-gbclan en-US-nyc en-GB-x-gbcwmd en-029"
_ACCENTS = {
    "en": tuple(_ENGLISH.split()),
    "fr": ("fr", "fr-BE", "fr-CH"),
    "es": ("es", "es-419"),
    "pt": ("pt", "pt-BR"),
}
# Variants of espeak-ng that sound like people, with the median F0 in Hz measured on English sentences.
# fmt: off
_VARIANTS_HZ = {
    "F": {"f1": 178, "f2": 195, "f3": 210, "f4": 178, "f5": 205, "Annie": 239, "Alicia": 250, "Andrea": 242,
          "anika": 267, "aunty": 174, "belinda": 229, "linda": 229, "grandma": 198, "steph": 184,
          "shelby": 178},
    "M": {"m1": 92, "m2": 101, "m3": 104, "m4": 92, "m5": 101, "m6": 101, "m7": 105, "m8": 85, "Andy": 95,
          "Lee": 95, "Denis": 98, "Diogo": 104, "Marco": 131, "Michael": 107, "Mike": 89, "boris": 101,
          "edward": 101, "benjamin": 100, "john": 101, "iven4": 99, "kaukovalta": 101, "max": 100,
          "michel": 104, "norbert": 101, "marcelo": 96, "pablo": 112, "pedro": 102, "victor": 94,
          "travis": 103, "sandro": 98, "klatt4": 101},
}
# fmt: on
_F0_RANGE_HZ = {"F": (165.0, 270.0), "M": (80.0, 150.0)}
_TRACT_RANGE = {"F": (0.94, 1.15), "M": (0.88, 1.08)}


class Timed(NamedTuple):
    """A word or a phoneme (IPA, without stress marks) and its time in the wave."""

    text: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """Speech as float32 in [-1, 1] of shape (sample,), with what was said when and by whom."""

    wave: np.ndarray
    rate_hz: int
    text: str
    words: tuple[Timed, ...]
    phonemes: tuple[Timed, ...]
    speaker: str

    @property
    def duration_seconds(self) -> float:
        return len(self.wave) / self.rate_hz


def make_speakers(
    num_speakers: int, *, seed: int = 0, languages: Sequence[str] = ("en", "de", "fr", "es", "it")
) -> tuple[Speaker, ...]:
    """Return `num_speakers` distinct speakers, languages and sexes in turn.

    The first speakers of a longer list are those of a shorter one with the same seed and languages.

    Raises:
        UsageError: no speakers or languages asked for, or a language that espeak-ng does not speak.
    """
    if num_speakers < 1 or not languages or isinstance(languages, str):
        raise UsageError(
            "Cannot make speakers",
            got=(num_speakers, languages),
            expected="at least one speaker and a sequence of languages",
            fix="make_speakers(4, languages=('en', 'de'))",
        )
    for language in languages:
        if language not in SENTENCES:
            _check_language(language)
    return tuple(_make_speaker(i, int(seed), tuple(languages)) for i in range(num_speakers))


def speak(speaker: Speaker, text: str, *, rate_hz: int = 16_000, seed: int = 0) -> Utterance:
    """Speak `text`, which may be in any language the speaker's voice has, at about ACTIVE_LEVEL_DB.

    White space is folded in the text that is spoken and returned. `seed` varies the noise and the flutter of
    the voice.

    Raises:
        DataError: the text holds nothing to speak.
        UsageError: the rate is out of range, or espeak-ng does not have the speaker's voice.
        StateError: espeak-ng is not installed.
    """
    if not 4_000 <= rate_hz <= 192_000:
        raise UsageError(
            "Cannot speak at this rate", got=rate_hz, expected="4000 to 192000 Hz", fix="set rate_hz=16_000"
        )
    text = _clean(text)
    draw = _digest("speak", speaker, text, int(seed))
    pcm, events = espeak.synthesize(
        text,
        speaker.voice,
        words_per_minute=min(450, max(80, round(speaker.words_per_minute / speaker.tract))),
        pitch=speaker.pitch,
        pitch_range=speaker.pitch_range,
        seed=draw,
    )
    num_samples = len(pcm) // 2
    phonemes, spans = align(events, num_samples)
    words = to_words(text, spans)
    if not words:
        raise DataError(
            "espeak-ng finds nothing to speak in this text",
            got=text[:80],
            where=f"voice {speaker.voice}",
            fix="write it in the script of the speaker's language",
        )
    source_hz = espeak.ESPEAK_RATE_HZ * speaker.tract

    def timed(name: str, start: float, end: float) -> Timed:
        return Timed(name, start / source_hz, end / source_hz)

    wave = colour(to_rate(pcm, source_hz, rate_hz), speaker, rate_hz, draw)
    words = tuple(timed(*word) for word in words)
    return Utterance(
        wave=_level(wave, words, rate_hz),
        rate_hz=rate_hz,
        text=text,
        words=words,
        phonemes=tuple(timed(*phoneme) for phoneme in phonemes),
        speaker=speaker.name,
    )


def sentences(language: str) -> tuple[str, ...]:
    """Return the built-in sentences of a language ("en"; an accent such as "en-US" gives the same)."""
    known = language.split("-")[0].lower()
    if known not in SENTENCES:
        raise UsageError(
            "No built-in sentences in this language",
            got=language,
            expected=", ".join(SENTENCES),
            fix=_did_you_mean(language, LANGUAGES) or "pass your own text to speak(speaker, text)",
        )
    return SENTENCES[known]


def utterance(speaker: Speaker, index: int, *, seed: int = 0, rate_hz: int = 16_000) -> Utterance:
    """Make the index-th utterance of a speaker: one to three sentences in 2 to 8 seconds.

    It is the same whenever and wherever it is asked for. Every sentence opens an utterance once before any
    does again.
    """
    if index < 0:
        raise UsageError("Cannot make this utterance", got=index, expected="an index of 0 or more", fix="pass index=0")
    index, seed = int(index), int(seed)
    texts = sentences(speaker.language)
    rounds, place = divmod(index, len(texts))
    order = np.random.default_rng(_digest("order", speaker, seed, rounds)).permutation(len(texts))
    draw = np.random.default_rng(_digest("utterance", speaker, seed, index))
    others = np.delete(order, place)
    chosen = [texts[i] for i in (order[place], *draw.choice(others, 2, replace=False))]
    wanted = int(draw.integers(1, 4))
    made = speak(speaker, " ".join(chosen[:wanted]), rate_hz=rate_hz, seed=seed)
    while (made.duration_seconds > 8 and wanted > 1) or (made.duration_seconds < 2 and wanted < len(chosen)):
        wanted += 1 if made.duration_seconds < 2 else -1
        made = speak(speaker, " ".join(chosen[:wanted]), rate_hz=rate_hz, seed=seed)
    return made


def _make_speaker(index: int, seed: int, languages: tuple[str, ...]) -> Speaker:
    # Without the second term each of an even number of languages would have one sex.
    turn = index + (index // len(languages) if len(languages) % 2 == 0 else 0)
    sex = "FM"[turn % 2]
    language = languages[index % len(languages)]
    # An additive recurrence fills the space of voices evenly: even few speakers lie far apart.
    start = np.random.default_rng(_digest("speakers", seed)).random(14)
    ratio = _plastic_number(len(start))
    u = (start + (index + 1) * ratio ** -np.arange(1.0, len(start) + 1)) % 1.0
    names = list(_VARIANTS_HZ[sex])
    order = np.random.default_rng(_digest("variants", seed, sex)).permutation(len(names))
    variant = names[order[index // 2 % len(names)]]
    accents = _ACCENTS.get(language, (language,))
    accent = accents[index // len(languages) % len(accents)]

    def between(i: int, low: float, high: float) -> float:
        return round(low + float(u[i]) * (high - low), 4)

    tract = between(0, *_TRACT_RANGE[sex])
    f0_hz = math.exp(between(1, *(math.log(f) for f in _F0_RANGE_HZ[sex])))
    pitch = round(50 + 50 * math.log2(f0_hz / (_VARIANTS_HZ[sex][variant] * tract)))
    return Speaker(
        name=f"v{index:04d}-{language}-{sex.lower()}",
        language=language,
        sex=sex,
        voice=f"{accent}+{variant}",
        pitch=min(100, max(0, pitch)),
        pitch_range=round(between(2, 30, 80)),
        words_per_minute=round(between(3, 140, 205)),
        tract=tract,
        tilt_db_per_octave=between(4, -2.5, 2.5),
        eq_db=tuple(between(5 + i, -5.0, 5.0) for i in range(len(EQ_HZ))),
        low_cut_hz=between(11, 40.0, 130.0),
        high_cut_hz=between(12, 4_500.0, 9_000.0),
        breath_db=between(13, -50.0, -24.0),
    )


def _plastic_number(num_dimensions: int) -> float:
    x = 1.5  # root of x ** (d + 1) = x + 1; M. Roberts 2018, on quasirandom sequences
    for _ in range(60):
        x = (1 + x) ** (1 / (num_dimensions + 1))
    return x


def _check_language(language: str) -> None:
    known = espeak.list_languages()
    if language not in known:
        raise UsageError(
            "espeak-ng does not speak this language",
            got=language,
            expected=f"{', '.join(LANGUAGES)} or another of its {len(known)} codes",
            fix=_did_you_mean(language, known) or "list them: colabkit.io.voices.espeak.list_languages()",
        )


def _did_you_mean(language: str, known: Sequence[str]) -> str:
    names = {"english": "en", "german": "de", "french": "fr", "spanish": "es",
             "italian": "it", "portuguese": "pt", "russian": "ru", "greek": "el"}  # fmt: skip
    lower = {name.lower(): name for name in known}
    code = str(language).lower().replace("_", "-")
    close = difflib.get_close_matches(code, [*names, *lower], n=1, cutoff=0.7)
    found = lower.get(code) or lower.get(code.split("-")[0])
    if not found and close:
        found = lower.get(names.get(close[0], close[0]))
    return f"did you mean {found!r}?" if found else ""


def _clean(text: str) -> str:
    text = unicodedata.normalize("NFC", " ".join(text.replace("\0", " ").split()))
    if not any(character.isalnum() for character in text):
        raise DataError("Nothing to speak", got=text[:80], expected="a text with letters", fix="pass at least one word")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            "The text holds half a character",
            got=ascii(text[:80]),
            where=f"character {error.start}",
            fix="read the text again with encoding='utf-8'",
        ) from error
    return text


def _level(wave: np.ndarray, words: Sequence[Timed], rate_hz: int) -> np.ndarray:
    """Bring the rms of the words to ACTIVE_LEVEL_DB, lower only where a peak would clip."""
    active = np.zeros(len(wave), bool)
    for _, start, end in words:
        active[int(start * rate_hz) : int(end * rate_hz) + 1] = True
    rms = math.sqrt(float(np.mean(np.square(wave[active], dtype=np.float64))))
    peak = float(np.abs(wave).max())
    wave *= min(10 ** (ACTIVE_LEVEL_DB / 20) / max(rms, 1e-9), _PEAK / max(peak, 1e-9))
    return wave


def _digest(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode("utf-8")).digest()[:8], "little")
