"""Codec: waves to codes and back, at fixed rates; what every one of them can do, and which waves and codes it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from colabkit.core.errors import DataError

_OTHER = "decode with the codec that encoded: its name stands in the sidecar"


class Codec(Protocol):
    """Turns speech into codes and codes into speech.

    `fingerprint` changes when the codes of the same wave would: name, weights, settings and version are in it.
    """

    name: str
    rate_hz_in: int
    rate_hz_out: int
    frame_rate_hz: float
    num_codebooks: int
    codebook_size: int

    @property
    def fingerprint(self) -> str: ...

    def num_frames(self, num_samples: int) -> int:
        """Return how many frames a wave of so many samples at `rate_hz_in` becomes."""

    def most_seconds(self) -> float:
        """Return how much audio one encode_batch may hold, as measured on this device."""

    def encode_batch(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return (codebook, frame) uint16 for each (sample,) float32 wave at `rate_hz_in`.

        Waves of one call have the same num_frames; each gets the codes that it gets alone.
        """

    def decode_batch(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return a (sample,) float32 wave at `rate_hz_out` for each (codebook, frame) array."""


def checked_waves(waves: Sequence[np.ndarray], codec: Codec) -> int:
    """Return the number of frames that all waves have.

    Raises: DataError for a wave that is not a (sample,) float32 array, empty, not finite, shorter than a frame, or of
    another number of frames than the first.
    """
    counts = set()
    for number, wave in enumerate(waves):
        if not isinstance(wave, np.ndarray) or wave.ndim != 1 or wave.dtype != np.float32:
            got = f"{wave.dtype} of shape {wave.shape}" if isinstance(wave, np.ndarray) else type(wave).__name__
            raise _fault(
                "A codec takes waves of one channel",
                number,
                codec,
                got=got,
                expected="a (sample,) float32 array",
                fix="read the segment with read_segment, or wave.astype(numpy.float32)",
            )
        frames = codec.num_frames(len(wave))
        if frames < 1:
            raise _fault(
                "A segment is too short to be encoded",
                number,
                codec,
                got=f"{len(wave)} samples",
                expected="at least one frame of the codec",
                fix="leave it out: set a least length for segments",
            )
        if not np.isfinite(wave).all():
            raise _fault(
                "A segment holds values that are no sound",
                number,
                codec,
                got="NaN or infinity",
                expected="finite numbers in [-1, 1]",
                fix="make the segment again, or leave it out",
            )
        counts.add(frames)
    if len(counts) > 1:
        raise DataError(
            "The waves of a batch have unlike numbers of frames",
            got=sorted(counts),
            expected="the same for all",
            where=codec.name,
            fix="group the waves by codec.num_frames(len(wave))",
        )
    return counts.pop()


def checked_codes(codes: Sequence[np.ndarray], codec: Codec) -> list[np.ndarray]:
    """Return the arrays. Raises: DataError for one that is not (codebook, frame) of the codec's codes."""
    arrays = [np.asarray(array) for array in codes]
    for number, array in enumerate(arrays):
        if (
            array.ndim != 2
            or array.shape[0] != codec.num_codebooks
            or array.shape[1] < 1
            or array.dtype.kind not in "ui"
        ):
            raise _fault(
                "These are not codes of the codec",
                number,
                codec,
                got=f"{array.dtype} of shape {array.shape}",
                expected=f"integers of shape ({codec.num_codebooks}, frames)",
                fix=_OTHER,
            )
        if array.min() < 0 or array.max() >= codec.codebook_size:
            raise _fault(
                "These are not codes of the codec",
                number,
                codec,
                got=f"codes up to {array.max()}",
                expected=f"below {codec.codebook_size}",
                fix=_OTHER,
            )
    return arrays


def _fault(what: str, number: int, codec: Codec, *, got: str, expected: str, fix: str) -> DataError:
    return DataError(what, got=got, expected=expected, where=f"segment {number} of the batch, {codec.name}", fix=fix)
