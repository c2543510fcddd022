"""Single-speaker speech from folders and from voices: who speaks, what is left aside, which split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.io.audio import write_wav
from colabkit.pipelines.diarization import sources
from colabkit.pipelines.diarization.config import SpeechConfig
from colabkit.pipelines.diarization.sources import SPLITS, SpeakerEntry, list_speakers, load_bank, speaker_of, split_speakers


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
    return SpeechConfig(source="folder", folder=str(folder), **how)


def test_subfolders_name_the_speakers(folder, problems):
    entries = list_speakers(config_of(folder), problems)
    assert [e.name for e in entries] == [f"ann-{i}" for i in range(10)] and problems == {}
    assert entries[3].files == ("ann-3/take0.wav", "ann-3/take1.wav")


def test_listings_go_through_json_whole(folder, problems):
    import json
    entries = list_speakers(config_of(folder), problems)
    assert [SpeakerEntry.from_dict(json.loads(json.dumps(e.to_dict()))) for e in entries] == entries


def test_file_names_with_dashes_name_the_speaker_up_to_the_first(tmp_path, talk, problems):
    for i in range(8):
        write_wav(tmp_path / f"{i:03d}-chapter-{i}-0001.wav", talk(i), 16_000)
    entries = list_speakers(config_of(tmp_path), problems)
    assert [e.name for e in entries] == [f"{i:03d}" for i in range(8)]


@pytest.mark.parametrize("path, rule, name", [
    ("ann/x.wav", "auto", "ann"), ("ann/day1/x-y.wav", "auto", "ann"), ("103-1240-0001.flac", "auto", "103"),
    ("train-clean-100/103/1240/103-1240-0001.flac", "auto", "103"), ("103/1240/103-1240-0001.flac", "auto", "103"),
    ("dev/wav/id10270/5r0dWxy17C8/00001.wav", "auto", "id10270"), ("id10270/a/00001.wav", "auto", "id10270"),
    ("ann/bob-x.wav", "name", "bob"), ("ann/bob-x.wav", "folder", "ann"), ("ann-1/take.wav", "auto", "ann-1"),
    ("Zoë/ça.wav", "auto", "Zoë"),
])
def test_speakers_are_read_off_paths(path, rule, name):
    assert speaker_of(PurePosixPath(path), rule) == name


@pytest.mark.parametrize("path, rule", [("x.wav", "auto"), ("-x.wav", "auto"), ("ann/x.wav", "name"), ("ann-x.wav", "folder")])
def test_a_path_that_names_nobody_is_refused(path, rule):
    with pytest.raises(DataError) as caught:
        speaker_of(PurePosixPath(path), rule)
    assert path in str(caught.value) and caught.value.fix


def test_a_missing_and_an_empty_folder_are_refused(tmp_path, problems):
    with pytest.raises(DataError, match="does not exist"):
        list_speakers(config_of(tmp_path / "nowhere"), problems)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        list_speakers(config_of(tmp_path), problems)
    assert "no audio" in str(caught.value) and "1 other files" in str(caught.value)


def test_faulty_files_are_left_aside_and_told(folder, talk, problems):
    import soundfile
    good = (folder / "ann-0" / "take0.wav").read_bytes()
    faulty = {"ann-0/corrupt.wav": b"RIFF" + bytes(range(256)) * 4, "ann-1/empty.wav": b"", "ann-2/cut.wav": good[:-9_000]}
    for name, content in faulty.items():
        (folder / name).write_bytes(content)
    waves = {"ann-3/nan.wav": np.full(16_000, np.nan, np.float32), "ann-4/silent.wav": np.zeros(16_000, np.float32),
             "ann-5/no_samples.wav": np.zeros(0, np.float32), "ann-6/offset.wav": np.full(16_000, 0.3, np.float32)}
    for name, wave in waves.items():
        soundfile.write(folder / name, wave, 16_000, subtype="FLOAT")
    entries = list_speakers(config_of(folder), problems)
    assert set(problems) == set(faulty) | set(waves) and all(problems.values())
    assert "no speech" in problems["ann-4/silent.wav"] and "no speech" in problems["ann-6/offset.wav"]
    assert len(entries) == 10 and all(e.files == (f"{e.name}/take0.wav", f"{e.name}/take1.wav") for e in entries)


def test_a_speaker_without_a_usable_file_is_not_one(folder, problems):
    (folder / "zoe").mkdir()
    (folder / "zoe" / "x.wav").write_bytes(b"no")
    assert "zoe" not in [e.name for e in list_speakers(config_of(folder), problems)] and list(problems) == ["zoe/x.wav"]


def test_one_speaker_only_is_refused_with_the_setting_that_may_mend_it(tmp_path, talk, problems):
    (tmp_path / "only").mkdir()
    for i in range(3):
        write_wav(tmp_path / "only" / f"{i}-x.wav", talk(i), 16_000)
    with pytest.raises(DataError) as caught:
        list_speakers(config_of(tmp_path), problems)
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


def test_sexes_are_read_from_a_table_beside_or_above(folder, problems):
    (folder / "SPEAKERS.TXT").write_text(";ID |SEX\nann-0 | F | train | 25 | Ann\nann-1| M |x\nann-2 | ? |\nbroken line\n")
    found = {e.name: e.sex for e in list_speakers(config_of(folder), problems)}
    assert (found["ann-0"], found["ann-1"], found["ann-2"], found["ann-3"]) == ("F", "M", "", "")
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    assert sources.read_sexes(inner) == {"ann-0": "F", "ann-1": "M"}


def test_banks_hold_the_speakers_of_their_split_and_no_more_than_asked(folder, problems):
    config = config_of(folder)
    entries = list_speakers(config, problems)
    banks = {split: load_bank(config, entries, split) for split in SPLITS}
    for split, bank in banks.items():
        assert [s.name for s in bank.speakers] == [e.name for e in entries if e.split == split]
        assert all(len(s.waves) == 2 for s in bank.speakers)
    little = load_bank(replace(config, max_hours=10 * 1.5 / 3_600), entries, "train")  # 1.5 s each: the first file is enough
    assert all(len(s.waves) == 1 for s in little.speakers)


def test_a_speaker_with_enough_is_not_read_on(folder, problems):
    entries = list_speakers(config_of(folder, max_hours=10 * 1.5 / 3_600), problems)
    assert all(len(e.files) == 1 for e in entries)


def test_fingerprints_notice_a_changed_folder(folder, talk):
    config = config_of(folder)
    before = sources.fingerprint_inputs(config)
    assert before == sources.fingerprint_inputs(config) and list(before) == [str(folder)]
    write_wav(folder / "ann-0" / "take2.wav", talk(0), 16_000)
    assert sources.fingerprint_inputs(config) != before and sources.fingerprint_inputs(SpeechConfig()) == {}


def test_voices_need_no_files(problems):
    config = SpeechConfig(num_voices=8, seconds_per_voice=2.0)
    entries = list_speakers(config, problems)
    assert len(entries) == 8 and {e.sex for e in entries} == {"F", "M"} and all(e.files == () for e in entries)
    one, again = (load_bank(config, entries, "test") for _ in range(2))
    assert len(one.speakers) == 2 and problems == {}
    for a, b in zip(one.speakers, again.speakers, strict=True):
        assert a.name == b.name and all(np.array_equal(x, y) for x, y in zip(a.waves, b.waves, strict=True))


def test_real_readings_are_listed_with_their_sexes(real_data, problems, tmp_path):
    mini = real_data / "librispeech-mini"
    for path in sorted(mini.glob("*.flac"))[:12]:
        (tmp_path / path.name).symlink_to(path.resolve())
    (tmp_path / "SPEAKERS.TXT").write_bytes((mini / "SPEAKERS.TXT").read_bytes())
    entries = list_speakers(config_of(tmp_path), problems)
    assert len(entries) == 12 and problems == {} and {e.sex for e in entries} == {"F", "M"}
    assert all(e.name == Path(e.files[0]).name.split("-")[0] for e in entries)
