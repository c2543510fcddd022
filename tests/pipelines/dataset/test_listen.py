"""Listening: segments chosen by a store's sidecars, wav files, figures, a picture; likeness telling good from bad."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from colabkit.core.errors import ChangedError, DataError
from colabkit.io.audio import read_audio, resample
from colabkit.io.places import Folder
from colabkit.io.samples.shards import flac_bytes
from colabkit.io.voices import make_speakers, utterance
from colabkit.pipelines.dataset.codecs import likeness
from colabkit.pipelines.dataset.codecs.kmeans_mel import KMeansMel
from colabkit.pipelines.dataset.listen import Example, choose_examples, listen_to
from colabkit.pipelines.dataset.store.codes import Row, codec_facts, write_sidecar

WAVES = [utterance(speaker, i).wave for speaker in make_speakers(2) for i in range(4)]


@pytest.fixture(scope="module")
def codec():
    return KMeansMel.fit(WAVES, num_codebooks=4, codebook_size=64)


@pytest.fixture
def store(tmp_path, codec):
    """Return a store with two sidecars of four segments, one segment a whole file, the others parts of one."""
    folder, rows, blob = tmp_path / "store", [], b""
    (folder / "segments").mkdir(parents=True)
    (folder / "codes" / "manifest").mkdir(parents=True)
    for number, wave in enumerate(WAVES):
        payload = flac_bytes(wave, 16_000)
        where = {"object": "00000.tar", "offset": len(blob), "length": len(payload)}
        if number == 0:
            where = {"object": "a/0.flac", "offset": 0, "length": -1}
            (folder / "segments" / "a").mkdir()
            (folder / "segments" / "a" / "0.flac").write_bytes(payload)
        else:
            blob += payload
        rows.append(
            Row(key=f"a/{number}", codes=codec.encode_batch([wave])[0], num_samples=len(wave), rate_hz=16_000, **where)
        )
    (folder / "segments" / "00000.tar").write_bytes(blob)
    (folder / "codes" / "manifest" / "0.parquet").write_bytes(b"not a sidecar")
    for number in range(2):
        (folder / "codes" / f"{number}.parquet").write_bytes(write_sidecar(rows[number::2], codec_facts(codec)))
    return Folder(folder)


def test_segments_are_chosen_with_their_audio_and_the_same_ones_again(store, codec):
    chosen = choose_examples(store, codec, num=4, seed=1)
    assert len({one.key for one in chosen}) == 4
    for one in chosen:
        np.testing.assert_allclose(one.wave, WAVES[int(one.key[2:])], atol=2e-4)
        np.testing.assert_array_equal(one.codes, codec.encode_batch([WAVES[int(one.key[2:])]])[0])
    assert [one.key for one in choose_examples(store, codec, num=4, seed=1)] == [one.key for one in chosen]
    assert len({tuple(one.key for one in choose_examples(store, codec, num=2, seed=seed)) for seed in range(6)}) > 1
    assert len(choose_examples(store, codec, num=50)) == 8


def test_decoded_segments_lie_beside_their_originals(store, codec, tmp_path):
    said = []
    heard = listen_to(codec, choose_examples(store, codec, num=3), tmp_path / "out", say=said.append)
    for one in heard:
        decoded, original = (read_audio(tmp_path / "out" / name) for name in (one.decoded, one.original))
        assert abs(len(decoded) - len(original)) < 320
        assert one.likeness.mel_db < 8 and one.likeness.voiced_agreement > 0.7 and one.kbps == 1.2
        json.dumps(one.to_dict())
    assert (tmp_path / "out" / "listen.png").read_bytes()[:4] == b"\x89PNG"
    assert "mel distance" in said[0] and "mean" in said[0]


def test_the_same_codes_give_the_same_files(store, codec, tmp_path):
    for place in ("one", "two"):
        listen_to(codec, choose_examples(store, codec, num=2), tmp_path / place, say=lambda text: None)
    first = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert len(first) == 5 and first == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}


def test_without_its_audio_a_segment_is_decoded_alone(store, codec, tmp_path):
    Path(store.address, "segments", "00000.tar").unlink()
    Path(store.address, "segments", "a", "0.flac").unlink()
    said = []
    chosen = choose_examples(store, codec, num=2, say=said.append)
    heard = listen_to(codec, chosen, tmp_path / "out", say=said.append)
    assert [one.likeness for one in heard] == [None, None] and "cannot be had" in said[0]
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".png", ".wav", ".wav"]


def test_codes_of_another_codec_are_not_decoded(store, codec):
    other = KMeansMel.fit(WAVES, num_codebooks=4, codebook_size=64, seed=5)
    with pytest.raises(ChangedError, match="another codec") as caught:
        choose_examples(store, other)
    assert other.fingerprint[:12] in str(caught.value)


def test_a_store_without_codes_says_what_to_do(tmp_path, codec):
    (tmp_path / "codes").mkdir()
    with pytest.raises(DataError, match="no codes") as caught:
        choose_examples(Folder(tmp_path), codec)
    assert "--to encode" in caught.value.fix


def test_names_of_files_are_tame(codec, tmp_path):
    wave = WAVES[0]
    example = Example(key="../../x y/عربي:1", codes=codec.encode_batch([wave])[0], wave=wave, rate_hz=16_000)
    heard = listen_to(codec, [example], tmp_path / "out", say=lambda text: None)
    assert (tmp_path / "out" / heard[0].decoded).is_file() and "/" not in heard[0].decoded


def test_likeness_knows_the_same_from_another():
    same = likeness.likeness(WAVES[0], 16_000, WAVES[0], 16_000)
    assert (
        same.mel_db == 0
        and same.si_sdr_db == 60
        and same.f0_correlation == pytest.approx(1)
        and same.voiced_agreement == 1
    )
    other = likeness.likeness(WAVES[0], 16_000, WAVES[5], 16_000)
    assert other.mel_db > 10 and other.si_sdr_db < 0


def test_likeness_finds_a_shift_a_rate_and_noise():
    wave = WAVES[1]
    late = likeness.likeness(wave, 16_000, np.concatenate([np.zeros(700, np.float32), wave]), 16_000)
    assert late.si_sdr_db > 50
    resampled = likeness.likeness(wave, 16_000, resample(wave, 16_000, 24_000), 24_000)
    assert resampled.mel_db < 2 and resampled.si_sdr_db > 20
    noise = np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)
    noisy = wave + noise * np.sqrt((wave**2).mean()) * 10 ** (-10 / 20)
    assert likeness.si_sdr_db(wave, noisy) == pytest.approx(10, abs=0.5)
