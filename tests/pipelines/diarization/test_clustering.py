"""Linking local speakers: the right number of clusters, windows' speakers apart, little speech joins, no crash."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.pipelines.diarization.clustering import link_speakers


def voices(num_speakers, size=16, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0][:num_speakers]


def link(who, *, window_of=None, noise=0.1, solo=None, agreement=None, seed=0, **how):
    """Link items that are `who` by their embeddings; one item a window where nothing else is said."""
    rng = np.random.default_rng(seed)
    who = np.asarray(who)
    embeddings = voices(who.max() + 1)[who] + noise * rng.standard_normal((len(who), 16))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    n = len(who)
    return link_speakers(
        embeddings,
        np.full(n, 100) if solo is None else np.asarray(solo),
        np.arange(n) if window_of is None else np.asarray(window_of),
        np.full((n, n), np.nan) if agreement is None else agreement,
        **{"cluster_distance": 0.6, "num_speakers": None, "reliable_frames": 50} | how,
    )


def partition(labels):
    return {frozenset(np.flatnonzero(labels == k).tolist()) for k in np.unique(labels)}


@pytest.mark.parametrize("num_speakers", [1, 2, 3, 5, 8])
def test_voices_that_differ_make_as_many_clusters(num_speakers):
    who = np.random.default_rng(1).permutation(np.arange(4 * num_speakers) % num_speakers)
    labels = link(who)
    assert partition(labels) == partition(who) and set(labels) == set(range(num_speakers))


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_a_number_that_is_known_is_kept_to(wanted):
    assert len(set(link(np.arange(12) % 3, noise=0.3, num_speakers=wanted))) == wanted


def test_the_distance_decides_between_one_speaker_and_many():
    who = np.arange(12) % 3
    assert len(set(link(who, cluster_distance=1.9))) == 1 and len(set(link(who, cluster_distance=0.001))) == 12


def test_speakers_of_one_window_stay_apart_though_they_sound_alike():
    labels = link([0, 0, 0, 0], window_of=[0, 0, 1, 1], noise=0.01)
    assert labels[0] != labels[1] and labels[2] != labels[3] and len(set(labels)) == 2


def test_speech_in_common_time_links_what_voices_leave_open():
    """Two people who sound the same in two windows that overlap: activity says who is who."""
    agreement = np.full((4, 4), np.nan)
    agreement[:2, 2:] = [[0.0, 0.9], [0.9, 0.0]]
    agreement[2:, :2] = agreement[:2, 2:].T
    labels = link([0, 0, 0, 0], window_of=[0, 0, 1, 1], noise=0.01, agreement=agreement)
    assert labels[0] == labels[3] != labels[1] == labels[2]


def test_little_speech_joins_the_nearest_and_founds_nothing():
    who = [0, 0, 1, 1, 0, 1]
    labels = link(who, solo=[100, 100, 100, 100, 3, 3], noise=0.2)
    assert partition(labels) == partition(np.array(who))


def test_little_speech_stays_apart_from_its_own_window():
    labels = link([0, 1, 0, 0], window_of=[0, 1, 2, 2], solo=[100, 100, 100, 2], noise=0.05)
    assert labels[2] == labels[0] and labels[3] != labels[2]


def test_edge_cases_give_a_label_for_every_item():
    assert (
        link_speakers(
            np.zeros((0, 4)),
            np.zeros(0),
            np.zeros(0, int),
            np.zeros((0, 0)),
            cluster_distance=0.5,
            num_speakers=None,
            reliable_frames=50,
        ).tolist()
        == []
    )
    assert link([0]).tolist() == [0] and link([0], num_speakers=3).tolist() == [0]
    assert len(link([0, 1], solo=[0, 0])) == 2  # nobody ever talks alone
    blank = link_speakers(
        np.zeros((3, 4)),
        np.zeros(3),
        np.arange(3),
        np.full((3, 3), np.nan),
        cluster_distance=0.5,
        num_speakers=None,
        reliable_frames=50,
    )
    assert len(blank) == 3 and blank.min() == 0


def test_labels_are_numbered_from_zero_without_gaps():
    labels = link(np.arange(20) % 4, num_speakers=4, solo=[100] * 10 + [2] * 10)
    assert sorted(set(labels.tolist())) == list(range(len(set(labels.tolist()))))


@pytest.mark.parametrize("num_windows", [3, 30, 300])
def test_two_who_share_every_window_are_two_however_long_the_recording(num_windows):
    """They sound rather alike (cosine distance 0.1), but every window hears both."""
    rng = np.random.default_rng(0)
    a, b = voices(2)
    embeddings = np.stack([a, 0.9 * a + np.sqrt(1 - 0.81) * b] * num_windows) + 0.02 * rng.standard_normal(
        (2 * num_windows, 16)
    )
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    n = len(embeddings)
    labels = link_speakers(
        embeddings,
        np.full(n, 100),
        np.repeat(np.arange(num_windows), 2),
        np.full((n, n), np.nan),
        cluster_distance=0.5,
        num_speakers=None,
        reliable_frames=50,
    )
    assert partition(labels) == {frozenset(range(0, n, 2)), frozenset(range(1, n, 2))}


def test_one_window_that_splits_a_voice_is_outvoted_when_the_number_is_known():
    labels = link([0, 1] * 10 + [0, 0], window_of=[i // 2 for i in range(22)], num_speakers=2, noise=0.05)
    assert partition(labels[:20]) == {frozenset(range(0, 20, 2)), frozenset(range(1, 20, 2))}
