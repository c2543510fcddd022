"""Keyed permutations and random numbers that are pure functions of (key, position): nothing to store, nothing to lose.

Position k of a shuffled epoch is computed, not looked up, so a run can start anywhere at once and a billion samples
take no memory. The permutation is a Feistel network over a rectangle of ceil(sqrt(size)) columns, with cycle walking
for the few places outside `size` (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). The round
function is the finaliser of SplitMix64 (Steele et al. 2014). Integers only: the same on every machine and in every
version of NumPy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NUM_ROUNDS = 12
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def permute(positions: npt.ArrayLike, size: int, *key: int) -> np.ndarray:
    """Return where a shuffle of range(size) puts each position. Shape: (n,) int64, or () for a number.

    For a fixed key it is one-to-one on range(size). Raises: ValueError for positions outside of it.
    """
    wanted = np.asarray(positions, np.int64)
    if wanted.size and not (0 <= wanted.min() and wanted.max() < size):
        raise ValueError(f"positions from {wanted.min()} to {wanted.max()} of a shuffle of {size}")
    columns = max(1, int(np.ceil(np.sqrt(size))))
    rows = -(-size // columns)
    known = combine(*key)
    secrets = [_extend(known, number) for number in range(NUM_ROUNDS)]
    value = _shuffle(wanted.ravel().astype(np.uint64), columns, rows, secrets)
    outside = np.flatnonzero(value >= size)
    while len(outside):
        value[outside] = _shuffle(value[outside], columns, rows, secrets)
        outside = outside[value[outside] >= size]
    return value.astype(np.int64).reshape(wanted.shape)


def uniform(positions: npt.ArrayLike, *key: int) -> np.ndarray:
    """Return one number in [0, 1) for each position; the same for the same key."""
    bits = _mix(_mix(np.asarray(positions, np.uint64)) ^ np.uint64(combine(*key)))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def combine(*key: int) -> int:
    """Return 64 bits that depend on every number of the key and on their order."""
    state = 0
    for number in key:
        state = _extend(state, number)
    return state


def _extend(state: int, number: int) -> int:
    return _mix_number((state + _GOLDEN) ^ _mix_number(int(number) & _MASK))


def _shuffle(value: np.ndarray, columns: int, rows: int, secrets: list[int]) -> np.ndarray:
    left, right = value // np.uint64(rows), value % np.uint64(rows)
    for number, secret in enumerate(secrets):
        if number % 2:
            right = (right + _mix(left ^ np.uint64(secret)) % np.uint64(rows)) % np.uint64(rows)
        else:
            left = (left + _mix(right ^ np.uint64(secret)) % np.uint64(columns)) % np.uint64(columns)
    return left * np.uint64(rows) + right


def _mix(bits: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the input. Wraps around by design."""
    with np.errstate(over="ignore"):
        bits = bits + np.uint64(_GOLDEN)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits ^ (bits >> np.uint64(31))


def _mix_number(bits: int) -> int:
    bits = (bits + _GOLDEN) & _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)
