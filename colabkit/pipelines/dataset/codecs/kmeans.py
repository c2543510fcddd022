"""Residual k-means: codebooks fitted one after the other, each on what those before it left over.

Fitted by scikit-learn; which entry is nearest is found here, in the same bits whatever the number of threads, for
codes are kept for years. Axes: N point, D dimension, K codebook, S entry of one.
"""

from __future__ import annotations

import numpy as np

_SMALL_PRODUCT = 2**18  # multiplications: above it OpenBLAS takes more than one thread


def fit_residual(
    points_ND: np.ndarray, num_codebooks: int, size: int, *, seed: int, num_iterations: int = 15
) -> np.ndarray:
    """Return (codebook, entry, dimension) float32 codebooks for points around zero; needs at least `size` points."""
    seeds = np.random.default_rng(seed).integers(2**31, size=num_codebooks)
    residual, books = points_ND.astype(np.float32), []
    for one in seeds:
        book = fit(residual, size, seed=int(one), num_iterations=num_iterations)
        books.append(book)
        residual = residual - book[nearest(residual, book)]
    return np.stack(books)


def fit(points_ND: np.ndarray, size: int, *, seed: int, num_iterations: int = 15) -> np.ndarray:
    """Return (entry, dimension) float32 centres of k-means for float32 points; needs at least `size` of them.

    The same points and seed give the same bits on a machine, and a process may fork afterwards: both for the one
    thread. With more of them the bits follow their number, and OpenMP waits for ever in a child that was forked after
    a fit.
    """
    from sklearn.cluster import KMeans, kmeans_plusplus
    from threadpoolctl import threadpool_limits

    rng = np.random.RandomState(seed)
    few = points_ND[rng.choice(len(points_ND), min(len(points_ND), 40 * size), replace=False)]
    with threadpool_limits(1):
        begun, _ = kmeans_plusplus(few, size, random_state=rng, n_local_trials=1)
        fitted = KMeans(size, init=begun, n_init=1, max_iter=num_iterations, tol=0).fit(points_ND)
    return fitted.cluster_centers_


def nearest(points_ND: np.ndarray, book_SD: np.ndarray) -> np.ndarray:
    """Return which entry is nearest to each point; of equal ones the first.

    In products so small that no BLAS shares them out among threads: those of several callers would fight for the cores,
    and the last bits would depend on their number.
    """
    size, dimensions = book_SD.shape
    half = 0.5 * (book_SD * book_SD).sum(1)
    columns = min(size, max(1, _SMALL_PRODUCT // (8 * dimensions)))
    rows = max(1, _SMALL_PRODUCT // (columns * dimensions))
    blocks = [
        (slice(start, start + columns), np.ascontiguousarray(book_SD[start : start + columns].T))
        for start in range(0, size, columns)
    ]
    chosen, scores = np.empty(len(points_ND), np.int64), np.empty((rows, size), np.float32)
    for start in range(0, len(points_ND), rows):
        some = points_ND[start : start + rows]
        found = scores[: len(some)]
        for place, block_DS in blocks:
            np.matmul(some, block_DS, out=found[:, place])
        chosen[start : start + rows] = np.subtract(half, found, out=found).argmin(1)
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
