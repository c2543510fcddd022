"""Read any audio as mono float32 at a wanted rate, whole or a window of it; write wav files.

Decoding is libsndfile's (wav, flac, mp3, ogg with vorbis or opus), rate conversion is soxr's. What libsndfile
would pass over in silence (a wav cut short, an mp3 whose header understates its length) is checked here and
reported.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colabkit.core.errors import DataError, UsageError
from colabkit.core.files import path_hint
from colabkit.io.audio.opened import AudioSource, OpenedAudio, name_of

AUDIO_SUFFIXES = (".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")

_RESAMPLE_MARGIN_SAMPLES = 512  # at the lower of both rates; soxr's filter needs about 128


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header says; `num_frames` is samples per channel, `format` as in "WAV", "MP3"."""

    duration_seconds: float
    rate_hz: int
    num_channels: int
    num_frames: int
    format: str


def read_audio(
    source: AudioSource,
    *,
    rate_hz: int = 16_000,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
) -> np.ndarray:
    """Decode to mono and return float32 of shape (sample,) at `rate_hz`; channels are averaged.

    A window decodes only its part of the file. It equals the same slice of the whole file at `rate_hz` and
    has round(duration_seconds * rate_hz) samples, fewer where the file ends earlier: nothing is padded. A
    stream that cannot seek, or does not stand at its start, is read to its end from where it stands.

    Raises:
        DataError: the source is missing, empty, not audio, cut short, without a sample, or holds NaN or
            infinity. (An ogg file does not say how long it should be: cut short, its rest is read.)
        UsageError: a parameter is out of range, or the stream is a text stream.
    """
    if not rate_hz > 0 or int(rate_hz) != rate_hz:
        raise UsageError(
            "Cannot read audio at this rate",
            got=rate_hz,
            expected="a whole number of Hz above zero",
            fix="set rate_hz=16_000",
        )
    if not 0 <= start_seconds < math.inf or not (duration_seconds is None or 0 < duration_seconds < math.inf):
        raise UsageError(
            "Cannot read this window",
            got=(start_seconds, duration_seconds),
            where=name_of(source),
            expected="start_seconds >= 0 and duration_seconds > 0, or None for the rest of the file",
            fix="correct start_seconds and duration_seconds",
        )
    with OpenedAudio(source) as audio:
        if start_seconds == 0 and duration_seconds is None:
            wave = resample(audio.read_mono(0, audio.num_frames), audio.rate_hz, int(rate_hz))
        else:
            wave = _read_window(audio, int(rate_hz), start_seconds, duration_seconds)
    return wave


def audio_info(source: AudioSource) -> AudioInfo:
    """Return duration, rate, channels and format without decoding; raises as `read_audio` does."""
    with OpenedAudio(source) as audio:
        return AudioInfo(
            audio.num_frames / audio.rate_hz,
            audio.rate_hz,
            audio.file.channels,
            audio.num_frames,
            audio.file.format,
        )


def write_wav(path: str | os.PathLike, wave: np.ndarray, rate_hz: int, *, as_float: bool = False) -> None:
    """Write (sample,) or (sample, channel) as 16 bit PCM, or as 32 bit float with `as_float`.

    Floats span [-1, 1]; int16 is written as it is. What `read_audio` gave for a 16 bit file is written back
    exactly.

    Raises:
        DataError: the wave is empty, holds NaN or infinity, or would clip in 16 bit.
    """
    import soundfile

    wave = np.asarray(wave)
    if wave.ndim not in (1, 2) or wave.size == 0:
        raise DataError(
            "Cannot write this wave",
            got=f"shape {wave.shape}",
            expected="(sample,) or (sample, channel)",
            where=path,
            fix="pass at least one sample",
        )
    if not np.isfinite(wave).all():
        raise DataError(
            "Cannot write a wave with NaN or infinite samples",
            where=path,
            fix="find where they come from, or use numpy.nan_to_num(wave)",
        )
    if wave.dtype == np.int16:
        samples = wave.astype(np.float32) / 32768 if as_float else wave
    elif not np.issubdtype(wave.dtype, np.floating):
        raise DataError(
            "Cannot write samples of this type",
            got=str(wave.dtype),
            expected="float in [-1, 1] or int16",
            where=path,
            fix="convert with wave.astype('float32') / 2 ** (bits - 1)",
        )
    elif as_float:
        samples = wave.astype(np.float32, copy=False)
    else:
        peak = float(np.abs(wave).max())
        if peak > 1:
            raise DataError(
                "The wave would clip in 16 bit",
                got=f"a peak of {peak:.4g}",
                expected="at most 1",
                where=path,
                fix="divide the wave by its peak, or pass as_float=True",
            )
        samples = np.minimum(np.round(wave * 32768), 32767).astype(np.int16)
    soundfile.write(os.fspath(path), samples, int(rate_hz), format="WAV", subtype="FLOAT" if as_float else "PCM_16")


def find_audio(folder: str | os.PathLike) -> list[Path]:
    """Return all audio files under `folder` by suffix, sorted; follows links, passes hidden names over.

    Raises:
        DataError: there is no such folder.
    """
    if not os.path.isdir(folder):
        raise DataError("Cannot look for audio: no such folder", got=os.fspath(folder), fix=path_hint(folder))
    found, visited = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(place)
        if here in visited:  # a link that leads back
            folders.clear()
            continue
        visited.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(place, name) for name in names if not name.startswith(".") and name.lower().endswith(AUDIO_SUFFIXES)
        ]
    return sorted(found)


def _read_window(audio: OpenedAudio, rate_hz: int, start_seconds: float, duration_seconds: float | None) -> np.ndarray:
    whole_count = int(audio.num_frames * rate_hz / audio.rate_hz + 0.5)
    first = round(start_seconds * rate_hz)
    last = whole_count
    if duration_seconds is not None:
        last = min(first + round(duration_seconds * rate_hz), whole_count)
    if first >= last:
        raise DataError(
            "No audio in this window",
            got=f"{start_seconds} s + {duration_seconds} s",
            where=audio.name,
            expected=f"a sample or more before the end at {audio.num_frames / audio.rate_hz:.3f} s",
            fix="lower start_seconds or raise duration_seconds",
        )
    # Only from a frame that falls on an output sample does resampling give the samples of the whole file.
    common = math.gcd(audio.rate_hz, rate_hz)
    step_frames, step_samples = audio.rate_hz // common, rate_hz // common
    margin = _RESAMPLE_MARGIN_SAMPLES * audio.rate_hz // min(audio.rate_hz, rate_hz)
    if rate_hz == audio.rate_hz:
        margin = 0
    step = max(0, (first * step_frames // step_samples - margin) // step_frames)
    begin = step * step_frames
    end = min(audio.num_frames, -(-last * step_frames // step_samples) + margin)
    wave = resample(audio.read_mono(begin, end), audio.rate_hz, rate_hz)
    offset = step * step_samples
    return np.ascontiguousarray(wave[first - offset : last - offset])


def resample(wave: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Return a wave at another rate. Shape: (sample,) or (sample, channel)."""
    if from_hz == to_hz:
        return wave
    import soxr

    return soxr.resample(wave, from_hz, to_hz)
