"""From a source of segments to committed codes: everything once, and right."""

from __future__ import annotations

import io
import json
import threading
import time
from collections import Counter

import numpy as np
import pytest

from colabkit.core.errors import ChangedError, DataError, StateError, UsageError
from colabkit.pipelines.dataset.encode.job import Sharing, encode
from colabkit.pipelines.dataset.store.codes import codes_of
from colabkit.pipelines.dataset.store.commit import MANIFEST, read_codes
from tests.pipelines.dataset.encode.memory_objects import MemoryObjects
from tests.pipelines.dataset.encode.small_codec import SmallCodec, codes_for, fill, make_wave, npz_bytes, read_small
from tests.told import Told


class Place:
    """A store with segments, a scratch folder, and calls of `encode` with what was told in them."""

    def __init__(self, folder, **store):
        self.store = MemoryObjects(**store)
        self.source, self.scratch = self.store.below("segments"), folder / "scratch"
        self.told = Told()

    @property
    def said(self) -> list[str]:
        return self.told.said

    @property
    def problems(self) -> dict[str, str]:
        return self.told.problems

    @property
    def choices(self) -> dict[str, tuple]:
        return self.told.chosen

    def encode(self, codec=None, *, stop=lambda: False, **settings):
        self.told.stop = stop
        settings = {
            "quota_bytes": 8 << 20,
            "piece_bytes": 1 << 20,
            "scratch": self.scratch,
            "read_segment": read_small,
            "num_downloads": 4,
        } | settings
        return encode(self.source, self.store, codec or SmallCodec(), teller=self.told, **settings)

    def codes(self):
        return {
            row["key"]: codes_of(table, i)
            for _, table in read_codes(self.store)
            for i, row in enumerate(table.to_pylist())
        }

    def manifest(self):
        return json.loads(self.store.content[MANIFEST][0])


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def same(codes, expected):
    return codes.keys() == expected.keys() and all(np.array_equal(codes[key], expected[key]) for key in codes)


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
    for place, settings in ((first, {}), (second, {"quota_bytes": 3 << 20, "num_downloads": 1, "in_memory": True})):
        fill(place.source, 60)
        place.encode(**settings)
    names = [name for name in first.store.content if name.endswith(".parquet")]
    assert len(names) > 3
    for name in names:
        if "/plan/" not in name:
            assert first.store.content[name][0] == second.store.content[name][0], name


def test_broken_segments_are_told_and_left_aside_and_the_others_go_on(place):
    expected = fill(place.source, 60)
    place.source.put("channel0/broken.npz", b"PK no zip")
    pickled = io.BytesIO()
    np.savez(pickled, audio=np.array([{"a": 1}], dtype=object), sr=16_000)
    place.source.put("channel0/pickled.npz", pickled.getvalue())
    place.source.put("channel0/empty.npz", npz_bytes(np.zeros(0, np.float32)))
    done = place.encode()
    assert done.is_finished and done.num_left_aside == 3 and done.num_encoded == 60
    assert set(place.problems) == {"channel0/broken", "channel0/empty", "channel0/pickled"}
    assert same(place.codes(), expected) and place.manifest()["num_left_aside"] == 3
    place.problems.clear()
    assert place.encode().num_left_aside == 0 and not place.problems


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


def test_most_of_a_piece_broken_is_an_error_and_mended_it_goes_on(place):
    expected = fill(place.source, 30, longest=3000)

    def broken(payload, name, columns):
        raise ValueError("no such library")

    with pytest.raises(DataError, match="segments of a piece cannot be used"):
        place.encode(read_segment=broken)
    assert not any("codes/manifest" in name for name in place.store.content)
    assert place.encode().is_finished and same(place.codes(), expected)


def test_a_changed_object_is_told_and_encoded_as_it_is_at_the_next_run(place):
    expected = fill(place.source, 50)
    key = sorted(expected)[20]
    wave = make_wave(999, 7000)
    put = threading.Event()

    def before(method, name):
        if method == "get" and name.startswith("segments/channel") and not put.is_set():
            put.set()
            place.source.put(f"{key}.npz", npz_bytes(wave))

    place.store.hook(before)
    done = place.encode(num_downloads=1)
    assert done.num_changed == 1 and "changed since" in place.problems[key]
    codes = place.codes()
    assert key not in codes and len(codes) == 49
    again = place.encode()
    assert again.num_encoded == 1 and again.num_changed == 0
    assert same(place.codes(), expected | {key: codes_for(wave)})
    assert place.encode().num_encoded == 0 and place.manifest()["num_changed"] == 0


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


def test_full_segments_with_codes(place):
    expected = fill(place.source, 60)

    def write(segment):
        return segment.key.encode() + b"\0" + segment.codes.tobytes()

    done = place.encode(output_format="npz", write_npz=write)
    assert done.is_finished and same(place.codes(), expected)
    written = {
        name.removeprefix("encoded/").removesuffix(".npz"): content
        for name, (content, _) in place.store.content.items()
        if name.startswith("encoded/")
    }
    assert written == {key: key.encode() + b"\0" + codes.tobytes() for key, codes in expected.items()}
    assert max(n for name, n in place.store.puts.items() if name.startswith("encoded/")) == 1
    with pytest.raises(UsageError, match="needs a writer"):
        place.encode(output_format="npz")


