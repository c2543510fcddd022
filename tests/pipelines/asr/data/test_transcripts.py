"""Transcripts beside audio files: whose words they are, whatever the table or file that holds them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colabkit.core.errors import DataError, UsageError
from tests.pipelines.asr.speech_files import NAMES, TEXTS, as_csv, texts_of, tsv, write_files


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
