"""Link the local speakers of overlapping windows into the speakers of a recording, however many there are."""

from __future__ import annotations

import numpy as np

APART = 2.0  # added to the distance of two speakers that share every window: more than any voices differ
AGREEMENT_SECONDS = 1.0  # common speech needed before two windows' activities say anything


def link_speakers(
    embeddings: np.ndarray,
    solo_frames: np.ndarray,
    window_of: np.ndarray,
    agreement: np.ndarray,
    *,
    cluster_distance: float,
    num_speakers: int | None,
    reliable_frames: int,
) -> np.ndarray:
    """Cluster local speakers; returns a cluster number for each, (item,) int.

    Shapes: embeddings (item, E) unit vectors, solo_frames (item,), window_of (item,), agreement (item, item): share
    of common speech in the part two windows have in common, NaN where they have none.
    Average linkage on cosine distance, pulled together or pushed apart by agreement. Speakers of one window are
    pushed apart: the more windows two clusters share the more, in short and long recordings alike. Items with little
    speech of their own join the nearest cluster afterwards.
    """
    if len(embeddings) == 0:
        return np.zeros(0, int)
    distance = 1 - embeddings @ embeddings.T
    known = ~np.isnan(agreement)
    pulled = distance * (1 - agreement) + np.maximum(0.5 - agreement, 0)
    distance = np.where(known, pulled, distance)
    same_window = window_of[:, None] == window_of[None]
    # The mean over two clusters that share all windows holds one such pair for each window: as many times as much.
    distance = np.clip(distance, 0, 2) + same_window * (APART * len(np.unique(window_of)))
    np.fill_diagonal(distance, 0)
    reliable = np.flatnonzero(solo_frames >= min(reliable_frames, solo_frames.max()))
    labels = np.full(len(embeddings), -1)
    labels[reliable] = _cut_tree(distance[np.ix_(reliable, reliable)], cluster_distance, num_speakers)
    for item in np.argsort(-solo_frames, kind="stable"):
        if labels[item] < 0:
            labels[item] = _nearest(labels, distance[item], same_window[item], num_speakers)
    return np.unique(labels, return_inverse=True)[1]


def _cut_tree(distance: np.ndarray, cluster_distance: float, num_speakers: int | None) -> np.ndarray:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(distance) == 1:
        return np.zeros(1, int)
    tree = linkage(squareform(distance, checks=False), method="average")
    if num_speakers is not None:
        return fcluster(tree, num_speakers, criterion="maxclust") - 1
    return fcluster(tree, cluster_distance, criterion="distance") - 1


def _nearest(labels: np.ndarray, distance: np.ndarray, same_window: np.ndarray, num_speakers: int | None) -> int:
    """Return the cluster whose members are nearest on average and hold nobody of the item's own window."""
    clusters = np.unique(labels[labels >= 0])
    means = np.array([distance[labels == c].mean() for c in clusters])
    blocked = np.array([same_window[labels == c].any() for c in clusters])
    means = np.where(blocked, np.inf, means)
    if np.isfinite(means.min()):
        return int(clusters[means.argmin()])
    return int(clusters.max()) + 1 if num_speakers is None else int(clusters[0])