def test_a_quota_too_small_says_how_much_is_needed(place):
    fill(place.source, 60)
    with pytest.raises(UsageError, match="quota can hold nothing useful") as caught:
        place.encode(quota_bytes=100_000)
    least = int(caught.value.fix.split("quota_bytes=")[1].split()[0])
    assert place.encode(quota_bytes=least).is_finished


def test_one_larger_than_the_quota_is_left_aside(place):
    expected = fill(place.source, 60)
    place.source.put("channel0/large.npz", npz_bytes(make_wave(1, 2_000_000)))
    done = place.encode(quota_bytes=4 << 20)
    assert done.num_left_aside == 1 and "larger than the disk quota" in place.problems["channel0/large"]
    assert same(place.codes(), expected) and done.most_bytes_used <= 4 << 20


def test_the_quota_is_chosen_with_a_reason(place):
    fill(place.source, 30)
    assert place.encode(quota_bytes=None).is_finished
    value, reason = place.choices["quota_bytes"]
    assert 1 << 20 < value < 64 << 20 and "are free in the disk of" in reason


def test_a_stop_is_in_good_order_and_goes_on(place):
    expected = fill(place.source, 80)
    codec = SmallCodec(seconds_per_second=0.05)
    stop = place.encode(codec, stop=lambda: len(codec.encoded) > 10)
    assert stop.stopped and not stop.is_finished and 0 < stop.num_encoded < 80
    done = place.encode(codec)
    assert done.is_finished and same(place.codes(), expected)
    assert sum(n for _, n in codec.encoded) == 80


def test_an_error_of_the_store_ends_it_and_it_goes_on(place):
    expected = fill(place.source, 60)
    failing = {"on": True}

    def before(method, name):
        if method == "put" and name.startswith("codes/manifest") and failing["on"] and name.endswith("00002.json"):
            raise UsageError("The keys have expired", fix="give new ones")

    place.store.hook(before)
    codec = SmallCodec()
    with pytest.raises(UsageError, match="keys have expired"):
        place.encode(codec)
    failing["on"] = False
    assert place.encode(codec).is_finished and same(place.codes(), expected)
    assert sum(n for _, n in codec.encoded) <= 60 + 12


def test_nothing_to_encode_is_told(place):
    with pytest.raises(DataError, match="nothing to encode"):
        place.encode()


def test_the_first_is_out_at_once(place):
    fill(place.source, 200)
    done = place.encode(SmallCodec(seconds_per_second=0.01))
    assert done.seconds_to_first < 1.0


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


def test_workers_share_the_pieces_by_claims(tmp_path):
    places = [Place(tmp_path / str(i)) for i in range(3)]
    for other in places[1:]:
        other.store, other.source = places[0].store, places[0].source
    expected = fill(places[0].source, 150)
    codecs = [SmallCodec(seconds_per_second=0.02) for _ in places]
    results = [None] * 3

    def work(i):
        results[i] = places[i].encode(codecs[i], sharing=Sharing(claims=True, worker=f"w{i}", poll_seconds=0.1))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(60)
    assert all(result is not None for result in results), [p.said for p in places]
    assert same(places[0].codes(), expected)
    assert sum(n for codec in codecs for _, n in codec.encoded) == 150
    assert sum(bool(codec.encoded) for codec in codecs) >= 2
    assert max(n for name, n in places[0].store.puts.items() if "codes/manifest/" in name) == 1
    assert all(result.num_pieces_done == result.num_pieces for result in results)


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


def begun(place, number: int = 120) -> tuple[dict, Counter, SmallCodec]:
    """Stop a run that has fetched much ahead; returns what is expected, a counter of reads to come, and the codec."""
    expected, reads = fill(place.source, number), Counter()
    codec = SmallCodec(seconds_per_second=0.02)
    place.store.hook(lambda method, name: reads.update([name] if method == "get" else []))
    spool = place.scratch / "spool"
    place.encode(codec, stop=lambda: len(codec.encoded) > 3 and len(list(spool.iterdir())) > 60)
    assert len(list(spool.iterdir())) > 60
    return expected, reads, codec


def test_what_was_fetched_ahead_is_not_fetched_again(place):
    expected, reads, codec = begun(place)
    torn = min((place.scratch / "spool").iterdir())
    torn.write_bytes(torn.read_bytes()[:-100])
    (place.scratch / "spool" / f"{'0' * 32}.part").write_bytes(b"of nobody")
    assert place.encode(codec).is_finished and same(place.codes(), expected)
    assert sum(n for _, n in codec.encoded) == 120 and not list((place.scratch / "spool").iterdir())
    again = [name for name, count in reads.items() if name.endswith(".npz") and count > 1]
    assert len(again) == 1, again  # the torn one


def test_what_was_fetched_ahead_is_let_go_where_the_quota_is_smaller_now(place):
    expected, _, codec = begun(place)
    done = place.encode(codec, quota_bytes=4 << 20)
    assert done.is_finished and same(place.codes(), expected) and done.most_bytes_used <= 4 << 20
    assert sum(n for _, n in codec.encoded) == 120


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
