"""Roles of columns: settings before what is known of a dataset before the usual names; wrong names are told."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.samples.columns import known_dataset, match_columns, parse_columns

TABLE = json.loads((files("colabkit.io.samples") / "datasets.json").read_text(encoding="utf-8"))
USED_ROLES = {
    "audio",
    "key",
    "speaker",
    "sex",
    "text",
    "language",
    "rttm",
    "turns",
    "turn_starts",
    "turn_ends",
    "turn_speakers",
}


def test_settings_are_roles_and_columns():
    assert parse_columns(()) == {}
    assert parse_columns(("speaker=client_id", "turn_starts=begin")) == {"speaker": "client_id", "turn_starts": "begin"}
    assert parse_columns(["text=a=b", "key=Zoë x", "speaker=a", "speaker=b"]) == {
        "text": "a=b",
        "key": "Zoë x",
        "speaker": "b",
    }


@pytest.mark.parametrize(
    "setting, hint",
    [
        ("speeker=x", "speaker=x"),
        ("turn_start=x", "turn_starts=x"),
        ("speaker", "speaker"),
        ("speaker=", "speaker"),
        ("=x", "speaker="),
        ("", "speaker="),
        ("zzz=x", "speaker="),
    ],
)
def test_a_setting_that_cannot_be_read_is_told_with_the_nearest_role(setting, hint):
    with pytest.raises(UsageError) as caught:
        parse_columns((setting,))
    assert hint in caught.value.fix and caught.value.got == setting and "ROLE=COLUMN" in caught.value.expected


def test_usual_names_are_found_in_the_order_of_the_table():
    present = ["audio", "text", "gender", "speaker", "speaker_id", "unknown", "sentence"]
    assert match_columns(present, "/data", {}) == {
        "audio": "audio",
        "text": "text",
        "sex": "gender",
        "speaker": "speaker_id",
    }
    assert match_columns([], "/data", {}) == {} and match_columns(["x", "y"], "/data", {}) == {}
    assert match_columns(iter(["flac", "json"]), "/data", {}) == {"audio": "flac"}


@pytest.mark.parametrize("role", TABLE["roles"])
def test_every_usual_name_of_every_role_is_found(role):
    for name in TABLE["roles"][role]:
        assert match_columns([name], "/data", {})[role] == name


def test_settings_win_over_everything():
    known = "hub:fixie-ai/common_voice_17_0/en/train"
    present = ["audio", "client_id", "path", "sentence", "speaker", "gender"]
    assert match_columns(present, known, {})["speaker"] == "client_id"
    assert match_columns(present, "/data", {})["speaker"] == "client_id"
    assert match_columns(present, known, {"speaker": "speaker"})["speaker"] == "speaker"
    assert match_columns(present, known, {"key": "sentence"})["key"] == "sentence"


def test_what_is_known_of_a_dataset_wins_over_the_usual_names_where_it_is_there():
    present = ["audio", "id", "audio_id", "speaker_id", "text"]
    assert match_columns(present, "hub:edinburghcstr/ami@0123abc", {})["key"] == "audio_id"
    assert match_columns(present, "hub:other/ami", {})["key"] == "id"
    assert match_columns(["audio", "id"], "hub:edinburghcstr/ami", {})["key"] == "id"


@pytest.mark.parametrize(
    "present, wanted, hint",
    [
        (["audio", "client_id"], "clientid", "did you mean speaker=client_id?"),
        (["audio", "spk"], "spk_id", "did you mean speaker=spk?"),
        (["audio"], "zzzz", "name one of them"),
        ([], "x", "name one of them"),
    ],
)
def test_a_column_that_is_missing_is_told_with_the_nearest(present, wanted, hint):
    with pytest.raises(DataError) as caught:
        match_columns(present, "/data/here", {"speaker": wanted})
    error = caught.value
    assert hint in error.fix and wanted in error.what and "speaker" in error.expected and error.where == "/data/here"
    assert all(name in error.got for name in present)


GONE = [e for e in TABLE["datasets"] if "gone" in e]


@pytest.mark.parametrize(
    "address",
    [
        "hub:mozilla-foundation/common_voice_17_0/en/train",
        "hub:mozilla-foundation/common_voice_11_0",
        "hub:mozilla-foundation/common_voice_13_0/de@main",
        "hub:ProgramComputer/voxceleb",
        "hub:ProgramComputer/voxceleb/train@0123",
    ],
)
def test_datasets_that_are_gone_are_refused_with_what_to_use_instead(address):
    with pytest.raises(UsageError) as caught:
        known_dataset(address)
    assert caught.value.fix.startswith("use hub:") and caught.value.got == address and caught.value.expected


def test_what_is_to_be_used_instead_is_not_gone_itself():
    assert len(GONE) >= 2
    for entry in GONE:
        for word in entry["instead"].replace(",", " ").split():
            if word.startswith("hub:"):
                assert known_dataset(word)


@pytest.mark.parametrize(
    "address, match",
    [
        ("hub:openslr/librispeech_asr/clean/train.100", "hub:openslr/librispeech_asr"),
        ("hub:talkbank/callhome/eng/data", "hub:talkbank/*"),
        ("hub:openslr/librispeech_asr@71cacbfb7e2354c4226d01e70d77d5fca3d04ba1", "hub:openslr/librispeech_asr"),
        ("hub:diarizers-community/ami/sdm/train@refs/convert/parquet", "hub:diarizers-community/ami"),
    ],
)
def test_known_datasets_are_found_by_address_with_parts_and_revisions(address, match):
    assert known_dataset(address)["match"] == match


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/data/openslr/librispeech_asr",
        "hub:openslr/librispeech_asr_2",
        "hub:openslr/librispeech",
        "s3://openslr/librispeech_asr",
        "hub:me/hub:openslr/librispeech_asr",
        "hub:OPENSLR/librispeech_asr",
    ],
)
def test_other_addresses_are_not_known(address):
    assert known_dataset(address) == {}


def test_the_table_is_well_formed():
    assert set(TABLE) == {"roles", "datasets"} and set(TABLE["roles"]) == USED_ROLES
    names = [name for aliases in TABLE["roles"].values() for name in aliases]
    assert len(names) == len(set(names)) and all(name == name.strip() and name for name in names)
    matches = [entry["match"] for entry in TABLE["datasets"]]
    assert len(matches) == len(set(matches))
    for entry in TABLE["datasets"]:
        assert set(entry) <= {"match", "columns", "licence", "note", "gone", "instead", "gated"}
        assert entry["match"].startswith("hub:") and entry["match"].count("/") <= 1
        assert set(entry.get("columns", {})) <= USED_ROLES and ("gone" in entry) == ("instead" in entry)
        assert all(isinstance(v, str) and v for k, v in entry.items() if k not in ("columns", "gated"))
        assert all(isinstance(column, str) and column for column in entry.get("columns", {}).values())


def test_the_entries_of_the_table_do_not_hide_each_other():
    for entry in TABLE["datasets"]:
        address = entry["match"].replace("*", "anything")
        if "gone" not in entry:
            assert (
                known_dataset(address) is known_dataset(address + "/config/split@main")
                and known_dataset(address) == entry
            )
