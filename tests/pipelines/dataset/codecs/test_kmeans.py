"""Residual k-means: codebooks fitted one after the other, each on what those before it left over."""

from __future__ import annotations

import numpy as np

from colabkit.pipelines.dataset.codecs import kmeans


def test_entries_nobody_needs_are_moved_where_they_serve():
    points = np.repeat(np.eye(3, 4, dtype=np.float32), 50, 0)
    points[::7] += np.linspace(0, 0.5, len(points[::7]), dtype=np.float32)[:, None]
    book = kmeans.fit_residual(points, 1, 12, seed=3)[0]
    assert np.abs(points - book[kmeans.nearest(points, book)]).max() < 0.1


def test_equal_points_are_no_trouble():
    books = kmeans.fit_residual(np.ones((64, 5), np.float32), 2, 8, seed=0)
    codes = kmeans.encode(np.ones((3, 5), np.float32), books)
    np.testing.assert_allclose(kmeans.decode(codes, books), 1.0)
