"""Durations of a data set's samples, in whatever form users hold it; audio is not decoded where a header tells."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from colabkit.core.errors import BrokenSampleError, DataError
from colabkit.io.audio import audio_info
from colabkit.pipelines.asr import RATE_HZ

AUDIO_NAMES = ("audio", "speech", "file", "path", "flac", "wav", "mp3")
SECONDS_NAMES = ("duration", "seconds", "duration_seconds", "length_seconds", "audio_length", "input_length")
TEXT_NAMES = (
    "text",
    "sentence",
    "transcription",
    "transcript",
    "normalized_text",
    "raw_text",
    "raw_transcription",
    "labels",
)
MOST_STREAMED = 20  # items read for each one drawn, from a data set that can only be read front to back


def draw(dataset: Any, sample_size: int, seed: int) -> tuple[list[Any], int | None, str]:
    """Return a random sample of a data set's items, how many it has, and how they were drawn.

    How many is None where a stream does not say. A stream is read from its start: what it yields first stands for the
    rest. Raises: DataError for one without items.
    """
    items, ended = _undecoded(dataset), True
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        items = list(islice(_items(items), sample_size * MOST_STREAMED))
        ended = len(items) < sample_size * MOST_STREAMED  # then all of it was seen
    if not len(items):
        raise DataError(
            "This data set has no samples",
            got=f"an empty {type(dataset).__name__}",
            where="dataset",
            expected="at least one",
            fix="look at the split and the filters that it went through",
        )
    chosen = np.sort(np.random.default_rng([seed, 0xD0]).permutation(len(items))[:sample_size])
    of = f"{len(items)}" if ended else f"the first {len(items)} of a stream"
    return [items[int(i)] for i in chosen], len(items) if ended else None, f"{len(chosen)} at random of {of}"


def seconds_of(item: Any) -> float:
    """Return how long one item is.

    Raises: DataError when it holds no audio; BrokenSampleError for audio that does not decode.
    """
    if isinstance(item, (int, float, np.integer, np.floating)):
        return float(item)
    if not isinstance(item, Mapping):
        return _seconds_of_audio(item)
    for name in SECONDS_NAMES:
        if isinstance(item.get(name), (int, float)) and item[name] > 0:
            value = float(item[name])
            return value / RATE_HZ if name == "input_length" and value > 1000 else value  # processed sets count samples
    if (audio := _audio_in(item)) is not None:
        return _seconds_of_audio(audio)
    if item.get("input_values") is not None:
        return len(item["input_values"]) / RATE_HZ
    if item.get("input_features") is not None:
        return len(item["input_features"]) * 0.02  # stacked pairs of 10 ms frames, as w2v-BERT takes them
    raise DataError(
        "This data set has no audio",
        got=f"columns {', '.join(map(str, item))}",
        expected=f"one of {', '.join(AUDIO_NAMES)}, or durations in one of {', '.join(SECONDS_NAMES[:3])}",
        where="dataset",
        fix="rename the column: dataset.rename_column('my_audio', 'audio')",
    )


def require_text(item: Any) -> None:
    """Raise DataError where an item's columns hold no transcript."""
    if isinstance(item, Mapping) and not any(name in item for name in TEXT_NAMES):
        raise DataError(
            "This data set has no transcripts",
            got=f"columns {', '.join(map(str, item))}",
            expected=f"one of {', '.join(TEXT_NAMES)}",
            where="dataset",
            fix="rename the column: dataset.rename_column('my_text', 'text')",
        )


def bytes_of(item: Any) -> int | None:
    """Return the size of one item's audio where it is stored, None where only the samples are there."""
    audio = _audio_in(item)
    if isinstance(audio, Mapping):
        if audio.get("bytes"):
            return len(audio["bytes"])
        audio = audio.get("path")
    if isinstance(audio, (str, os.PathLike)) and os.path.isfile(audio):
        return os.path.getsize(audio)
    return len(audio) if isinstance(audio, bytes) else None


def rate_of(item: Any) -> int | None:
    """Return the sampling rate of one item in Hz, where it tells."""
    audio = _audio_in(item)
    if isinstance(audio, Mapping) and audio.get("sampling_rate"):
        return int(audio["sampling_rate"])
    source = _source(audio)
    return audio_info(source).rate_hz if source is not None else None


def _audio_in(item: Any) -> Any:
    """Return the audio of an item with columns, None where there is none; another item is the audio itself."""
    if not isinstance(item, Mapping):
        return item
    return next((item[name] for name in AUDIO_NAMES if item.get(name) is not None), None)


def _seconds_of_audio(audio: Any) -> float:
    if isinstance(audio, Mapping) and audio.get("array") is not None:
        return len(audio["array"]) / int(audio.get("sampling_rate") or RATE_HZ)
    source = _source(audio)
    if source is not None:
        try:
            return audio_info(source).duration_seconds
        except DataError as error:
            raise BrokenSampleError(
                error.what, got=error.got, expected=error.expected, where=error.where, fix=error.fix
            ) from error
    metadata = getattr(audio, "metadata", None)  # torchcodec's decoder, which datasets makes
    if getattr(metadata, "duration_seconds_from_header", None):
        return float(metadata.duration_seconds_from_header)
    if isinstance(audio, (Sequence, np.ndarray)) or hasattr(audio, "shape"):
        return len(audio) / RATE_HZ
    raise DataError(
        "Cannot tell how long a sample is",
        got=type(audio).__name__,
        where="dataset",
        expected="a path, bytes, an array with its sampling_rate, or a duration column",
        fix="dataset.cast_column('audio', datasets.Audio(decode=False))",
    )


def _source(audio: Any) -> Any:
    """Return what audio_info() can open, or None."""
    if isinstance(audio, Mapping):
        return audio.get("bytes") or audio.get("path")
    return audio if isinstance(audio, (str, bytes, os.PathLike)) else None


def _undecoded(dataset: Any) -> Any:
    """Return a Hugging Face data set that hands out files instead of decoded audio: a header is enough."""
    features = getattr(dataset, "features", None) or {}
    for name, feature in dict(features).items():
        if type(feature).__name__ == "Audio" and getattr(feature, "decode", True):
            dataset = dataset.cast_column(name, type(feature)(sampling_rate=feature.sampling_rate, decode=False))
    return dataset


def _items(dataset: Any) -> Iterator[Any]:
    if not hasattr(dataset, "__iter__"):
        raise DataError(
            "Cannot read this as a data set",
            got=type(dataset).__name__,
            where="dataset",
            expected="a datasets.Dataset, a stream of one, a list of dicts, or durations in seconds",
            fix="pass dataset['train'] of a loaded data set",
        )
    return iter(dataset)
