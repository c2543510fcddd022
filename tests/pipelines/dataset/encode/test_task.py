"""What is asked for: planned once, done once, told when it is done or cannot be, in a folder of its own."""

from __future__ import annotations

import threading
import time

import pytest

from colabkit.core.errors import ChangedError, DataError, StateError, UsageError
from colabkit.pipelines.dataset.encode.job import Sharing
from tests.pipelines.dataset.encode.small_codec import SmallCodec, fill
from tests.pipelines.dataset.encode.small_store import Place, same


def test_more_channels_later_redo_nothing(place):
    expected = fill(place.source, 60)
    codec = SmallCodec()
    done = place.encode(codec, channels=("channel0",))
    assert done.num_items == 20 and set(place.codes()) == {key for key in expected if key.startswith("channel0")}
    done = place.encode(codec)
    assert done.num_encoded == 40 and done.is_finished
    expected |= fill(place.source, 10, first=60)
    done = place.encode(codec)
    assert done.num_encoded == 10 and same(place.codes(), expected)
    assert sum(n for _, n in codec.encoded) == 70
    with pytest.raises(UsageError, match="No segment is of this channel"):
        place.encode(channels=("channel9",))


def test_a_limit_then_all(place):
    expected = fill(place.source, 50)
    assert place.encode(limit=5).num_encoded == 5 and len(place.codes()) == 5
    assert place.encode(limit=5).num_encoded == 0
    assert place.encode().num_encoded == 45 and same(place.codes(), expected)


def test_a_dry_run_puts_nothing(place):
    fill(place.source, 50)
    before = dict(place.store.content)
    done = place.encode(dry_run=True)
    assert place.store.content == before and not place.scratch.exists()
    assert done.num_items == 50 and done.num_done == 0 and not done.is_finished
    assert any("50 segments" in text and "to do" in text for text in place.said)


def test_anew_encodes_all_again_once(place):
    expected = fill(place.source, 30)
    place.encode()
    codec = SmallCodec()
    done = place.encode(codec, skip_existing=False)
    assert done.num_encoded == 30 and done.is_finished and same(place.codes(), expected)
    assert len(place.manifest()["pieces"]) == done.num_pieces
    assert place.encode(codec).num_encoded == 0


def test_another_codec_in_the_same_place_is_refused(place):
    fill(place.source, 10)
    place.encode()
    with pytest.raises(ChangedError, match="made with other settings"):
        place.encode(SmallCodec(version="2"))


def test_nothing_to_encode_is_told(place):
    with pytest.raises(DataError, match="nothing to encode"):
        place.encode()


def test_a_store_without_conditional_puts(tmp_path):
    place = Place(tmp_path, conditions=False)
    expected = fill(place.source, 60)
    done = place.encode(honours_absent=False, sharing=Sharing(share=(0, 2)))
    assert not done.is_finished and 0 < done.num_encoded < 60
    assert any("does not honour conditional puts" in text for text in place.said)
    place.scratch = tmp_path / "other"
    assert place.encode(honours_absent=False, sharing=Sharing(share=(1, 2))).is_finished
    assert same(place.codes(), expected)
    with pytest.raises(UsageError, match="cannot claim"):
        place.encode(honours_absent=False, sharing=Sharing(claims=True), skip_existing=False)


def test_nothing_to_do_at_full_size_is_told_at_once(place):
    from colabkit.io.transfer.manifest import make_manifest, write_manifest
    from colabkit.pipelines.dataset.store import commit
    from colabkit.pipelines.dataset.store.codes import codec_facts

    write_manifest(place.source, None, make_manifest(["a.npz"], [1], [0], [0], ["v"]))
    pieces = [
        commit.Committed(
            piece=f"00000-{i:05d}",
            inputs="i" * 32,
            object=f"codes/00000-{i:05d}-{'i' * 16}.parquet",
            size=400_000,
            sha256="s" * 64,
            num_rows=800,
            seconds=2800.0,
        )
        for i in range(820)
    ]
    commit.write_manifest(
        place.store,
        pieces,
        codec_facts(SmallCodec()),
        num_items=656_300,
        num_changed=0,
        source={"mark": place.source.find("UPLOADED.parquet").version, "digest": ""},
        settings={"format": 1, "codec": "small-1", "output_format": "sidecar", "channels": [], "limit": None},
    )
    place.store.counts.clear()
    began = time.monotonic()
    done = place.encode()
    assert done.num_done == 656_300 and done.is_finished
    assert sum(place.store.counts.values()) == 2 and time.monotonic() - began < 2


def test_a_second_run_in_the_same_scratch_folder_is_refused(place):
    fill(place.source, 60)
    codec, errors = SmallCodec(seconds_per_second=0.05), []

    def second():
        try:
            place.encode(SmallCodec())
        except StateError as error:
            errors.append(error)

    started = threading.Thread(target=second)

    def once():
        if len(codec.encoded) == 2 and not started.ident:
            started.start()
            started.join()
        return False

    assert place.encode(codec, stop=once).is_finished
    assert len(errors) == 1 and "Another run is at work" in str(errors[0])
