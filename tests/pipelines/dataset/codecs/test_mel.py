"""Mel filters of the fitted codec: librosa's triangles, each made to sum up to one."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.pipelines.dataset.codecs.mel import NUM_MELS, MelFrames


@pytest.mark.parametrize("rate_hz", (16_000, 24_000, 48_000))
def test_the_filters_are_librosa_s_where_a_channel_is_wider_than_a_bin(rate_hz):
    filters = pytest.importorskip("librosa.filters")
    frames = MelFrames(rate_hz)
    ours = frames._filters.toarray()
    theirs = filters.mel(sr=rate_hz, n_fft=frames.fft, n_mels=NUM_MELS, fmin=20, htk=True, norm=None, dtype=np.float64)
    peaks, sums = theirs.max(1), theirs.sum(1)
    wide = peaks > 0.5  # of a narrower one no bin lies near the middle: ours gives it the nearest
    np.testing.assert_allclose(ours[wide], theirs[wide] / sums[wide, None], atol=1e-6)
    assert wide.sum() > NUM_MELS / 2 and wide[NUM_MELS // 2 :].all()
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-5)
