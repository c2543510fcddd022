"""Residual k-means: codebooks fitted one after the other, each on what those before it left over.

The same points, numbers and seed give the same bits on a machine. Axes: N point, D dimension, K codebook, S entry of one.
"""

from __future__ import annotations

import numpy as np

_SMALL_PRODUCT = 2**18  # multiplications: above it OpenBLAS takes more than one thread


def fit_residual(points_ND: np.ndarray, num_codebooks: int, size: int, *, seed: int, num_iterations: int = 15) -> np.ndarray:
    """Return (codebook, entry, dimension) float32 codebooks for points around zero; needs at least `size` points."""
    rng = np.random.default_rng(seed)
    residual, books = points_ND.astype(np.float32), []
    for _ in range(num_codebooks):
        book = _fit(residual, size, rng, num_iterations)
        books.append(book)
        residual = residual - book[nearest(residual, book)]
    return np.stack(books)


def nearest(points_ND: np.ndarray, book_SD: np.ndarray) -> np.ndarray:
    """Return which entry is nearest to each point; of equal ones the first.

    In products so small that no BLAS shares them out among threads: those of several callers would fight for the cores, and the
    last bits would depend on their number.
    """
    size, dimensions = book_SD.shape
    half = 0.5 * (book_SD * book_SD).sum(1)
    columns = min(size, max(1, _SMALL_PRODUCT // (8 * dimensions)))
    rows = max(1, _SMALL_PRODUCT // (columns * dimensions))
    blocks = [(slice(start, start + columns), np.ascontiguousarray(book_SD[start: start + columns].T))
              for start in range(0, size, columns)]
    chosen, scores = np.empty(len(points_ND), np.int64), np.empty((rows, size), np.float32)
    for start in range(0, len(points_ND), rows):
        some = points_ND[start: start + rows]
        found = scores[: len(some)]
        for place, block_DS in blocks:
            np.matmul(some, block_DS, out=found[:, place])
        chosen[start: start + rows] = np.subtract(half, found, out=found).argmin(1)
    return chosen


def encode(points_ND: np.ndarray, books_KSD: np.ndarray) -> np.ndarray:
    """Return (codebook, point) uint16: the nearest entry of each codebook to what those before it left over."""
    codes, residual = np.empty((len(books_KSD), len(points_ND)), np.uint16), points_ND
    for number, book in enumerate(books_KSD):
        codes[number] = chosen = nearest(residual, book)
        residual = residual - book[chosen]
    return codes


def decode(codes_KN: np.ndarray, books_KSD: np.ndarray) -> np.ndarray:
    """Return (point, dimension): the sum of the entries that the codes name."""
    total = np.zeros((codes_KN.shape[1], books_KSD.shape[2]), np.float32)
    for chosen, book in zip(codes_KN, books_KSD, strict=True):
        total += book[chosen]
    return total


def _fit(points_ND: np.ndarray, size: int, rng: np.random.Generator, num_iterations: int) -> np.ndarray:
    """Return the centres of k-means (Lloyd 1982) begun with points far from each other."""
    book = _spread(points_ND, size, rng)
    for _ in range(num_iterations):
        chosen = nearest(points_ND, book)
        order = np.argsort(chosen, kind="stable")
        counts = np.bincount(chosen, minlength=size)
        used = np.flatnonzero(counts)
        sums = np.add.reduceat(points_ND[order].astype(np.float64), np.r_[0, np.cumsum(counts[used])[:-1]], axis=0)
        moved = book.copy()
        moved[used] = (sums / counts[used, None]).astype(np.float32)
        if len(used) < size:  # entries that nobody needs go where the points are served worst
            misses = ((points_ND - book[chosen]) ** 2).sum(1)
            worst = np.argsort(-misses, kind="stable")[: size - len(used)]
            moved[np.flatnonzero(counts == 0)[: len(worst)]] = points_ND[worst]
        if np.array_equal(moved, book):
            break
        book = moved
    return book


def _spread(points_ND: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Choose points with a chance that grows with the square of their distance from those chosen (Arthur, Vassilvitskii 2007)."""
    few = points_ND[np.sort(rng.choice(len(points_ND), min(len(points_ND), 40 * size), replace=False))]
    chosen = [int(rng.integers(len(few)))]
    distance = ((few - few[chosen[0]]) ** 2).sum(1)
    while len(chosen) < size:
        total = np.cumsum(distance.astype(np.float64))
        place = int(rng.integers(len(few))) if total[-1] <= 0 else int(np.searchsorted(total, rng.random() * total[-1], "right"))
        chosen.append(min(place, len(few) - 1))
        distance = np.minimum(distance, ((few - few[chosen[-1]]) ** 2).sum(1))
    return few[chosen]
