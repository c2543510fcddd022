"""Hear a few segments whole: what headers do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colabkit.core.errors import DataError
from colabkit.io.places.place import Place
from colabkit.io.samples.index import SampleIndex
from colabkit.io.samples.shards import flac_bytes
from colabkit.pipelines.dataset.segments.loudness import loudness_lufs
from colabkit.pipelines.dataset.segments.quality import clipped_fraction
from colabkit.pipelines.dataset.segments.read import read_segment
from colabkit.pipelines.dataset.segments.segment import Segment
from colabkit.pipelines.dataset.segments.walk import from_shard

FLAC_RATE_HZ = 16_000
_USUAL_FLAC_FRACTION = 0.55  # of PCM, of speech; used where nothing was heard
_CLIPPED = 0.002  # of samples
_SILENT_LUFS = -55.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listened:
    """What was heard in so many segments; `flac_bytes_a_second` is of 16 kHz."""

    num_heard: int = 0
    num_clipped: int = 0
    num_silent: int = 0
    num_faulty: int = 0
    faults: tuple[str, ...] = ()
    median_lufs: float | None = None
    flac_bytes_a_second: float = _USUAL_FLAC_FRACTION * 2 * FLAC_RATE_HZ


def listen_to(
    objects: Place, index: SampleIndex | None, names: Sequence[str], number: int, seed: int, default_rate_hz: int | None
) -> Listened:
    """Read a few of the named segments whole, the same ones each time. Names are keys where there is an index."""
    chosen = (
        np.sort(np.random.default_rng(seed).choice(len(names), min(number, len(names)), replace=False))
        if len(names)
        else []
    )
    heard, faults = [], []
    for i in chosen:
        try:
            segment = _read(objects, index, names, int(i), default_rate_hz)
        except DataError as error:
            faults.append(f"{names[i]}: {error.what}")
            continue
        heard.append(_heard(segment))
    if not heard:
        return Listened(num_faulty=len(faults), faults=tuple(faults[:5]))
    clipped, lufs, num_bytes, seconds = (np.array(column) for column in zip(*heard, strict=True))
    return Listened(
        num_heard=len(heard),
        num_clipped=int(np.sum(clipped > _CLIPPED)),
        num_silent=int(np.sum(lufs < _SILENT_LUFS)),
        num_faulty=len(faults),
        faults=tuple(faults[:5]),
        median_lufs=float(np.median(lufs)),
        flac_bytes_a_second=float(num_bytes.sum() / seconds.sum()),
    )


def _read(
    objects: Place, index: SampleIndex | None, names: Sequence[str], i: int, default_rate_hz: int | None
) -> Segment:
    if index is None:
        return read_segment(objects.get(names[i]), names[i], default_rate_hz=default_rate_hz)
    start, length = int(index.arrays["offset"][i]), int(index.arrays["length"][i])
    payload = objects.get(index.shards[index.arrays["shard"][i]].name, start, start + length)
    return from_shard(payload, names[i], {}, default_rate_hz=default_rate_hz)


def _heard(segment: Segment) -> tuple[float, float, int, float]:
    import soxr

    small = (
        segment.wave if segment.rate_hz == FLAC_RATE_HZ else soxr.resample(segment.wave, segment.rate_hz, FLAC_RATE_HZ)
    )
    return (
        clipped_fraction(segment.wave),
        loudness_lufs(segment.wave, segment.rate_hz),
        len(flac_bytes(small, FLAC_RATE_HZ)),
        segment.seconds,
    )
