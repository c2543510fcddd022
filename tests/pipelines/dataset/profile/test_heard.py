"""Hearing a few segments: the same ones each time, measured as they are."""

from __future__ import annotations

import numpy as np

from colabkit.io.places import Folder
from colabkit.io.samples.shards import flac_bytes
from colabkit.pipelines.dataset.profile.heard import listen_to
from colabkit.pipelines.dataset.segments.loudness import loudness_lufs
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.segment import Segment
from tests.pipelines.dataset.segments.archives import wave_of


def test_few_of_many_and_none_of_none(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.npz").write_bytes(write_npz(Segment(key="", wave=wave_of(i, 16_000), rate_hz=16_000)))
    objects, names = Folder(tmp_path), [f"{i}.npz" for i in range(30)]
    first, again = (listen_to(objects, None, names, 5, seed=3, default_rate_hz=None) for _ in range(2))
    assert first == again and first.num_heard == 5 and first.num_silent == first.num_clipped == first.num_faulty == 0
    whole = listen_to(objects, None, names, 100, seed=0, default_rate_hz=None)
    waves = [wave_of(i, 16_000) for i in range(30)]
    assert whole.num_heard == 30
    assert np.isclose(whole.median_lufs, np.median([loudness_lufs(w, 16_000) for w in waves]))
    assert np.isclose(whole.flac_bytes_a_second, sum(len(flac_bytes(w, 16_000)) for w in waves) / 30)
    nothing = listen_to(objects, None, [], 5, seed=0, default_rate_hz=None)
    assert nothing.num_heard == 0 and nothing.median_lufs is None and 10_000 < nothing.flac_bytes_a_second < 32_000
