"""Scanning files, tars and Parquet: every sample with its place and columns, what is no audio told, damage an error."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from colabkit.core.errors import DataError
from colabkit.io.places import Folder, Pinned
from colabkit.io.samples.index import CODECS, Entry
from colabkit.io.samples.parquet.values import ValueAddress, fetch_value
from colabkit.io.samples.scan import scan_file, scan_parquet, scan_tar

SCANS = {".tar": scan_tar, ".parquet": scan_parquet}


def audio(seed: int = 0, kind: str = "FLAC", frames: int = 1_600, rate_hz: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    wave = np.random.default_rng(seed).integers(-9_000, 9_000, frames).astype(np.int16)
    soundfile.write(
        buffer, wave, rate_hz, format=kind, subtype={"MP3": "MPEG_LAYER_III", "OGG": "VORBIS"}.get(kind, "PCM_16")
    )
    return buffer.getvalue()


def tar_of(files: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            content = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def parquet_of(audios: list, columns: dict[str, list] | None = None, **how) -> bytes:
    """The Hub's layout of audio: a struct of the file's bytes and its path."""
    rows = [None if a is None else {"bytes": a, "path": f"{i}.flac"} for i, a in enumerate(audios)]
    column = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"audio": column, **{n: pa.array(v) for n, v in (columns or {}).items()}}), buffer, **how)
    return buffer.getvalue()


class Found(list):
    """The entries of a scan, what was told, and the content scanned."""

    def __init__(self, entries: list[Entry], told: dict[str, str], content: bytes):
        super().__init__(entries)
        self.told, self.content = told, content

    def audio(self, number: int) -> bytes:
        e = self[number]
        address = ValueAddress(number, e.offset, e.length, e.codec, e.inflated, e.skip, e.size or e.length)
        return fetch_value(lambda start, stop: self.content[start:stop], address)


@pytest.fixture
def scan(tmp_path):
    """Return a function that writes a shard and scans it."""

    def run(content: bytes, name: str = "0.tar", **settings: str) -> Found:
        (tmp_path / name).write_bytes(content)
        store, told = Pinned(Folder(tmp_path)), {}
        (found,) = [o for o in store.list() if o.name == name]
        how = (settings,) if os.path.splitext(name)[1] in SCANS else ()
        scanner = SCANS.get(os.path.splitext(name)[1], scan_file)
        entries = list(scanner(store, found, *how, told.__setitem__))
        for entry in entries:
            assert entry.codec in CODECS and 0 <= entry.offset < entry.offset + entry.length <= len(content)
        found = Found(entries, told, content)
        assert all(zlib.crc32(found.audio(i)) == entry.crc32 for i, entry in enumerate(entries))
        return found

    return run


@pytest.mark.parametrize("kind, rate_hz", [("WAV", 8_000), ("FLAC", 44_100), ("OGG", 16_000), ("MP3", 24_000)])
def test_a_file_is_a_sample_named_as_it_is(scan, kind, rate_hz):
    (entry,) = scan(audio(kind=kind, rate_hz=rate_hz, frames=4_608), f"Zoë ç.1.{kind.lower()}")
    assert (
        entry.key == f"Zoë ç.1.{kind.lower()}"
        and entry.rate_hz == rate_hz
        and entry.columns == {}
        and entry.offset == 0
    )
    assert 4_608 <= entry.frames <= 4_608 + 2_304


@pytest.mark.parametrize(
    "content", [b"", b"no audio", audio()[:30], audio(kind="WAV")[:-900], audio(kind="WAV", frames=0)]
)
def test_what_is_no_audio_is_told_and_left_aside(scan, content):
    for found in (
        scan(content, "x.wav"),
        scan(tar_of({"x.wav": content, "y.wav": audio(kind="WAV")})),
        scan(parquet_of([content, audio()], {"id": ["x", "y"]}), "0.parquet"),
    ):
        assert [e.key for e in found] in ([], ["y"]) and len(found.told) == 1 and all(found.told.values())
        assert "x" in next(iter(found.told))


def test_files_of_one_key_belong_together_wherever_they_stand_in_the_tar(scan):
    found = scan(
        tar_of(
            {
                "b.json": '{"speaker": "bob", "extra": 1}',
                "a.flac": audio(1),
                "a.txt": "  hello Zoë\n",
                "a.spk": "ann",
                "b.flac": audio(2),
                "a.lang": "fr",
                "notes": "x",
                "b.rttm": "SPEAKER b 1 0 1 <NA> <NA> x <NA> <NA>",
            }
        )
    )
    assert (
        [e.key for e in found] == ["a", "b"]
        and found.told == {}
        and [found.audio(i) for i in (0, 1)] == [audio(1), audio(2)]
    )
    assert found[0].columns == {"speaker": "ann", "text": "hello Zoë", "language": "fr", "rttm": ""}
    assert found[1].columns == {
        "speaker": "bob",
        "text": "",
        "language": "",
        "rttm": "SPEAKER b 1 0 1 <NA> <NA> x <NA> <NA>",
    }


def test_keys_hold_dots_folders_and_the_endings_of_other_files(scan):
    keys = ["a", "a.b", "a.b.c", "d.1/a", "d.1/x.json", "d.1/x", "日本.話者", "A", "x.flac"]
    files = {f"{key}.flac": audio(i) for i, key in enumerate(keys)} | {
        f"{key}.json": json.dumps({"text": key}) for key in keys
    }
    found = scan(tar_of(dict(random.Random(0).sample(list(files.items()), len(files)))))
    assert {e.key: e.columns["text"] for e in found} == {key: key for key in keys} and found.told == {}


def test_endings_of_any_case_and_rubbish_that_looks_like_audio(scan):
    found = scan(
        tar_of(
            {
                "a.FLAC": audio(),
                "a.JSON": '{"speaker": "s"}',
                "._a.flac": b"Mac OS X  ",
                "dir/.flac": b"x",
                "b.opus": b"x",
            }
        )
    )
    assert [(e.key, e.columns) for e in found] == [("a", {"speaker": "s"})] and set(found.told) == {"._a", "b"}


def test_descriptions_that_are_strange_do_not_stop_the_scan(scan):
    found = scan(
        tar_of(
            {
                "a.flac": audio(),
                "a.json": "{no json",
                "b.flac": audio(),
                "b.json": "[1, 2]",
                "c.flac": audio(),
                "c.json": '{"speaker": 5, "text": null, "id": "new", "gender": {"a": "é"}, "timestamps_start": [1]}',
                "d.flac": audio(),
                "d.txt": b"\xff\xfe",
                "nobody.json": '{"speaker": "x"}',
                "e.json": "5",
            }
        )
    )
    assert set(found.told) == {"a.json"} and [e.key for e in found] == ["a", "b", "new", "d"]
    assert (
        found[2].columns == {"speaker": "5", "text": "", "sex": '{"a": "é"}'}
        and found[3].columns["text"] == "\ufffd\ufffd"
    )


def test_who_spoke_when_comes_from_rttm_and_from_lists_in_json(scan):
    lists = {"timestamps_start": [0.0, 1.5], "timestamps_end": [1.0, 2.0], "speakers": ["a", 7]}
    found = scan(
        tar_of(
            {
                "a.flac": audio(),
                "a.json": json.dumps(lists),
                "b.flac": audio(),
                "c.flac": audio(),
                "c.json": json.dumps(lists | {"speakers": ["a"]}),
            }
        )
    )
    assert json.loads(found[0].columns["turns"]) == [[0.0, 1.0, "a"], [1.5, 2.0, "7"]]
    assert set(found.told) == {"c"} and found[1].columns == {} == found[2].columns


@pytest.mark.parametrize("name", ["0.tar", "0.parquet"])
def test_a_column_of_the_settings_is_used_and_one_that_is_missing_told(scan, name):
    def shard(**columns):
        if name.endswith("tar"):
            return tar_of({"a.flac": audio(), "a.json": json.dumps(columns)})
        return parquet_of([audio()], {n: [v] for n, v in columns.items()})

    (entry,) = scan(shard(who="ann", speaker="x"), name, speaker="who")
    assert entry.columns["speaker"] == "ann"
    with pytest.raises(DataError) as caught:
        scan(shard(client_id="ann"), name, speaker="clientid")
    assert "did you mean speaker=client_id" in caught.value.fix
    with pytest.raises(DataError):
        scan(shard(), name, speaker="who")


def test_a_tar_without_any_good_audio_is_no_reason_to_ask_for_columns(scan):
    found = scan(tar_of({"a.flac": b"no", "a.json": '{"x": 1}'}), speaker="who")
    assert found == [] and set(found.told) == {"a"}


def test_a_damaged_tar_is_told_with_its_name(scan, tmp_path):
    content = tar_of({f"{i}.flac": audio(i) for i in range(3)})
    for broken in (content[:3_000], content[:-10_240], b"?" + content[1:], b"", gzip.compress(content)):
        with pytest.raises(DataError) as caught:
            scan(broken)
        assert "0.tar" in str(caught.value.where) and str(tmp_path) in str(caught.value.where) and caught.value.fix


CODECS_OF_ARROW = ["none", "snappy", "zstd", "gzip", "lz4", "brotli"]


@pytest.mark.parametrize("codec", CODECS_OF_ARROW)
@pytest.mark.parametrize(
    "how", [{}, {"row_group_size": 3}, {"use_dictionary": False, "data_page_version": "2.0"}], ids=str
)
def test_parquet_rows_of_the_hubs_layout(scan, codec, how):
    audios = [audio(i) for i in range(8)] + [audio(0)]
    columns = {
        "id": [f"é-{i}" for i in range(9)],
        "speaker_id": [*range(8), None],
        "text": [f"«{i}»" for i in range(8)] + [None],
        "unused": [0.5] * 9,
    }
    found = scan(parquet_of(audios, columns, compression=codec, **how), "0.parquet")
    assert [e.key for e in found] == columns["id"] and [found.audio(i) for i in range(9)] == audios and found.told == {}
    assert found[3].columns == {"speaker": "3", "text": "«3»"} and found[8].columns == {"speaker": "", "text": ""}
    assert {e.codec for e in found} == {"" if codec == "none" else codec}


def test_rows_without_audio_are_told_and_the_others_keep_their_columns(scan):
    columns = {"id": ["a", "b", "c", "d"], "text": ["1", "2", "3", "4"]}
    found = scan(parquet_of([audio(0), None, b"", audio(1)], columns), "0.parquet")
    assert [(e.key, e.columns["text"]) for e in found] == [("a", "1"), ("d", "4")] and set(found.told) == {"b", "c"}
    assert [found.audio(i) for i in (0, 1)] == [audio(0), audio(1)]


def test_rows_without_a_key_are_named_by_file_and_place(scan):
    assert [e.key for e in scan(parquet_of([audio(0), audio(1)]), "en.1.parquet")] == ["en.1/0", "en.1/1"]
    assert [e.key for e in scan(parquet_of([audio(0), audio(1)], {"id": ["", None]}), "x.parquet")] == ["x/0", "x/1"]


def test_audio_in_a_plain_binary_column(scan):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"sound": pa.array([audio(0), audio(1)], pa.large_binary()), "id": [1, 2]}), buffer)
    found = scan(buffer.getvalue(), "0.parquet", audio="sound")
    assert [e.key for e in found] == ["1", "2"] and found.audio(1) == audio(1)


def test_turns_in_lists_become_one_column(scan):
    columns = {
        "timestamps_start": [[0.0, 0.05], [], [0.0], None],
        "timestamps_end": [[0.04, 0.09], [], [0.0, 1.0], [1.0]],
        "speakers": [["a", "b"], [], ["x"], ["x"]],
    }
    found = scan(parquet_of([audio(i) for i in range(4)], columns), "0.parquet")
    turns = [json.loads(e.columns.get("turns") or "null") for e in found]
    assert turns == [[[0.0, 0.04, "a"], [0.05, 0.09, "b"]], [], None, None]
    assert set(found.told) == {"0/2"} and not {"turn_starts", "turn_ends", "turn_speakers"} & set(found[0].columns)


@pytest.mark.parametrize(
    "columns", [{"text": ["a"]}, {"audio": ["path.wav"]}, {"audio": [[1.0, 2.0]]}, {"audio": [{"path": "x"}]}]
)
def test_parquet_without_audio_is_refused_with_what_it_holds(scan, columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table({n: pa.array(v) for n, v in columns.items()}), buffer)
    with pytest.raises(DataError) as caught:
        scan(buffer.getvalue(), "0.parquet")
    assert "0.parquet" in str(caught.value.where) and next(iter(columns)) in str(caught.value.got)


def test_parquet_cut_short_or_no_parquet_at_all_is_told(scan):
    content = parquet_of([audio(i) for i in range(3)], {"id": ["a", "b", "c"]})
    cut = [content[:size] for size in range(4, len(content), 997)]
    for broken in [b"", b"PAR1", b"no", bytes(500), content[:-1], content[1:], *cut]:
        with pytest.raises(DataError) as caught:
            scan(broken, "0.parquet")
        assert "0.parquet" in str(caught.value.where) and caught.value.fix


@pytest.mark.parametrize("seed", range(4))
def test_damage_to_the_small_columns_is_told(scan, seed):
    rng = random.Random(seed)
    columns = {"id": [f"key {i}" for i in range(300)], "text": [f"words {i % 7}" for i in range(300)]}
    content = parquet_of([audio(0, frames=100)] * 300, columns, compression=rng.choice(["none", "snappy", "zstd"]))
    metadata = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    places = [metadata.column(i) for i in range(metadata.num_columns) if metadata.column(i).path_in_schema in columns]
    told = 0
    for _ in range(25):
        broken, place = bytearray(content), rng.choice(places)
        for _ in range(3):
            broken[
                (place.dictionary_page_offset or place.data_page_offset) + rng.randrange(place.total_compressed_size)
            ] ^= 0xFF
        try:
            assert len(scan(bytes(broken), "0.parquet")) == 300
        except DataError as error:
            told += 1
            assert "0.parquet" in str(error.where) and error.fix
    assert told
