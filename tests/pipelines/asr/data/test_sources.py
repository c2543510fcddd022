"""Transcribed speech of folders, shards, Hub and voices: which transcript is whose, what is left aside, which split."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from colabkit.core.errors import BrokenSampleError, ColabkitError, DataError, UsageError
from colabkit.io.audio import write_wav
from colabkit.io.samples.listing import open_listing
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.loopback.hub import HubServer
from colabkit.pipelines.asr.config import DataConfig, TextConfig
from colabkit.pipelines.asr.data import sources
from colabkit.pipelines.asr.data.made_speech import closed_sentences
from colabkit.pipelines.asr.data.sources import NUM_TOLD, list_samples
from colabkit.pipelines.asr.data.texts import open_texts
from colabkit.pipelines.asr.text.cleaner import Cleaner
from colabkit.pipelines.asr.text.step import clean_listing
from colabkit.pipelines.asr.text.vocabulary import Vocabulary
from tests.servers.s3 import S3Server
from tests.told import Told


def sound(seed: int, seconds: float = 0.5) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=int(16_000 * seconds)) * 0.1).astype(np.float32)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def listed(tmp_path_factory, told):
    """Return a function that lists a source; `told` keeps what it says."""

    def make(*source, folder=None, language="en", **how):
        config = DataConfig(
            source=tuple(str(s) for s in source), **{"held_out_fraction": 0.2, "validation_fraction": 0.1} | how
        )
        return list_samples(config, folder or tmp_path_factory.mktemp("listing"), told, language=language)

    return make


def write_files(folder: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_wav(folder / name, sound(i), 16_000)


def texts_of(listing) -> dict[str, str]:
    """Return {name: text} of all splits."""
    return {
        name: text
        for split in listing.splits.values()
        for name, text in zip(split.names.to_list(), split.texts.to_list(), strict=True)
    }


NAMES = [f"clips/a{i}.wav" for i in range(10)]
TEXTS = [f'sentence {i} „quoted" text' for i in range(10)]


def tsv(names, texts, **columns):
    heads = ["client_id", "path", "sentence", "up_votes"]
    rows = [[f"speaker{i // 2}", name, text, "2"] for i, (name, text) in enumerate(zip(names, texts, strict=True))]
    return "\n".join("\t".join(row) for row in [heads, *rows]) + "\n"


def test_common_voice_downloads_are_read_with_their_speakers(tmp_path, listed, told):
    write_files(tmp_path, NAMES)
    bases = [f"a{i}.mp3" for i in range(10)]  # the table still names the mp3 that the wav was made of
    (tmp_path / "validated.tsv").write_text(tsv(bases, TEXTS))
    (tmp_path / "train.tsv").write_text(tsv(bases[:5], ["another text"] * 5))
    (tmp_path / "invalidated.tsv").write_text(tsv(bases, ["wrong"] * 10))
    listing = listed(tmp_path)
    assert texts_of(listing) == dict(zip(NAMES, TEXTS, strict=True))
    assert told.chosen["data.transcripts"][0] == "validated.tsv" and told.chosen["data.split_by"][0] == "speaker"
    speakers = {name: set(split.speakers) for name, split in listing.splits.items()}
    assert sum(map(len, speakers.values())) == 5 == len(set.union(*speakers.values()))


def as_csv(rows):
    return "\ufefffile_name,transcription\r\n" + "".join(
        f'{n},"{t.replace(chr(34), chr(34) * 2)}"\r\n' for n, t in rows
    )


def as_jsonl(rows):
    return "\n".join(
        json.dumps({"audio_filepath": f"/data/elsewhere/{n}", "duration": 1.0, "text": t}) for n, t in rows
    )


def as_dict(rows):
    return json.dumps(
        {f"key{i}": {"wav": "{data_root}/" + n, "wrd": t, "spk_id": "s"} for i, (n, t) in enumerate(rows)}
    )


def as_list(rows):
    return json.dumps([{"path": n.replace("/", "\\"), "sentence": t} for n, t in rows])


def as_ljspeech(rows):
    return "".join(f"{Path(n).stem}|Raw {t}|{t}\n" for n, t in rows)


@pytest.mark.parametrize(
    "name, write",
    [
        ("metadata.csv", as_csv),
        ("manifest.jsonl", as_jsonl),
        ("train.json", as_dict),
        ("list.json", as_list),
        ("metadata.csv", as_ljspeech),
        ("clips/metadata.csv", lambda rows: as_csv([(Path(n).name, t) for n, t in rows])),
        ("table.csv", lambda rows: "id;text\n" + "".join(f"{Path(n).stem};{t}\n" for n, t in rows)),
    ],
)
def test_tables_of_many_kinds_name_the_files(tmp_path, listed, told, name, write):
    write_files(tmp_path, NAMES)
    (tmp_path / name).write_text(write(list(zip(NAMES, TEXTS, strict=True))), encoding="utf-8")
    assert texts_of(listed(tmp_path)) == dict(zip(NAMES, TEXTS, strict=True)) and told.problems == {}
    assert told.chosen["data.transcripts"] == (name, "10 of 10 audio files have one there")


def test_librispeech_is_read_with_the_speakers_in_its_names(tmp_path, listed, told):
    keys = [f"{100 + i}/1/{100 + i}-1-000{j}" for i in range(5) for j in range(2)]
    write_files(tmp_path, [f"{key}.wav" for key in keys])
    for i in range(5):
        lines = [f"{100 + i}-1-000{j} WORDS OF {i} {j}" for j in range(2)]
        (tmp_path / f"{100 + i}/1/{100 + i}-1.trans.txt").write_text("\n".join(lines))
    listing = listed(tmp_path)
    assert (
        texts_of(listing)["103/1/103-1-0001.wav"] == "WORDS OF 3 1"
        and told.chosen["data.transcripts"][0] == "*.trans.txt"
    )
    assert {s for split in listing.splits.values() for s in split.speakers} == {str(100 + i) for i in range(5)}


def test_a_text_beside_each_file(tmp_path, listed, told):
    write_files(tmp_path, NAMES[:6])
    for name in NAMES[:5]:
        (tmp_path / name).with_suffix(".txt").write_text(f"  {name}\nsecond line ")
    assert texts_of(listed(tmp_path)) == {name: f"{name} second line" for name in NAMES[:5]}
    assert told.problems == {NAMES[5]: "it has no transcript"} and told.chosen["data.split_by"][0] == "sample"


def test_a_named_table_says_what_is_meant(tmp_path, listed, told, tmp_path_factory):
    write_files(tmp_path, NAMES)
    (tmp_path / "all.csv").write_text(as_csv(zip(NAMES, TEXTS, strict=True)))
    (tmp_path / "few.csv").write_text(as_csv(zip(NAMES[:4], TEXTS, strict=False)))
    assert len(texts_of(listed(tmp_path, transcripts="few.csv"))) == 4
    outside = tmp_path_factory.mktemp("outside") / "mine.tsv"
    outside.write_text(tsv(NAMES[:5], TEXTS[:5]))
    assert len(texts_of(listed(tmp_path, transcripts=str(outside)))) == 5
    # a table may be the source, of its folder
    held_out = listed(tmp_path / "few.csv", test_source=str(tmp_path / "all.csv"))
    assert len(held_out["test"]) == 10 and len(held_out["train"]) + len(held_out["validation"]) == 4
    with pytest.raises(UsageError) as caught:
        listed(tmp_path, transcripts="al.csv")
    assert "all.csv" in caught.value.fix


def test_columns_of_unusual_names_are_set(tmp_path, listed):
    write_files(tmp_path, NAMES)
    (tmp_path / "t.csv").write_text("snd,said\n" + "".join(f"{n},words {i}\n" for i, n in enumerate(NAMES)))
    with pytest.raises(DataError) as caught:
        listed(tmp_path)
    assert "snd, said" in str(caught.value) and "data.columns=text=" in caught.value.fix
    assert len(texts_of(listed(tmp_path, columns=("text=said", "audio=snd")))) == 10


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


def shards(folder: Path, number: int = 12, *, text: str | None = "text", **more) -> Path:
    with ShardWriter(folder, shard_bytes=60_000) as writer:
        for i in range(number):
            columns = {"speaker": f"s{i % 6}"} | ({text: f"words of {i}"} if text else {})
            writer.add(f"u{i}", flac_bytes(sound(i), 16_000), ".flac", columns)
    return folder


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


def test_voices_say_every_word_of_a_closed_vocabulary(listed, tmp_path, told):
    words = ("red", "green", "blue", "one", "two")
    how = {"vocabulary": words, "num_voices": 6, "sentences_per_voice": 3}
    (tmp_path / "first").mkdir()
    listing = listed("voices", folder=tmp_path / "first", **how)
    assert listing.fingerprint == listed("voices", **how).fingerprint != listed("voices", seed=1, **how).fingerprint
    texts = [text.split() for text in texts_of(listing).values()]
    assert len(texts) == 18 and all(2 <= len(text) <= 5 and set(text) <= set(words) for text in texts)
    speakers = [set(split.speakers) for split in listing.splits.values()]
    assert sum(map(len, speakers)) == 6 and told.chosen["data.split_by"][0] == "speaker"
    said = closed_sentences(words, "anna", 0)
    drawn = " ".join(next(said) for _ in range(40)).split()
    assert max(drawn.count(w) for w in words) - min(drawn.count(w) for w in words) <= 2


def test_voices_say_everyday_sentences_of_the_language(listed):
    listing = listed("voices", language="de", num_voices=3, sentences_per_voice=2)
    assert any(set("äöüß") & set(text) for text in texts_of(listing).values())
    assert all("-de-" in name for name in texts_of(listing))
    with pytest.raises(UsageError) as caught:
        listed("voices", language="kaa")
    assert "data.vocabulary" in caught.value.fix


def cleaned(listing, told, text=None, **how):
    return clean_listing(listing, Cleaner(text or TextConfig()), told, **how)


def test_the_text_step_makes_the_vocabulary_of_training_texts_alone(tmp_path, listed, told):
    write_files(tmp_path, [*NAMES, "test/t0.wav", "test/t1.wav"])
    (tmp_path / "clips" / "t.csv").write_text(as_csv((Path(n).name, f"Zwölf, words {i}!") for i, n in enumerate(NAMES)))
    (tmp_path / "test" / "t.csv").write_text("file,text\nt0.wav,naïve words\nt1.wav,...\n")
    listing = listed(tmp_path / "clips", test_source=str(tmp_path / "test"))
    found = cleaned(listing, told)
    assert found.unknown == {"validation": {}, "test": {"ï": 1, "a": 1}} and found.characters["ö"] == len(
        listing["train"]
    )
    assert "ï" not in found.vocabulary.characters and "ö" in found.vocabulary.characters
    assert found.listing["test"].texts.to_list() == ["naïve words"]
    assert found.left_aside == {"nothing is left of its transcript after cleaning": 1}
    assert any("ï" in reason for reason in told.problems.values())
    assert len(found.listing["test"].seconds) == 1 and found.listing["test"].names[0] == "t0.wav"
    found.save(tmp_path)
    again = open_texts(tmp_path / "texts.safetensors", listing)
    assert again.fingerprint == found.listing.fingerprint != listing.fingerprint
    assert Vocabulary.load(tmp_path) == found.vocabulary and texts_of(again) == texts_of(found.listing)
    assert np.array_equal(again["train"].take([1]).read_wave(0), again["train"].read_wave(1))
    assert again["train"].take([1]).texts[0] == again["train"].texts[1]


def test_rare_characters_and_unusable_numbers_leave_training(tmp_path, listed, told):
    write_files(tmp_path, NAMES)
    texts = ["plain words of usual letters"] * 8 + ["one ñ here", "on 3/4/2020"]
    (tmp_path / "t.csv").write_text(as_csv(zip(NAMES, texts, strict=True)))
    tried = (listed(tmp_path, held_out_fraction=0.1, validation_fraction=0.1, seed=seed) for seed in range(30))
    listing = next(found for found in tried if set(texts[-2:]) <= set(found["train"].texts.to_list()))
    found = cleaned(listing, told, rare_fraction=0.009)
    assert found.rare.keys() >= {"ñ"} and "ñ" not in found.vocabulary.characters
    assert found.left_aside == {
        "it holds numbers joined by a sign, which may be read in several ways": 1,
        "it holds a rare character": 1,
    }
    assert (
        set(found.listing["train"].texts.to_list()) == set(texts[:1])
        and len(found.kept["train"]) == len(listing["train"]) - 2
    )
    assert cleaned(listing, told).rare == {}


def test_a_given_vocabulary_leaves_aside_what_it_cannot_write(tmp_path, listed, told):
    write_files(tmp_path, NAMES)
    (tmp_path / "t.csv").write_text(as_csv(zip(NAMES, ["abc"] * 10, strict=True)))
    listing = listed(tmp_path)
    given = Vocabulary.of("abc")
    assert cleaned(listing, told, vocabulary=given).vocabulary is given
    with pytest.raises(DataError) as caught:
        cleaned(listing, told, vocabulary=Vocabulary.of("ab"))
    assert "rare" in str(caught.value)


def test_a_language_without_number_words_says_so_through_choose(tmp_path, listed, told):
    write_files(tmp_path, NAMES)
    (tmp_path / "t.csv").write_text(as_csv(zip(NAMES, ["शब्द"] * 10, strict=True)))
    cleaned(listed(tmp_path), told, text=TextConfig(language="hi"))
    assert told.chosen["text.digits"][0] == "refuse"


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
    clean = cleaned(listing, told)
    assert "sunday is the best part of the week" in texts_of(clean.listing).values()
    assert set(clean.vocabulary.characters) <= set("abcdefghijklmnopqrstuvwxyz'") and clean.left_aside == {}
    assert 2.0 < clean.listing["train"].seconds.mean() < 4.0 and clean.listing.read_wave("train", 0).size > 16_000
