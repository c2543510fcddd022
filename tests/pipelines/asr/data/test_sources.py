"""Transcribed speech of folders, shards, the Hub and buckets: what is listed, what is left aside, which split."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from colabkit.core.errors import BrokenSampleError, ColabkitError, DataError
from colabkit.io.audio import write_wav
from colabkit.io.samples.listing import open_listing
from colabkit.io.samples.shards import flac_bytes
from colabkit.loopback.hub import HubServer
from colabkit.pipelines.asr.config import DataConfig, TextConfig
from colabkit.pipelines.asr.data import sources
from colabkit.pipelines.asr.data.sources import NUM_TOLD
from colabkit.pipelines.asr.text.cleaner import Cleaner
from colabkit.pipelines.asr.text.step import clean_listing
from tests.pipelines.asr.speech_files import NAMES, TEXTS, as_csv, shards, sound, texts_of, tsv, write_files
from tests.servers.s3 import S3Server


def test_sources_without_audio_or_text_are_refused(tmp_path, listed):
    (tmp_path / "words.csv").write_text("path,text\na.wav,b\n")
    with pytest.raises(DataError, match="no audio"):
        listed(tmp_path)
    write_files(tmp_path, ["b.wav"])
    with pytest.raises(DataError, match="no transcripts"):
        listed(tmp_path)
    with pytest.raises(ColabkitError, match="nowhere"):
        listed(tmp_path / "nowhere")
    (tmp_path / "words.csv").write_bytes(b"path,text\nb.wav,\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        listed(tmp_path)
    (tmp_path / "words.csv").unlink()
    (tmp_path / "words.json").write_text('{"a": ')
    with pytest.raises(DataError, match="cannot be read"):
        listed(tmp_path)


def test_what_cannot_be_used_is_left_aside_with_reason_and_count(tmp_path, listed, told):
    names = [f"{i}.wav" for i in range(40)]
    write_files(tmp_path, names)
    write_wav(tmp_path / "0.wav", sound(0, 0.05), 16_000)
    write_wav(tmp_path / "1.wav", sound(0, 2.5), 16_000)
    (tmp_path / "2.wav").write_bytes(b"RIFF" + bytes(300))
    texts = ["words"] * 10 + [" "] * (NUM_TOLD + 4) + ["words"] * (26 - NUM_TOLD)
    (tmp_path / "t.csv").write_text("file,text\n" + "".join(f"{n},{t}\n" for n, t in zip(names, texts, strict=True)))
    listing = listed(tmp_path, longest_seconds=2.0)
    assert sum(len(s) for s in listing.splits.values()) == 40 - 3 - NUM_TOLD - 4
    assert listing.left_aside == {
        "it is shorter than data.shortest_seconds=0.1": 1,
        "it is longer than data.longest_seconds=2": 1,
        "its transcript is empty": NUM_TOLD + 4,
    }
    assert "2.wav" in told.problems and told.problems["1.wav"].endswith("2.50 s")
    assert "4 more samples (its transcript is empty)" in told.problems
    with pytest.raises(DataError) as caught:
        listed(tmp_path, longest_seconds=0.2, shortest_seconds=0.15)
    assert "too long" in str(caught.value) and "data.longest_seconds" in caught.value.fix


@pytest.mark.parametrize("with_index", [True, False])
def test_shards_with_and_without_their_index(tmp_path, listed, with_index):
    folder = shards(tmp_path / "shards")
    if not with_index:
        (folder / "colabkit-index.safetensors").unlink()
    listing = listed(folder)
    assert texts_of(listing) == {f"u{i}": f"words of {i}" for i in range(12)}
    wave = listing.read_wave("test", 0)
    number = int(listing["test"].names[0][1:])
    assert wave.dtype == np.float32 and np.abs(wave - sound(number)).max() < 1e-4


@pytest.mark.parametrize("with_index", [True, False])
def test_shards_without_text_are_refused_with_their_columns(tmp_path, listed, with_index):
    folder = shards(tmp_path / "shards", text="spoken")
    if not with_index:
        (folder / "colabkit-index.safetensors").unlink()
    with pytest.raises(DataError) as caught:
        listed(folder)
    assert "spoken" in str(caught.value) and "columns=text=" in caught.value.fix
    assert len(texts_of(listed(folder, columns=("text=spoken",)))) == 12


def test_a_dataset_of_the_hub_and_a_bucket_are_put_together(tmp_path, listed, monkeypatch, told):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "audio": [{"bytes": flac_bytes(sound(i), 16_000), "path": f"{i}.flac"} for i in range(8)],
            "transcript": [f"hub words {i}" for i in range(8)],
            "speaker_id": [i % 4 for i in range(8)],
        }
    )
    pq.write_table(table, buffer := io.BytesIO())
    with HubServer() as hub, S3Server() as s3:
        for name, value in {**hub.environment(), **s3.environment()}.items():
            monkeypatch.setenv(name, value)
        hub.add_dataset("o/speech", {"data/train-00000-of-00001.parquet": buffer.getvalue()})
        for i in range(6):
            wav = io.BytesIO()
            import soundfile

            soundfile.write(wav, sound(20 + i), 16_000, format="WAV")
            s3.put("voices", f"set/x{i}.wav", wav.getvalue())
        s3.put(
            "voices", "set/t.tsv", tsv([f"x{i}.wav" for i in range(6)], [f"s3 words {i}" for i in range(6)]).encode()
        )
        listing = listed("hub:o/speech", test_source="s3://voices/set", folder=tmp_path)
        assert sorted(listing["test"].texts.to_list()) == [f"s3 words {i}" for i in range(6)]
        assert sum(len(listing[s]) for s in ("train", "validation")) == 8
        assert {s.partition(":")[0] for s in listing["train"].speakers} == {"0"}
        again = open_listing(tmp_path, rate_hz=16_000)
        assert again.described[0]["address"].startswith("hub:o/speech@") and again["test"].num_readers == 8
        for split in again:
            assert np.array_equal(again.read_wave(split, 0), listing.read_wave(split, 0))


def test_listings_come_back_whole_wherever_the_run_lies(tmp_path, listed):
    write_files(tmp_path / "data", NAMES)
    (tmp_path / "data" / "t.csv").write_text(as_csv(zip(NAMES, TEXTS, strict=True)))
    (tmp_path / "run").mkdir()
    listing = listed(tmp_path / "data", "voices", folder=tmp_path / "run", num_voices=3, sentences_per_voice=1)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    again = open_listing(moved, rate_hz=16_000)
    assert (
        again.fingerprint == listing.fingerprint
        and texts_of(again) == texts_of(listing)
        and again.hours == listing.hours
    )
    assert all(again.read_wave(s, i).size for s in again for i in range(len(again[s])))
    assert not (moved / "parts").exists() and (moved / "listing.json").stat().st_size < 2_000
    places = moved / "splits.safetensors"
    places.write_bytes(places.read_bytes()[:-8])
    with pytest.raises(DataError, match="damaged"):
        open_listing(moved, rate_hz=16_000)


def test_a_broken_file_is_told_when_it_is_read(tmp_path, listed):
    write_files(tmp_path, NAMES)
    (tmp_path / "t.csv").write_text(as_csv(zip(NAMES, TEXTS, strict=True)))
    listing = listed(tmp_path)
    name = listing["train"].names[0]
    content = bytearray((tmp_path / name).read_bytes())
    content[5_000] ^= 255
    stat = (tmp_path / name).stat()
    (tmp_path / name).write_bytes(content)
    os.utime(tmp_path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(BrokenSampleError) as caught:
        listing["train"].read_wave(0)
    assert name in str(caught.value) and listing["train"].read_wave(1).size


def test_splits_by_speaker_where_that_leaves_enough_to_train_on(tmp_path, listed, told):
    write_files(tmp_path, NAMES)
    who = ["one"] * 8 + ["two", "three"]
    (tmp_path / "t.csv").write_text(
        "file,text,speaker\n" + "".join(f"{n},w,{s}\n" for n, s in zip(NAMES, who, strict=True))
    )
    seeds = {told.chosen["data.split_by"] for seed in range(12) if listed(tmp_path, seed=seed)}
    assert {value for value, _ in seeds} == {"speaker", "sample"}  # it depends on where "one" falls
    assert any("too little" in reason for value, reason in seeds if value == "sample")
    assert set(listed(tmp_path, split_by="speaker").splits) == {"train", "validation", "test"}
    write_files(tmp_path / "other", NAMES)
    (tmp_path / "other" / "t.csv").write_text(as_csv(zip(NAMES, TEXTS, strict=True)))
    with pytest.raises(DataError) as caught:
        listed(tmp_path / "other", split_by="speaker")
    assert "columns=speaker=" in caught.value.fix


def test_too_few_samples_for_three_splits_are_refused(tmp_path, listed):
    write_files(tmp_path, NAMES[:2])
    (tmp_path / "t.csv").write_text(as_csv(zip(NAMES[:2], TEXTS, strict=False)))
    with pytest.raises(DataError, match="Nothing is left"):
        listed(tmp_path)


def test_a_source_that_is_not_there_is_told_before_any_is_listed(tmp_path, listed):
    write_files(tmp_path / "data", NAMES)
    (tmp_path / "data" / "t.csv").write_text(as_csv(zip(NAMES, TEXTS, strict=True)))
    (tmp_path / "run").mkdir()
    with pytest.raises(ColabkitError, match="nowhere"):
        listed(tmp_path / "data", "voices", "/nowhere/at/all", folder=tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_killed_at_any_file_operation_it_continues_to_the_same_end(tmp_path, listed, killer, no_fsync):
    folder = shards(tmp_path / "shards")
    (folder / "colabkit-index.safetensors").unlink()
    (tmp_path / "whole").mkdir()
    wanted, after, num_kills = listed(folder, folder=tmp_path / "whole").fingerprint, 0, 0
    while True:
        place = tmp_path / f"run{after}"
        place.mkdir()
        with killer(place, after) as record:
            listed(folder, folder=place)
        if not record["dead"]:
            break
        num_kills += 1
        assert listed(folder, folder=place).fingerprint == wanted == open_listing(place, rate_hz=16_000).fingerprint
        after += 3
    assert num_kills >= 5


def test_fingerprints_notice_changes_of_audio_and_transcripts(tmp_path):
    write_files(tmp_path, NAMES)
    (tmp_path / "t.csv").write_text("x")
    outside = tmp_path / "t.csv"
    configs = [
        DataConfig(source=(str(tmp_path),)),
        DataConfig(source=(str(tmp_path / "t.csv"),)),
        DataConfig(source=("voices",), transcripts=str(outside)),
    ]
    before = [sources.fingerprint_inputs(c) for c in configs]
    outside.write_text("y")
    assert all(a != b for a, b in zip(before, [sources.fingerprint_inputs(c) for c in configs], strict=True))
    assert sources.fingerprint_inputs(DataConfig()) == {}


def test_tars_with_texts_as_members(tmp_path, listed):
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for i in range(8):
            for name, content in ((f"{i}.flac", flac_bytes(sound(i), 16_000)), (f"{i}.txt", f"spoken {i}".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    assert texts_of(listed(tmp_path)) == {str(i): f"spoken {i}" for i in range(8)}


@pytest.fixture(scope="module")
def transcribed():
    folder = Path(os.environ.get("COLABKIT_TEST_DATA", Path(__file__).parents[5] / "shared" / "data")) / "transcribed"
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}")
    return folder


def test_real_recordings_are_listed_with_their_words(transcribed, listed, told):
    listing = listed(transcribed)
    found = texts_of(listing)
    assert len(found) == 10 and found["spk1_snt5.wav"] == "SUNDAY IS THE BEST PART OF THE WEEK"
    assert {s for split in listing.splits.values() for s in split.speakers} == {"spk1", "spk2"}
    assert told.chosen["data.split_by"][0] == "sample" and "2 speakers" in told.chosen["data.split_by"][1]
    clean = clean_listing(listing, Cleaner(TextConfig()), told)
    assert "sunday is the best part of the week" in texts_of(clean.listing).values()
    assert set(clean.vocabulary.characters) <= set("abcdefghijklmnopqrstuvwxyz'") and clean.left_aside == {}
    assert 2.0 < clean.listing["train"].seconds.mean() < 4.0 and clean.listing.read_wave("train", 0).size > 16_000
