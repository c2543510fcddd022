"""The plan: shares by hash that stay, shards within their bytes, names that say what is in them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.dataset.publish.layout import SHARD_NAME, PublishSettings, make_plan, share
from colabkit.pipelines.dataset.publish.table import Rows

CODEC = {
    "version": 1,
    "name": "toy",
    "fingerprint": "f",
    "frame_rate_hz": 50.0,
    "num_codebooks": 1,
    "codebook_size": 8,
    "rate_hz_in": 16_000,
    "rate_hz_out": 16_000,
}


def make_rows(number: int, *, speakers: int = 50, codec: dict = CODEC, **columns) -> Rows:
    rng = np.random.default_rng(0)
    samples = rng.integers(8_000, 80_000, number)
    frames = (samples // 320).astype(np.int32)
    table = {
        "key": [f"k{i:07d}" for i in range(number)],
        "codes": [np.full(f, i % 8, np.uint16) for i, f in enumerate(frames)],
        "num_frames": frames,
        "num_samples": samples,
        "rate_hz": np.full(number, 16_000, np.int32),
        "seconds": samples / 16_000,
        "speaker": [f"s{i % speakers}" for i in range(number)],
        "channel": [f"c {i % 3}" for i in range(number)],
        "text": [f"text {i}" for i in range(number)],
        "metadata": ["{}"] * number,
        "object": [f"{i // 100:05d}.tar" for i in range(number)],
        "offset": np.arange(number) % 100 * 200_000,
        "length": samples + 500,
        "version": ["v"] * number,
        "crc32": np.arange(number) + 7,
    }
    return Rows(pa.table({**table, **columns}), codec)


def split_of(rows: Rows, plan) -> dict[str, str]:
    speakers = rows.table["speaker"].to_pylist()
    return {speakers[i]: shard.split for shard in plan.shards for i in shard.rows.tolist()}


def test_speakers_stay_in_their_split_when_data_is_added():
    settings = PublishSettings(test_fraction=0.1, validation_fraction=0.1)
    few, many = make_rows(200, speakers=100), make_rows(3_000, speakers=1_000)
    before, after = (split_of(rows, make_plan(rows, settings)) for rows in (few, many))
    assert all(after[speaker] == split for speaker, split in before.items())
    held_out = [sum(split == name for split in after.values()) for name in ("test", "validation")]
    assert all(70 <= n <= 130 for n in held_out)  # a tenth each
    other = split_of(many, make_plan(many, PublishSettings(test_fraction=0.1, validation_fraction=0.1, seed=1)))
    assert other != after
    assert share("speaker/a", 0) == share("speaker/a", 0) != share("speaker/a", 1)


def test_every_row_is_in_one_shard_in_the_order_of_the_source():
    rows = make_rows(2_000)
    plan = make_plan(rows, PublishSettings(shard_bytes=2_000_000))
    assert sorted(np.concatenate([s.rows for s in plan.shards]).tolist()) == list(range(2_000))
    for shard in plan.shards:
        assert (
            (np.diff(shard.rows) > 0).all() and SHARD_NAME.fullmatch(shard.name) and shard.name.startswith(plan.folder)
        )
        assert shard.most_bytes <= 2_000_000 * 1.02 + (1 << 20)
    assert sum(shard.split == "train" for shard in plan.shards) > 10


@pytest.mark.parametrize(
    "change",
    [
        {"text": ["other"] + [f"text {i}" for i in range(1, 300)]},
        {"crc32": np.arange(300) + np.eye(1, 300, dtype=int)[0] + 7},
        {"metadata": ['{"a": "b"}'] + ["{}"] * 299},
    ],
)
def test_a_shard_is_named_by_what_is_in_it(change):
    settings = PublishSettings(shard_bytes=1_000_000, split_by="none")
    plans = [make_plan(make_rows(300, **columns), settings) for columns in ({}, {}, change)]
    ids = [[shard.id for shard in plan.shards] for plan in plans]
    assert ids[0] == ids[1] and plans[0].folder == plans[1].folder != plans[2].folder
    assert ids[0][0] != ids[2][0] and ids[0][1:] == ids[2][1:]


def test_a_version_counts_only_where_there_is_no_checksum():
    settings, one = PublishSettings(split_by="none"), {"version": ["w"] * 30}
    assert make_plan(make_rows(30), settings).folder == make_plan(make_rows(30, **one), settings).folder
    without = {"crc32": np.full(30, -1)}
    assert (
        make_plan(make_rows(30, **without), settings).folder
        != make_plan(make_rows(30, **without, **one), settings).folder
    )


def test_settings_and_codec_are_part_of_the_name():
    rows = make_rows(30)
    folders = [
        make_plan(r, s).folder
        for r, s in (
            (rows, PublishSettings()),
            (rows, PublishSettings(audio_format="as_is")),
            (rows, PublishSettings(with_audio=False)),
            (rows, PublishSettings(with_codes=False)),
            (make_rows(30, codec={**CODEC, "fingerprint": "g"}), PublishSettings()),
        )
    ]
    assert len(set(folders)) == 5


def test_channels_limits_and_doubles():
    rows = make_rows(30, key=[f"k{i % 20}" for i in range(30)])
    plan = make_plan(rows, PublishSettings(split_by="channel"))
    assert plan.num_doubles == 10 and plan.splits() == {"c_0": 7, "c_1": 7, "c_2": 6}
    chosen = make_plan(rows, PublishSettings(split_by="none", channels=("c 1",), limit=3))
    assert chosen.splits() == {"train": 3} and set(rows.table["channel"].take(chosen.shards[0].rows).to_pylist()) == {
        "c 1"
    }
    odd = make_rows(4, channel=["é!", "é?", "", "بي"])
    names = make_plan(odd, PublishSettings(split_by="channel")).splits()
    assert len(names) == 4 and all(name.replace("_", "").isalnum() for name in names) and "unknown" in names


def test_unknown_speakers_are_split_by_their_own_names_and_told():
    told = []
    plan = make_plan(
        make_rows(400, speaker=[""] * 400), PublishSettings(test_fraction=0.25), choose=lambda *a: told.append(a)
    )
    assert 60 <= plan.splits()["test"] <= 140 and told[0][0] == "publish.split_by"


def test_a_split_that_nobody_falls_into_is_told():
    told = []
    plan = make_plan(make_rows(20, speakers=1), PublishSettings(test_fraction=0.3), choose=lambda *a: told.append(a))
    assert len(plan.splits()) == 1 and told[0][:2] == ("publish.splits", next(iter(plan.splits())))
    assert "of 1 speakers" in told[0][2]


@pytest.mark.parametrize(
    "settings, kind",
    [
        (PublishSettings(test_fraction=0.6, validation_fraction=0.4), UsageError),
        (PublishSettings(test_fraction=-0.1), UsageError),
        (PublishSettings(shard_bytes=0), UsageError),
        (PublishSettings(with_audio=False, with_codes=False), UsageError),
        (PublishSettings(channels=("nobody",)), UsageError),
        (PublishSettings(limit=0), DataError),
    ],
)
def test_settings_that_cannot_be(settings, kind):
    with pytest.raises(kind) as caught:
        make_plan(make_rows(5), settings)
    assert caught.value.fix
