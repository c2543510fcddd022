"""The sample index: what went in comes back, any damage is an error, and the fingerprint covers the content alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from colabkit.core.errors import ChangedError, ColabkitError, DataError
from colabkit.io.samples.index import _ARRAYS, CODECS, FILE_NAME, VERSION, Entry, SampleIndex, Shard, Text

STRANGE = ["", "a", "Zoë/ça va.1", "日本語\n話者", "x" * 70_000, "\udcff\udc80 latin", "nul\0inside", "🎤"]


def entry(number: int = 0, **how) -> Entry:
    given = {
        "key": f"key {number}",
        "shard": 0,
        "offset": 512 * number,
        "length": 100 + number,
        "frames": 16_000 + number,
        "rate_hz": 16_000,
        "crc32": 0xFFFF_FFFF - number,
        "columns": {"speaker": f"s{number % 3}"},
    }
    return Entry(**given | how)


def index_of(*entries: Entry, address: str = "/data", num_shards: int = 1) -> SampleIndex:
    return SampleIndex.of(address, [Shard(f"{i:05d}.tar", 10_000 + i, f"etag-{i}") for i in range(num_shards)], entries)


def large() -> SampleIndex:
    """Every codec, sizes beyond 32 bit, strange names in all places that hold names."""
    entries = [
        entry(
            i,
            key=f"{i}{text}",
            shard=i % 2,
            codec=CODECS[i % len(CODECS)],
            offset=(5 << 30) + i,
            inflated=i * 7,
            skip=i,
            size=i * 3,
            columns={"speaker": text, "text": text[::-1]} if i % 3 else {},
        )
        for i, text in enumerate(STRANGE * 2)
    ]
    return SampleIndex.of("s3://bucket/préfixe", [Shard("ä/\udcff.tar", 1 << 40, "v"), Shard("b.tar", 0, "")], entries)


def same(a: SampleIndex, b: SampleIndex) -> bool:
    return (
        (a.address, a.shards, a.keys.to_list()) == (b.address, b.shards, b.keys.to_list())
        and {n: t.to_list() for n, t in a.columns.items()} == {n: t.to_list() for n, t in b.columns.items()}
        and all(np.array_equal(a.arrays[n], b.arrays[n]) and b.arrays[n].dtype == kind for n, kind in _ARRAYS.items())
        and len(a) == len(b)
        and a.fingerprint == b.fingerprint
    )


@pytest.mark.parametrize(
    "index",
    [
        index_of(num_shards=0),
        index_of(),
        index_of(entry()),
        index_of(entry(columns={})),
        index_of(entry(frames=0, rate_hz=0, crc32=0, length=0)),
        large(),
    ],
    ids=["nothing", "empty", "one", "no columns", "zeros", "large"],
)
def test_what_is_saved_comes_back(index, tmp_path):
    again = SampleIndex.from_bytes(index.to_bytes(), "memory")
    assert same(index, again) and again.to_bytes() == index.to_bytes()
    index.save(tmp_path / FILE_NAME)
    assert same(index, SampleIndex.load(tmp_path / FILE_NAME))


def test_texts_are_what_they_were():
    assert Text.of(STRANGE).to_list() == list(Text.of(STRANGE)) == STRANGE and len(Text.of([])) == 0
    assert Text.of(STRANGE).take(np.array([3, 0, 3])).to_list() == [STRANGE[3], "", STRANGE[3]]


def test_of_a_plain_sample_the_size_is_what_is_stored_and_of_a_packed_one_what_comes_out():
    index = index_of(entry(0, length=77), entry(1, codec="zstd", length=77, inflated=500, skip=20, size=300))
    assert index.arrays["size"].tolist() == [77, 300] and index.arrays["codec"].tolist() == [0, CODECS.index("zstd")]


def test_the_places_of_codecs_are_what_files_hold_and_stay():
    assert CODECS == ("", "snappy", "zstd", "gzip", "lz4", "brotli")
    with pytest.raises(ValueError):
        index_of(entry(codec="lzo"))


def test_durations_count_each_sample_at_its_own_rate_and_an_unknown_rate_breaks_nothing():
    index = index_of(
        entry(frames=48_000, rate_hz=48_000), entry(frames=8_000, rate_hz=16_000), entry(frames=0, rate_hz=0)
    )
    assert index.seconds.tolist() == [1.0, 0.5, 0.0] and index.hours == pytest.approx(1.5 / 3_600)
    assert index_of().hours == 0 and index_of().seconds.shape == (0,)


def test_truncation_anywhere_is_told_and_never_another_index():
    content = index_of(*map(entry, range(5))).to_bytes()
    for size in range(0, len(content), 3):
        with pytest.raises(DataError) as caught:
            SampleIndex.from_bytes(content[:size], "some/index")
        assert caught.value.where == "some/index" and "delete" in caught.value.fix


def test_a_flipped_byte_gives_an_error_to_act_on_or_an_index_of_as_many_samples():
    index = index_of(*map(entry, range(3)))
    content = index.to_bytes()
    for place in range(len(content)):
        broken = bytearray(content)
        broken[place] ^= 0x55
        try:
            found = SampleIndex.from_bytes(bytes(broken), "x")
        except ColabkitError as error:
            assert error.fix
        else:
            assert len(found) == len(found.arrays["frames"]) == 3


def test_random_bytes_and_other_files_are_no_index(tmp_path):
    from safetensors.numpy import save

    rng = np.random.default_rng(0)
    others = [rng.bytes(int(n)) for n in rng.integers(0, 300, 200)]
    others += [
        save({"a": np.zeros(3)}),
        save({"a": np.zeros(3)}, {"colabkit": "no JSON"}),
        save({}, {"colabkit": "[]"}),
        b"\xff" * 8 + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        b"version https://git-lfs.github.com/spec/v1\n" * 3,
    ]
    for content in others:
        with pytest.raises(DataError) as caught:
            SampleIndex.from_bytes(content, "x")
        assert caught.value.fix
    with pytest.raises(ColabkitError):
        SampleIndex.load(tmp_path / "missing.safetensors")


def rewritten(index: SampleIndex, **header) -> bytes:
    """Return the index with some fields of its header replaced, or left out where they are None."""
    from safetensors.numpy import load, save

    content = index.to_bytes()
    length = int.from_bytes(content[:8], "little")
    old = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["colabkit"])
    new = {name: value for name, value in (old | header).items() if value is not None}
    return save(load(content), {"colabkit": json.dumps(new)})


@pytest.mark.parametrize("version", [0, VERSION + 1, "1", None])
def test_another_version_is_told_with_the_way_out(version):
    with pytest.raises(ChangedError) as caught:
        SampleIndex.from_bytes(rewritten(index_of(entry()), version=version), "here")
    assert "delete" in caught.value.fix and caught.value.where == "here" and str(VERSION) in caught.value.expected


@pytest.mark.parametrize(
    "header",
    [
        {"num_samples": None},
        {"num_samples": 7},
        {"num_samples": "x"},
        {"shards": [["a"]]},
        {"shards": []},
        {"columns": ["speaker", "other"]},
        {"shards": None},
        {"address": None},
        {"columns": None},
    ],
)
def test_a_header_that_does_not_fit_its_arrays_is_damage(header):
    with pytest.raises(DataError) as caught:
        SampleIndex.from_bytes(rewritten(index_of(*map(entry, range(3))), **header), "here")
    assert caught.value.where == "here"


def test_the_fingerprint_does_not_depend_on_where_the_data_lies():
    entries = list(map(entry, range(4)))
    moved = [replace(e, offset=e.offset + 512) for e in entries]  # the same files behind a larger tar header
    assert (
        index_of(*entries).fingerprint
        == index_of(*entries, address="gs://other/place").fingerprint
        == index_of(*moved).fingerprint
    )
    index = index_of(*entries)
    index.shards = (replace(index.shards[0], version="another etag"),)
    assert index.fingerprint == index_of(*entries).fingerprint


@pytest.mark.parametrize(
    "field, value",
    [
        ("key", "other"),
        ("shard", 1),
        ("length", 999),
        ("frames", 1),
        ("rate_hz", 8_000),
        ("crc32", 1),
        ("columns", {"speaker": "x"}),
        ("columns", {"sex": "s1"}),
        ("columns", {}),
    ],
)
def test_the_fingerprint_notices_every_change_of_content(field, value):
    before = [entry(i) for i in range(3)]
    after = [*before[:1], replace(before[1], **{field: value}), before[2]]
    assert index_of(*after, num_shards=2).fingerprint != index_of(*before, num_shards=2).fingerprint


def test_the_fingerprint_notices_order_number_and_names_of_shards():
    a, b = entry(0), entry(1)
    prints = {
        index_of(a, b).fingerprint,
        index_of(b, a).fingerprint,
        index_of(a).fingerprint,
        index_of(a, b, b).fingerprint,
        index_of().fingerprint,
        index_of(num_shards=0).fingerprint,
        SampleIndex.of("/data", [Shard("other.tar", 10_000, "etag-0")], [a, b]).fingerprint,
    }
    assert len(prints) == 7
    moved = [replace(a, key="ab", columns={}), replace(b, key="c", columns={})]
    assert index_of(*moved).fingerprint != index_of(replace(moved[0], key="a"), replace(moved[1], key="bc")).fingerprint


def test_taking_and_joining_keep_each_sample_whole():
    index = large()
    parts = [index.take(np.arange(start, min(start + 5, len(index)))) for start in range(0, len(index), 5)]
    joined = SampleIndex.join("elsewhere", parts)
    assert joined.address == "elsewhere" and len(joined.shards) == 2 * len(parts) and len(joined) == len(index)
    assert joined.keys.to_list() == index.keys.to_list() and joined.column("text") == index.column("text")
    for i in range(len(index)):
        assert joined.shards[joined.arrays["shard"][i]] == index.shards[index.arrays["shard"][i]]
    order = np.random.default_rng(0).permutation(len(index))
    assert same(index.take(order).take(np.argsort(order)), index)
    assert len(index.take(np.zeros(0, np.int64))) == 0
    mask = np.arange(len(index)) % 3 == 0
    assert same(index.take(mask), index.take(np.flatnonzero(mask)))
    assert index.take(np.array([3, 3])).keys.to_list() == [index.keys[3]] * 2


def test_the_same_shards_elsewhere_are_the_same_index_at_another_address():
    index = large()
    moved = index.at("gs://other")
    assert (
        moved.address == "gs://other"
        and same(moved.at(index.address), index)
        and moved.fingerprint == index.fingerprint
    )
    moved.columns["new"] = moved.columns["text"]
    assert "new" not in index.columns


def test_joined_parts_without_a_column_have_it_empty_and_parts_without_samples_do_no_harm():
    joined = SampleIndex.join(
        "x", [index_of(entry(0)), index_of(), index_of(entry(1, columns={"sex": "F"}), num_shards=2)]
    )
    assert joined.column("speaker") == ["s0", ""] and joined.column("sex") == ["", "F"]
    assert joined.arrays["shard"].tolist() == [0, 2] and len(joined.shards) == 4
    assert same(SampleIndex.from_bytes(joined.to_bytes(), "x"), joined)


def test_a_column_that_is_missing_is_told_with_those_that_are_there():
    with pytest.raises(DataError) as caught:
        index_of(entry()).column("sex")
    assert "speaker" in str(caught.value.got) and "sex=" in caught.value.fix and caught.value.where == "/data"


def test_an_index_taken_apart_is_put_together_the_same():
    index = large()
    assert same(SampleIndex.of(index.address, index.shards, index.entries()), index)
    assert list(index_of(entry(3)).entries()) == [entry(3, size=103)]
    assert list(index_of().entries()) == []
