"""Numbers of any usual kind to one wave: float32 in [-1, 1], one channel, every sample finite."""

from __future__ import annotations

import numpy as np

from colabkit.core.errors import DataError

MOST_CHANNELS = 8
_LOUDEST = 2.0  # of floats: filters overshoot 1 a little, forgotten scaling by far
_SCALES = {"i2": 1 / 32_768, "i4": 1 / 2_147_483_648}


def to_wave(array: np.ndarray, where: str) -> tuple[np.ndarray, int]:
    """Return (sample,) float32 in [-1, 1] and how many channels were averaged for it; a view where nothing changes.

    Takes floats and signed 16 and 32 bit PCM of shape (sample,), (sample, channel) or (channel, sample). Raises:
    DataError.
    """
    shape, axis = series_shape(array.shape, where)
    array = array.reshape(shape)
    kind = array.dtype.newbyteorder("=").str[1:]
    if array.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, and is told
            wave = np.ascontiguousarray(array, np.float32)
        peak = max(float(wave.max()), -float(wave.min()))
        if not np.isfinite(peak):
            raise DataError(
                "The audio holds NaN or infinite samples",
                got=f"{np.sum(~np.isfinite(wave))} of {wave.size}",
                where=where,
                fix="write the segment again from its source, or remove it",
            )
        if 1 < peak <= _LOUDEST:
            wave = np.clip(wave, -1, 1)
        elif peak > 1:
            raise _unscaled(where, f"floats up to {peak:.6g}", "divide by 32768 if they were 16 bit samples")
    elif kind in _SCALES:
        if kind == "i4" and 0 < (peak := max(int(array.max()), -int(array.min()))) <= 32_768:
            raise _unscaled(
                where, f"int32 up to {peak}", "write 16 bit samples as int16: as 32 bit ones they are silence"
            )
        wave = np.multiply(array, np.float32(_SCALES[kind]), dtype=np.float32)
    else:
        raise DataError(
            "Audio of this type cannot be read",
            got=str(array.dtype),
            expected="float or 16 or 32 bit integers",
            where=where,
            fix="write it again with wave.astype('float32') / 2 ** (bits - 1)",
        )
    if axis is None:
        return wave, 1
    return np.ascontiguousarray(wave.mean(axis=axis, dtype=np.float32)), array.shape[axis]


def series_shape(shape: tuple[int, ...], where: str) -> tuple[tuple[int, ...], int | None]:
    """Return an audio array's shape without axes of one entry, and its channel axis, if it has one.

    Raises: DataError.
    """
    if 0 in shape:
        raise DataError(
            "The segment has no samples",
            got=f"shape {shape}",
            where=where,
            fix="cut it again from its source, or remove it",
        )
    short = tuple(length for length in shape if length > 1) or (1,)
    if len(short) == 1:
        return short, None
    axis = int(short[1] < short[0])
    if len(short) > 2 or short[axis] > MOST_CHANNELS or short[axis] * 4 > short[1 - axis]:
        raise DataError(
            "The audio's shape cannot be read",
            got=f"shape {shape}",
            where=where,
            expected=f"(sample,), or an axis of at most {MOST_CHANNELS} channels",
            fix="write the segment again with the audio as one series of samples",
        )
    return short, axis


def _unscaled(where: str, got: str, fix: str) -> DataError:
    return DataError(
        "The audio is not in the range its type says",
        got=got,
        expected="floats in [-1, 1], or full scale PCM",
        where=where,
        fix=fix,
    )
