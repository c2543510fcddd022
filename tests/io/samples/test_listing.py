"""Samples of several sources: known without reading, waves at the rate asked for, opened again; split by a hash."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import ColabkitError, DataError
from colabkit.io.audio import read_audio
from colabkit.io.samples import Samples
from colabkit.io.samples.index import FILE_NAME, SampleIndex, Text
from colabkit.io.samples.listing import (
    PLACES,
    SPLITS,
    Listing,
    Split,
    describe,
    open_listing,
    open_sources,
    split_names,
    write_listing,
)
from colabkit.io.samples.shards import ShardWriter, flac_bytes

NUM = 4  # samples a source


def content(source: int, number: int) -> bytes:
    tone = 0.3 * np.sin(2 * np.pi * (200 + 40 * source + 10 * number) * np.arange(8_000 + 800 * number) / 16_000)
    return flac_bytes(tone.astype(np.float32), 16_000)


@pytest.fixture
def addresses(tmp_path):
    """Two folders with shards; the second does not say who speaks."""
    for source in range(2):
        with ShardWriter(tmp_path / f"source{source}") as writer:
            for number in range(NUM):
                writer.add(
                    f"{source}-{number}",
                    content(source, number),
                    ".flac",
                    {"text": f"text {source} {number}"} | ({"speaker": f"p{number}"} if source == 0 else {}),
                )
    return [str(tmp_path / f"source{source}") for source in range(2)]


@pytest.fixture
def written(addresses, tmp_path):
    """Return a listing, the folder it was written to, and where each of its splits' samples come from."""
    indexes = [SampleIndex.load(f"{a}/{FILE_NAME}").at(a) for a in addresses]
    samples = [Samples(index) for index in indexes]
    places = {"train": [(0, 2), (1, 3), (0, 0), (1, 1)], "validation": [(1, 0)], "test": [(0, 1), (0, 3), (1, 2)]}
    splits = {name: Split(name, samples, *np.array(places[name], np.int64).T, rate_hz=16_000) for name in SPLITS}
    listing = Listing(splits, describe(addresses, indexes), {"it is too short": 3})
    folder = tmp_path / "run"
    folder.mkdir()
    write_listing(folder, listing, indexes)
    return listing, folder, places


def test_a_split_tells_names_texts_speakers_and_lengths_of_both_sources(written):
    listing, _, places = written
    for name, split in listing.splits.items():
        assert split.names.to_list() == [f"{s}-{n}" for s, n in places[name]]
        assert split.texts.to_list() == [f"text {s} {n}" for s, n in places[name]]
        assert split.speakers == ["" if s else f"0:p{n}" for s, n in places[name]]
        assert split.seconds.tolist() == [(8_000 + 800 * n) / 16_000 for _, n in places[name]]
        assert split.stored_bytes == sum(len(content(*place)) for place in places[name])
        assert all(f"{s}-{n}" in split.where(i) for i, (s, n) in enumerate(places[name]))
    assert listing.hours["test"] == listing["test"].hours == pytest.approx(listing["test"].seconds.sum() / 3600)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000])
def test_waves_come_at_the_rate_that_the_pipeline_tells(written, rate_hz):
    _, folder, places = written
    split = open_listing(folder, rate_hz=rate_hz)["train"]
    for i, place in enumerate(places["train"]):
        assert np.array_equal(split.read_wave(i), read_audio(content(*place), rate_hz=rate_hz))
    assert np.array_equal(split.take([3]).read_wave(0), split.read_wave(3))


def test_it_is_opened_again_wherever_the_folder_is(written):
    listing, folder, _ = written
    moved = folder.rename(folder.with_name("moved"))
    again = open_listing(moved, rate_hz=16_000)
    assert again.fingerprint == listing.fingerprint and list(again) == list(SPLITS)
    assert again.described == listing.described and again.left_aside == {"it is too short": 3}
    assert np.array_equal(again.read_wave("test", 2), listing.read_wave("test", 2))


def test_some_of_a_split_keep_what_was_given_for_them(written):
    whole = written[0]["train"]
    named = Split(
        "all", whole.samples, whole.sources, whole.numbers, rate_hz=16_000, texts=Text.of("abcd"), speakers="wxyz"
    )
    some = named.take([2, 0], name="few")
    assert some.texts.to_list() == ["c", "a"] and some.speakers == ["y", "w"] and some.name == "few"
    assert named.take([1], Text.of(["other"])).texts.to_list() == ["other"] and named.take([1]).name == "all"
    assert len({s.fingerprint for s in (whole, named, some, named.take([0, 2]))}) == 4


def test_sources_are_described_and_opened_one_by_one(written, addresses):
    listing, folder, _ = written
    assert [d["source"] for d in listing.described] == addresses and [d["samples"] for d in listing.described] == [
        NUM,
        NUM,
    ]
    opened = open_sources(folder, listing.described)
    assert [s.index.fingerprint for s in opened] == [d["fingerprint"] for d in listing.described]
    assert opened[1].read_bytes(3) == content(1, 3)


def test_what_is_damaged_or_belongs_to_another_listing_is_refused(written):
    listing, folder, _ = written
    whole = (folder / PLACES).read_bytes()
    for broken in (whole[:-9], b"", b"no"):
        (folder / PLACES).write_bytes(broken)
        with pytest.raises(DataError, match="damaged"):
            open_listing(folder, rate_hz=16_000)
    smaller = listing.replace({"test": listing["test"].take([0])})
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    write_listing(elsewhere, smaller, [s.index for s in listing["train"].samples])
    (folder / PLACES).write_bytes((elsewhere / PLACES).read_bytes())
    with pytest.raises(DataError, match="damaged"):
        open_listing(folder, rate_hz=16_000)
    (folder / PLACES).unlink()
    with pytest.raises(ColabkitError):
        open_listing(folder, rate_hz=16_000)


SHARES = {"test_fraction": 0.2, "validation_fraction": 0.1, "seed": 0}


def counts_of(splits: dict[str, str]) -> dict[str, int]:
    return {split: list(splits.values()).count(split) for split in SPLITS}


@pytest.mark.parametrize("number", [3, 4, 7, 10, 40, 251, 399, 400, 5_000])
def test_every_split_gets_its_share(number):
    counts = counts_of(split_names([f"n{i}" for i in range(number)], **SHARES))
    assert sum(counts.values()) == number and min(counts.values()) >= 1
    assert counts["test"] == pytest.approx(0.2 * number, abs=1 + 0.03 * number)


def test_small_sets_keep_a_minimum():
    assert counts_of(split_names([f"n{i}" for i in range(8)], at_least=2, **SHARES)) == {
        "train": 4,
        "validation": 2,
        "test": 2,
    }


def test_a_share_of_zero_leaves_its_split_empty():
    for number in (9, 900):
        counts = counts_of(
            split_names([f"n{i}" for i in range(number)], test_fraction=0.0, validation_fraction=0.1, seed=0)
        )
        assert counts["test"] == 0 < counts["validation"] < counts["train"]


def test_names_and_seed_alone_decide():
    names = [f"n{i}" for i in range(50)]
    assert split_names(names, **SHARES) == split_names([*names[::-1], "n3"], **SHARES)
    assert split_names(names, **SHARES) != split_names(names, **{**SHARES, "seed": 1})


def test_a_name_added_to_a_large_set_moves_no_other():
    names = [f"n{i}" for i in range(500)]
    before, after = split_names(names, **SHARES), split_names([*names, "new"], **SHARES)
    assert all(after[name] == before[name] for name in names)
