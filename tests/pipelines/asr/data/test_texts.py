"""Cleaned texts beside a listing: they come back with their samples, and belong to no other listing."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.io.samples.index import Text
from colabkit.io.samples.listing import Listing
from colabkit.pipelines.asr.data.texts import open_texts, write_texts
from tests.pipelines.asr.speech_files import NAMES, TEXTS, as_csv, write_files


@pytest.fixture
def listing(tmp_path, listed):
    write_files(tmp_path, NAMES)
    (tmp_path / "t.csv").write_text(as_csv(zip(NAMES, TEXTS, strict=True)))
    return listed(tmp_path)


def test_only_samples_with_texts_come_back_with_these(tmp_path, listing):
    kept = {name: np.arange(len(split))[::-1][: max(1, len(split) - 2)] for name, split in listing.splits.items()}
    cleaned = listing.replace(
        {
            name: split.take(kept[name], Text.of(f"clean {one}" for one in split.take(kept[name]).names.to_list()))
            for name, split in listing.splits.items()
        }
    )
    write_texts(tmp_path / "texts.safetensors", kept, cleaned)
    again = open_texts(tmp_path / "texts.safetensors", listing)
    assert again.fingerprint == cleaned.fingerprint != listing.fingerprint
    for name, split in again.splits.items():
        assert split.names.to_list() == [listing[name].names[int(i)] for i in kept[name]]
        assert split.texts.to_list() == [f"clean {one}" for one in split.names.to_list()]
        assert np.array_equal(split.read_wave(0), listing[name].read_wave(int(kept[name][0])))


@pytest.mark.parametrize("change", ["fewer samples", "fewer splits", "damaged"])
def test_texts_of_another_listing_are_refused(tmp_path, listing, change):
    path, kept = tmp_path / "texts.safetensors", {name: np.arange(len(one)) for name, one in listing.splits.items()}
    written = listing
    if change == "fewer splits":
        written = Listing({"train": listing["train"]}, listing.described, {})
    write_texts(path, kept, written)
    if change == "fewer samples":
        listing = listing.replace(listing.splits | {"train": listing["train"].take([0])})
    if change == "damaged":
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError) as caught:
        open_texts(path, listing)
    assert str(path) in str(caught.value) and caught.value.fix
