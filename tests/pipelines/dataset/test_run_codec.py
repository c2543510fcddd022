"""The codec of a run: fitted once on a store for all who encode it, opened again as it was, used on files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from colabkit.io.audio import read_audio, write_wav
from colabkit.io.places import Folder
from colabkit.io.voices import make_speakers, utterance
from colabkit.pipelines.dataset import run_codec
from colabkit.pipelines.dataset.config import CodecConfig
from colabkit.pipelines.dataset.run_codec import codec_of_run, codec_of_store, encode_files
from colabkit.pipelines.dataset.segments.npz import read_npz, write_npz
from colabkit.pipelines.dataset.segments.segment import Segment
from tests.told import Told

SMALL = CodecConfig(fit_seconds=6.0, num_codebooks=2, codebook_size=16)
LONGER = replace(SMALL, fit_seconds=60.0)
WAVES = [utterance(speaker, i, rate_hz=24_000).wave for speaker in make_speakers(2) for i in range(4)]


@pytest.fixture
def store(tmp_path):
    place = Folder(tmp_path / "store")
    for i, wave in enumerate(WAVES):
        place.put(f"segments/{i}.npz", write_npz(Segment(key=str(i), wave=wave, rate_hz=24_000)))
    return place


def folder(tmp_path, name: str):
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_a_codec_is_fitted_once_and_the_second_machine_takes_it(store, tmp_path, monkeypatch):
    told = Told()
    first = codec_of_store(SMALL, store, folder(tmp_path, "a"), told)
    assert (first.rate_hz_in, first.num_codebooks, first.codebook_size) == (16_000, 2, 16) and not told.said
    monkeypatch.setattr(run_codec, "_speech", lambda *a: pytest.fail("fitted a second time"))
    second = codec_of_store(SMALL, store, folder(tmp_path, "b"), told)
    assert second.fingerprint == first.fingerprint and "fitted on this store before" in told.said[0]
    assert [name.partition("-")[0] for name in (found.name for found in store.list("codec"))] == ["codec/kmeans"]


def test_other_settings_or_more_speech_fit_another(store, tmp_path):
    prints = {
        codec_of_store(config, store, folder(tmp_path, str(i)), Told()).fingerprint
        for i, config in enumerate((SMALL, replace(SMALL, seed=1), LONGER))
    }
    assert len(prints) == 3 == len(list(store.list("codec")))


def test_of_two_that_fit_at_once_the_first_ones_counts(store, tmp_path, monkeypatch):
    others = codec_of_store(LONGER, store, folder(tmp_path, "other"), Told())
    content = store.get(next(store.list("codec")).name)
    speech = run_codec._speech

    def fitted_elsewhere_meanwhile(place, seconds):
        yield from speech(place, seconds)
        place.put(name, content)

    codec_of_store(SMALL, store, folder(tmp_path, "named"), Told())
    name = next(found.name for found in store.list("codec") if store.get(found.name) != content)
    store.delete(name)
    monkeypatch.setattr(run_codec, "_speech", fitted_elsewhere_meanwhile)
    assert codec_of_store(SMALL, store, folder(tmp_path, "late"), Told()).fingerprint == others.fingerprint


def test_what_a_step_encoded_with_is_opened_without_the_store(store, tmp_path):
    made = codec_of_store(SMALL, store, folder(tmp_path, "a"), Told())
    for found in list(store.list()):
        store.delete(found.name)
    assert codec_of_run(tmp_path / "a", Told()).fingerprint == made.fingerprint
    assert json.loads((tmp_path / "a/codec/codec.json").read_text()) == {
        "name": "kmeans-mel",
        "precision": "fp32",
        "num_codebooks": 2,
    }


def test_files_become_segments_with_codes_and_what_they_sound_like(store, tmp_path):
    codec = codec_of_store(SMALL, store, folder(tmp_path, "a"), Told())
    write_wav(tmp_path / "said.wav", WAVES[0], 24_000)
    (tmp_path / "out").mkdir()
    written = encode_files(tmp_path / "a", [tmp_path / "said.wav"], tmp_path / "out")
    assert [path.name for path in written] == ["said.npz", "said.wav"] and all(path.is_file() for path in written)
    segment = read_npz(written[0].read_bytes(), "said.npz")
    np.testing.assert_array_equal(segment.codes, codec.encode_batch([np.array(segment.wave)])[0])
    assert segment.rate_hz == 16_000 and segment.seconds == pytest.approx(len(WAVES[0]) / 24_000, abs=1e-3)
    heard = read_audio(written[1], rate_hz=16_000)
    assert abs(len(heard) - len(segment.wave)) <= 320 and np.abs(heard).max() > 0.01
