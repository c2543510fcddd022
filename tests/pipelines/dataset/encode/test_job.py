"""From a source of segments to committed codes: everything once, and right."""

from __future__ import annotations

import json

import numpy as np
import pytest

from colabkit.core.errors import UsageError
from colabkit.pipelines.dataset.store.commit import read_codes
from tests.pipelines.dataset.encode.small_codec import SmallCodec, fill, make_wave
from tests.pipelines.dataset.encode.small_store import Place, same


def test_all_is_encoded_once_and_then_skipped(place):
    expected = fill(place.source, 120)
    codec = SmallCodec()
    done = place.encode(codec)
    assert done.is_finished and done.num_encoded == done.num_items == done.num_done == 120 and not place.problems
    assert same(place.codes(), expected)
    assert sum(n for _, n in codec.encoded) == 120
    assert done.num_pieces == done.num_pieces_done > 5
    assert done.most_bytes_used <= 8 << 20
    rows = [row for _, table in read_codes(place.store) for row in table.to_pylist()]
    assert [row["key"] for row in rows] == sorted(expected)
    assert rows[7]["speaker"] and rows[7]["text"].startswith("text ") and rows[7]["object"] == rows[7]["key"] + ".npz"
    assert not list((place.scratch / "spool").iterdir())
    record = json.loads((place.scratch / "progress.json").read_text())
    assert record["items_done"] == 120 and record["items_failed"] == 0 and record["batches_done"] == len(codec.encoded)

    place.store.counts.clear()
    again = place.encode(codec)
    assert again.is_finished and again.num_encoded == 0 and again.num_done == 120
    assert sum(n for _, n in codec.encoded) == 120 and not place.store.counts["put"]
    assert sum(place.store.counts.values()) <= 3  # the manifest, no upload's manifest, the listing


def test_codes_of_two_runs_are_the_same_bytes(tmp_path):
    first, second = Place(tmp_path / "a"), Place(tmp_path / "b")
    for place, settings in ((first, {}), (second, {"quota_bytes": 3 << 20, "num_downloads": 1})):
        fill(place.source, 60)
        place.encode(**settings)
    names = [name for name in first.store.content if name.endswith(".parquet")]
    assert len(names) > 3
    for name in names:
        if "/plan/" not in name:
            assert first.store.content[name][0] == second.store.content[name][0], name


def test_what_breaks_the_codec_alone_is_left_aside(place):
    expected = fill(place.source, 40, shortest=5000, longest=5001)
    bad = make_wave(7, 5000)

    def before(waves):
        if any(np.array_equal(wave, bad) for wave in waves):
            raise RuntimeError("cannot")

    done = place.encode(SmallCodec(before=before))
    key = next(key for key in expected if key.endswith("00007"))
    assert done.num_left_aside == 1 and "the codec fails" in place.problems[key]
    del expected[key]
    assert same(place.codes(), expected)


def test_a_device_out_of_memory_halves_the_batches(place):
    expected = fill(place.source, 80, shortest=8000, longest=8001)
    largest = []

    def before(waves):
        if len(waves) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        largest.append(len(waves))

    done = place.encode(SmallCodec(before=before))
    assert done.num_encoded == 80 and max(largest) <= 3 and same(place.codes(), expected)
    assert any("out of memory" in text for text in place.said)


def test_a_quota_too_small_says_how_much_is_needed(place):
    fill(place.source, 60)
    with pytest.raises(UsageError, match="quota can hold nothing useful") as caught:
        place.encode(quota_bytes=100_000)
    least_gib = float(caught.value.fix.split("--set encode.quota_gib=")[1].split()[0])
    assert place.encode(quota_bytes=int(least_gib * 2**30)).is_finished


def test_the_quota_is_chosen_with_a_reason(place):
    fill(place.source, 30)
    assert place.encode(quota_bytes=None).is_finished
    value, reason = place.choices["quota_bytes"]
    assert 1 << 20 < value < 64 << 20 and "are free in the disk of" in reason
