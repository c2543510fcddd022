"""Durations out of whatever form a data set has, and how a sample is drawn."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

from colabkit.core.errors import BrokenSampleError, DataError
from colabkit.io.audio import write_wav
from colabkit.pipelines.asr.configure.durations import bytes_of, draw, rate_of, require_text, seconds_of


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "a.wav"
    write_wav(path, np.zeros(12_000, np.float32), 8_000)
    return path


def test_every_form_of_audio_tells_its_seconds(wav):
    content = wav.read_bytes()
    for audio in (
        str(wav),
        wav,
        content,
        {"path": str(wav), "bytes": None},
        {"bytes": content, "path": "x.wav"},
        {"array": np.zeros(24_000), "sampling_rate": 16_000},
        np.zeros(24_000),
        [0.0] * 24_000,
    ):
        assert seconds_of({"audio": audio, "text": "a"}) == pytest.approx(1.5)
        assert isinstance(audio, dict) or seconds_of(audio) == pytest.approx(1.5)


def test_what_is_known_is_not_read():
    assert seconds_of({"audio": "/not/there.wav", "duration": 2.25}) == 2.25
    assert seconds_of({"duration_seconds": 2, "text": "a"}) == 2
    assert seconds_of(3.5) == seconds_of(np.float32(3.5)) == 3.5
    assert seconds_of({"input_values": np.zeros(8_000), "labels": [1]}) == 0.5
    assert seconds_of({"input_values": np.zeros(8_000), "input_length": 8_000}) == 0.5
    assert seconds_of({"input_features": np.zeros((50, 160))}) == pytest.approx(1.0)


def test_a_data_set_without_audio_names_its_columns():
    with pytest.raises(DataError, match="no audio") as told:
        seconds_of({"id": 1, "utterance": "x"})
    assert "id, utterance" in str(told.value) and "rename_column" in told.value.fix


def test_a_data_set_without_text_names_its_columns():
    require_text({"audio": 1, "sentence": "x"})
    require_text({"input_values": 1, "labels": [1]})
    require_text(3.0)
    with pytest.raises(DataError, match="no transcripts") as told:
        require_text({"audio": 1, "spoken": "x"})
    assert "spoken" in str(told.value)


def test_broken_audio_is_a_broken_sample(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF but not really")
    with pytest.raises(BrokenSampleError):
        seconds_of({"audio": str(tmp_path / "a.wav")})
    with pytest.raises(BrokenSampleError):
        seconds_of({"audio": {"bytes": b"nothing", "path": None}})
    with pytest.raises(BrokenSampleError):
        seconds_of({"audio": str(tmp_path / "missing.wav")})


def test_hugging_face_data_is_not_decoded(wav):
    rows = {"audio": [str(wav)] * 5, "text": list("abcde")}
    for features in (datasets.Audio(), datasets.Audio(sampling_rate=16_000)):
        table = datasets.Dataset.from_dict(rows).cast_column("audio", features)
        items, count, how = draw(table, 3, seed=0)
        assert count == 5 and len(items) == 3 and how == "3 at random of 5"
        assert all(isinstance(item["audio"], dict) and seconds_of(item) == 1.5 for item in items)
        assert rate_of(items[0]) == 8_000 and bytes_of(items[0]) == wav.stat().st_size
    stream = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio()).to_iterable_dataset()
    items, count, how = draw(stream, 3, seed=0)
    assert count == 5 and len(items) == 3 and all(seconds_of(item) == 1.5 for item in items)


def test_a_draw_is_random_and_always_the_same():
    first, count, _ = draw(list(range(1, 1001)), 200, seed=0)
    assert first == draw(list(range(1, 1001)), 200, seed=0)[0] != draw(list(range(1, 1001)), 200, seed=1)[0]
    assert count == 1000 and len(set(first)) == 200 and 400 < np.mean(first) < 600


def test_an_endless_stream_is_read_a_little():
    read = []

    class Endless:
        def __iter__(self):
            number = 0
            while True:
                number += 1
                read.append(number)
                yield {"duration": float(number), "text": "a"}

    items, count, how = draw(Endless(), 10, seed=0)
    assert count is None and len(items) == 10 and len(read) <= 201 and "stream" in how


def test_no_samples_at_all():
    for empty in ([], iter(()), datasets.Dataset.from_dict({"audio": []})):
        with pytest.raises(DataError, match="no samples"):
            draw(empty, 5, seed=0)
    with pytest.raises(DataError, match="Cannot read this"):
        draw(3, 5, seed=0)


def test_bytes_are_known_where_they_are_stored(wav):
    assert (
        bytes_of({"audio": wav.read_bytes()})
        == bytes_of({"audio": {"bytes": None, "path": str(wav)}})
        == wav.stat().st_size
    )
    assert bytes_of({"audio": np.zeros(5)}) is None and bytes_of(2.0) is None
    assert rate_of({"audio": {"array": [0.0], "sampling_rate": 44_100}}) == 44_100
    assert rate_of({"audio": np.zeros(5)}) is None
