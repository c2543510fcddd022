"""Segments for tests: waves, npz files as numpy writes them, and ways to spoil them."""

from __future__ import annotations

import io
import pickle

import numpy as np


class Bomb:
    """What must never be unpickled: it says so when it is."""

    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was executed')",)


def wave_of(number: int = 0, num_samples: int = 2_400) -> np.ndarray:
    """Return noise of moderate level. Shape: (sample,) float32."""
    return (np.random.default_rng(number).standard_normal(num_samples) * 0.1).clip(-1, 1).astype(np.float32)


def savez(*, deflate: bool = False, **arrays) -> bytes:
    """Return what numpy.savez writes."""
    packed = io.BytesIO()
    (np.savez_compressed if deflate else np.savez)(packed, **arrays)
    return packed.getvalue()


def pickled(**more) -> bytes:
    """Return an npz with an object array, whose pickle would run a program."""
    array = np.empty((), object)
    array[()] = Bomb()
    assert b"exec" in pickle.dumps(array)
    return savez(audio=wave_of(), sr=24_000, metadata=array, **more)
