"""Single-speaker speech from folders and from voices: who speaks, what is left aside, which split."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from colabkit.core.errors import ColabkitError, DataError
from colabkit.io.audio import write_wav
from colabkit.io.samples.listing import SPLITS
from colabkit.pipelines.diarization.config import SpeechConfig
from colabkit.pipelines.diarization.speech.pool import load_bank
from colabkit.pipelines.diarization.speech.step import (
    list_speech,
    open_speech,
    read_sexes,
    speaker_of,
    split_speakers,
    write_speech,
    write_voices,
)


@pytest.fixture
def talk(make_buzz):
    def make(i, seconds=2.0):
        return make_buzz(seconds, f0_hz=100 + 10 * i, seed=i)

    return make


@pytest.fixture
def folder(tmp_path, talk):
    """Ten speakers in subfolders, two files each."""
    for i in range(10):
        (tmp_path / f"ann-{i}").mkdir()
        for j in range(2):
            write_wav(tmp_path / f"ann-{i}" / f"take{j}.wav", talk(i), 16_000)
    return tmp_path


def config_of(folder, **how):
    return SpeechConfig(source=(str(folder),), **how)


@pytest.fixture
def listed(tmp_path_factory, told):
    """Return a function that lists a source: its speakers, and their speech ready to be read."""

    def make(config):
        speech = list_speech(config, tmp_path_factory.mktemp("listing"), told)
        return speech.speakers, speech

    return make


def test_subfolders_name_the_speakers(folder, problems, listed):
    entries, speech = listed(config_of(folder))
    assert [e.name for e in entries] == [f"ann-{i}" for i in range(10)] and problems == {}
    assert all(e.num_samples == 2 and e.seconds == 4.0 for e in entries)
    keys = {e.name: [speech.listing["train"].names[n] for n in places] for e, places in speech.of_split("train")}
    assert all(found == [f"{name}/take0.wav", f"{name}/take1.wav"] for name, found in keys.items())


def test_listings_come_back_whole_wherever_the_run_lies(folder, told, tmp_path_factory):
    config, first = config_of(folder), tmp_path_factory.mktemp("first")
    speech = list_speech(config, first, told)
    write_speech(first, speech, {})
    again = open_speech(config, first.rename(first.with_name("moved")))
    assert again.speakers == speech.speakers and again.listing.fingerprint == speech.listing.fingerprint
    for split in SPLITS:
        assert again.listing[split].speakers == speech.listing[split].speakers
        assert np.array_equal(again.listing[split].read_wave(0), speech.listing[split].read_wave(0))


def test_file_names_with_dashes_name_the_speaker_up_to_the_first(tmp_path, talk, listed):
    for i in range(8):
        write_wav(tmp_path / f"{i:03d}-chapter-{i}-0001.wav", talk(i), 16_000)
    entries, _ = listed(config_of(tmp_path))
    assert [e.name for e in entries] == [f"{i:03d}" for i in range(8)]


@pytest.mark.parametrize(
    "path, rule, name",
    [
        ("ann/x.wav", "auto", "ann"),
        ("ann/day1/x-y.wav", "auto", "ann"),
        ("103-1240-0001.flac", "auto", "103"),
        ("train-clean-100/103/1240/103-1240-0001.flac", "auto", "103"),
        ("103/1240/103-1240-0001.flac", "auto", "103"),
        ("dev/wav/id10270/5r0dWxy17C8/00001.wav", "auto", "id10270"),
        ("id10270/a/00001.wav", "auto", "id10270"),
        ("ann/bob-x.wav", "name", "bob"),
        ("ann/bob-x.wav", "folder", "ann"),
        ("ann-1/take.wav", "auto", "ann-1"),
        ("Zoë/ça.wav", "auto", "Zoë"),
    ],
)
def test_speakers_are_read_off_paths(path, rule, name):
    assert speaker_of(PurePosixPath(path), rule) == name


@pytest.mark.parametrize(
    "path, rule", [("x.wav", "auto"), ("-x.wav", "auto"), ("ann/x.wav", "name"), ("ann-x.wav", "folder")]
)
def test_a_path_that_names_nobody_is_refused(path, rule):
    with pytest.raises(DataError) as caught:
        speaker_of(PurePosixPath(path), rule)
    assert path in str(caught.value) and caught.value.fix


def test_a_missing_and_an_empty_folder_are_refused(tmp_path, listed):
    with pytest.raises(ColabkitError, match="nowhere"):
        listed(config_of(tmp_path / "nowhere"))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        listed(config_of(tmp_path))
    assert "no audio" in str(caught.value) and "1 other files" in str(caught.value)


def test_faulty_files_are_left_aside_and_told(folder, problems, listed, told):
    import soundfile

    good = (folder / "ann-0" / "take0.wav").read_bytes()
    faulty = {
        "ann-0/corrupt.wav": b"RIFF" + bytes(range(256)) * 4,
        "ann-1/empty.wav": b"",
        "ann-2/cut.wav": good[:-9_000],
    }
    for name, content in faulty.items():
        (folder / name).write_bytes(content)
    waves = {
        "ann-3/nan.wav": np.full(16_000, np.nan, np.float32),
        "ann-4/silent.wav": np.zeros(16_000, np.float32),
        "ann-5/no_samples.wav": np.zeros(0, np.float32),
        "ann-6/offset.wav": np.full(16_000, 0.3, np.float32),
    }
    for name, wave in waves.items():
        soundfile.write(folder / name, wave, 16_000, subtype="FLOAT")
    entries, speech = listed(config_of(folder))
    assert set(problems) == set(faulty) | {"ann-5/no_samples.wav"} and len(entries) == 10
    for split in SPLITS:  # what only decoding tells is told when it is read
        bank = load_bank(speech, split, told)
        assert all(len(s.waves) == 2 for s in bank.speakers)
    assert set(problems) == set(faulty) | set(waves) and all(problems.values())
    assert "no speech" in problems["ann-4/silent.wav"] and "no speech" in problems["ann-6/offset.wav"]


def test_a_speaker_without_a_usable_file_is_not_one(folder, problems, listed):
    (folder / "zoe").mkdir()
    (folder / "zoe" / "x.wav").write_bytes(b"no")
    assert "zoe" not in [e.name for e in listed(config_of(folder))[0]] and list(problems) == ["zoe/x.wav"]


def test_one_speaker_only_is_refused_with_the_setting_that_may_mend_it(tmp_path, talk, listed):
    (tmp_path / "only").mkdir()
    for i in range(3):
        write_wav(tmp_path / "only" / f"{i}-x.wav", talk(i), 16_000)
    with pytest.raises(DataError) as caught:
        listed(config_of(tmp_path))
    assert "1 speaker" in str(caught.value) and "speaker_from" in caught.value.fix


@pytest.mark.parametrize("num_speakers", [6, 7, 8, 9, 13, 14, 18, 40, 251, 399, 400, 1_000])
def test_every_split_gets_its_share_and_no_speaker_two(num_speakers):
    splits = split_speakers([f"s{i}" for i in range(num_speakers)], SpeechConfig())
    counts = {split: list(splits.values()).count(split) for split in SPLITS}
    assert len(splits) == num_speakers == sum(counts.values()) and min(counts.values()) >= 2
    assert counts["test"] == pytest.approx(0.2 * num_speakers, abs=2 + 0.06 * num_speakers)


def test_splits_depend_on_names_and_seed_alone():
    names = [f"s{i}" for i in range(50)]
    assert split_speakers(names, SpeechConfig()) == split_speakers(names[::-1], SpeechConfig())
    assert split_speakers(names, SpeechConfig()) != split_speakers(names, SpeechConfig(seed=1))


def test_a_speaker_added_to_a_large_set_moves_no_other():
    names = [f"s{i}" for i in range(500)]
    before, after = split_speakers(names, SpeechConfig()), split_speakers([*names, "new"], SpeechConfig())
    assert all(after[name] == before[name] for name in names)


def test_sexes_are_read_from_a_table_beside_or_above(folder, listed):
    (folder / "SPEAKERS.TXT").write_text(
        ";ID |SEX\nann-0 | F | train | 25 | Ann\nann-1| M |x\nann-2 | ? |\nbroken line\n"
    )
    found = {e.name: e.sex for e in listed(config_of(folder))[0]}
    assert (found["ann-0"], found["ann-1"], found["ann-2"], found["ann-3"]) == ("F", "M", "", "")
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    assert read_sexes(inner) == {"ann-0": "F", "ann-1": "M"}


def test_banks_hold_the_speakers_of_their_split_and_no_more_than_asked(folder, told, listed):
    entries, speech = listed(config_of(folder))
    for split in SPLITS:
        bank = load_bank(speech, split, told)
        assert [s.name for s in bank.speakers] == [e.name for e in entries if e.split == split]
        assert all(len(s.waves) == 2 for s in bank.speakers)
    num_train = sum(e.split == "train" for e in entries)
    little = load_bank(speech, "train", told, hours=num_train * 1.5 / 3_600)  # 1.5 s each: one file is enough
    assert all(len(s.waves) == 1 for s in little.speakers)


def test_voices_are_written_to_shards_and_read_like_any_source(problems, listed, tmp_path, told):
    config = SpeechConfig(num_voices=8, seconds_per_voice=2.0)
    entries, speech = listed(config)
    assert len(entries) == 8 and {e.sex for e in entries} == {"F", "M"} and problems == {}
    shards = sorted(Path(speech.listing["train"].samples[0].index.address).glob("*.tar"))
    again = write_voices(config, tmp_path)
    assert [p.read_bytes() for p in shards] == [p.read_bytes() for p in sorted(tmp_path.glob("*.tar"))]
    assert again.fingerprint == speech.listing["train"].samples[0].index.fingerprint
    bank = load_bank(speech, "test", told)
    assert len(bank.speakers) == 2 and problems == {}


def test_speakers_of_several_sources_do_not_mix(folder, talk, tmp_path_factory, listed):
    other = tmp_path_factory.mktemp("other")
    for i in range(4):
        (other / f"ann-{i}").mkdir()
        write_wav(other / f"ann-{i}" / "x.wav", talk(i + 20), 16_000)
    entries, speech = listed(SpeechConfig(source=(str(folder), str(other))))
    assert len(entries) == 14 and {e.source for e in entries} == {0, 1}
    assert sum(len(numbers) for split in SPLITS for _, numbers in speech.of_split(split)) == 24


def test_a_source_that_is_not_there_is_told_before_any_is_listed(folder, told, tmp_path_factory):
    place = tmp_path_factory.mktemp("listing")
    with pytest.raises(ColabkitError, match="nowhere"):
        list_speech(SpeechConfig(source=(str(folder), "voices", "/nowhere/at/all")), place, told)
    assert list(place.iterdir()) == []


def test_real_readings_are_listed_with_their_sexes(real_data, problems, tmp_path, listed):
    mini = real_data / "librispeech-mini"
    for path in sorted(mini.glob("*.flac"))[:12]:
        (tmp_path / path.name).symlink_to(path.resolve())
    (tmp_path / "SPEAKERS.TXT").write_bytes((mini / "SPEAKERS.TXT").read_bytes())
    entries, speech = listed(config_of(tmp_path))
    assert len(entries) == 12 and problems == {} and {e.sex for e in entries} == {"F", "M"}
    keys = speech.listing["train"].samples[0].index.keys.to_list()
    assert {key.split("-")[0] for key in keys} == {e.name for e in entries}
