"""Residual k-means: entries where they serve, the same bits whatever the threads, and a fork after a fit."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from colabkit.pipelines.dataset.codecs import kmeans


def points(num: int = 20_000, dimensions: int = 16) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num, dimensions)).astype(np.float32)


def test_every_codebook_leaves_less_over():
    some = points(4_000, 4)
    books = kmeans.fit_residual(some, 3, 32, seed=0)
    codes = kmeans.encode(some, books)
    left = [float(np.square(some - kmeans.decode(codes[:num], books[:num])).mean()) for num in range(1, 4)]
    assert books.shape == (3, 32, 4) and books.dtype == np.float32 and left[0] < 0.4 and left[1] < left[0] / 2 > left[2]


def test_a_child_that_was_forked_after_a_fit_fits_the_same():
    """With OpenMP's threads about it would wait for ever: then the alarm ends it."""
    code = """
import os, signal
from colabkit.pipelines.dataset.codecs import kmeans
from tests.pipelines.dataset.codecs.test_kmeans import points
book = kmeans.fit(points(), 32, seed=0)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if kmeans.fit(points(), 32, seed=0).tobytes() == book.tobytes() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "0\n", done.stderr


def test_the_bits_do_not_follow_the_threads():
    code = """
from hashlib import sha256
from colabkit.pipelines.dataset.codecs import kmeans
from tests.pipelines.dataset.codecs.test_kmeans import points
print(sha256(kmeans.fit(points(), 64, seed=0).tobytes()).hexdigest())
"""
    told = set()
    for threads in ("1", "2"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        told.add(done.stdout)
    assert len(told) == 1


def test_entries_nobody_needs_are_moved_where_they_serve():
    points = np.repeat(np.eye(3, 4, dtype=np.float32), 50, 0)
    points[::7] += np.linspace(0, 0.5, len(points[::7]), dtype=np.float32)[:, None]
    book = kmeans.fit_residual(points, 1, 12, seed=3)[0]
    assert np.abs(points - book[kmeans.nearest(points, book)]).max() < 0.1


def test_equal_points_are_no_trouble():
    with pytest.warns(ConvergenceWarning, match="duplicate points"):
        books = kmeans.fit_residual(np.ones((64, 5), np.float32), 2, 8, seed=0)
    codes = kmeans.encode(np.ones((3, 5), np.float32), books)
    np.testing.assert_allclose(kmeans.decode(codes, books), 1.0)
