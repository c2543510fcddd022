"""The card's figures: of what the shards really hold, and of the rows that were chosen alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from colabkit.pipelines.dataset.publish.facts import DURATIONS, CardSettings, draw_durations, gather_facts
from colabkit.pipelines.dataset.publish.layout import PublishSettings, make_plan
from colabkit.pipelines.dataset.publish.uploaded import ShardRecord
from tests.pipelines.dataset.publish.test_layout import CODEC, make_rows


def facts_of(rows, settings: PublishSettings, card: CardSettings = CardSettings()):
    """Return the plan and the facts, where each shard lost one segment and weighs 1000 bytes."""
    plan = make_plan(rows, settings)
    records = {
        shard.id: ShardRecord(
            id=shard.id, sha256="a" * 64, size=1000, num_rows=len(shard.rows) - 1, seconds=7.5, left_out={"why": 1}
        )
        for shard in plan.shards
    }
    return plan, gather_facts("me/voices", rows, plan, settings, records, card)


def test_splits_are_counted_by_what_their_shards_hold():
    rows = make_rows(300, speakers=20)
    plan, facts = facts_of(rows, PublishSettings(split_by="channel", shard_bytes=2_000_000))
    assert set(facts.splits) == {"c_0", "c_1", "c_2"} and len(plan.shards) > 3
    for name, split in facts.splits.items():
        shards = [shard for shard in plan.shards if shard.split == name]
        assert split.num_rows == sum(len(shard.rows) for shard in shards) - len(shards)
        assert (split.num_bytes, split.seconds) == (1000 * len(shards), 7.5 * len(shards))
        assert split.paths == f"{plan.folder}/{name}-*.parquet"
    assert facts.left_out == {"why": len(plan.shards)} and facts.split_by == "channel"


def test_figures_are_of_the_chosen_rows_alone():
    speakers = ["", "a", "b", "a", "", "c"] * 20
    rows = make_rows(120, speaker=speakers, text=[""] * 120, rate_hz=np.repeat([16_000, 24_000], 60).astype(np.int32))
    _, facts = facts_of(rows, PublishSettings(split_by="none", channels=("c 0",)))
    chosen = rows.table.to_pylist()[::3]
    assert facts.num_speakers == len({row["speaker"] for row in chosen} - {""}) == 1
    assert facts.channels == {"c 0": (40, pytest.approx(sum(row["seconds"] for row in chosen)))}
    assert facts.rates == {16_000: 20, 24_000: 20} and not facts.has_text and facts.split_by == "none"
    lengths = np.quantile([row["seconds"] for row in chosen], (0.05, 0.5, 0.95))
    assert list(facts.durations) == ["5%", "50%", "95%"] and list(facts.durations.values()) == pytest.approx(lengths)


def test_what_was_left_out_before_any_shard_is_told_too():
    rows = make_rows(30, key=[f"k{i % 25}" for i in range(30)])
    _, facts = facts_of(replace(rows, left_aside=3), PublishSettings(split_by="none"))
    assert facts.left_out == {"why": 1, "could not be encoded": 3, "another segment has the same name": 5}


def test_settings_and_codec_are_told_where_there_are_any():
    rows = make_rows(10)
    _, facts = facts_of(rows, PublishSettings(split_by="none"))
    assert (facts.title, facts.repo, facts.codec, facts.pictures, facts.has_text) == (
        "voices",
        "me/voices",
        CODEC,
        (),
        True,
    )
    card = CardSettings(title="Mine", language="ar", licence="mit", with_durations_plot=True, profile={"a": 1})
    _, facts = facts_of(rows, PublishSettings(split_by="none", with_codes=False), card)
    assert (facts.title, facts.language, facts.licence, facts.pictures) == ("Mine", "ar", "mit", (DURATIONS,))
    assert facts.codec == {} and "codes" not in facts.features and facts.profile == {"a": 1}
    _, silent = facts_of(make_rows(4, seconds=np.zeros(4)), PublishSettings(split_by="none"))
    assert silent.durations == {}


def test_lengths_are_drawn(tmp_path):
    from PIL import Image

    rows = make_rows(40)
    draw_durations(tmp_path / DURATIONS, rows, make_plan(rows, PublishSettings(split_by="none")))
    with Image.open(tmp_path / DURATIONS) as picture:
        assert picture.format == "PNG" and picture.width > 2 * picture.height
        assert len(picture.convert("L").getcolors()) > 5, "a blank picture"
