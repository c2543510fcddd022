"""Pairs: same speaker, never itself, the same for the same seed, never too long, every segment accounted for."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.dataset.pairs.pairs import IGNORED, PairSettings, choose_pairs, masked_labels
from colabkit.pipelines.dataset.publish.table import Rows
from tests.pipelines.dataset.publish.test_layout import make_rows

ANY = PairSettings(shortest_reference_seconds=0.0, longest_reference_seconds=99.0, most_tokens=10_000)


def chosen(rows, settings=ANY, text_tokens=None, overhead=10):
    tokens = np.full(len(rows), 20) if text_tokens is None else text_tokens
    return choose_pairs(rows, settings, text_tokens=tokens, overhead_tokens=overhead)


def test_pairs_are_of_one_speaker_and_two_segments():
    rows = make_rows(1_000, speakers=37)
    pairs = chosen(rows)
    speaker = np.array(rows.table["speaker"].to_pylist())
    assert len(pairs) == 1_000 and (pairs.target != pairs.reference).all() and not pairs.left_out
    assert (speaker[pairs.target] == speaker[pairs.reference]).all() and len(set(pairs.target.tolist())) == 1_000
    frames = rows.table["num_frames"].to_numpy()
    assert (pairs.num_tokens == 10 + 41 + frames[pairs.target] + frames[pairs.reference]).all()
    used = np.bincount(pairs.reference, minlength=1_000)
    assert used.max() <= 10 and (used > 0).sum() > 500  # no voice rests on one recording


def test_the_same_seed_gives_the_same_pairs_in_any_order_of_rows():
    rows = make_rows(300, speakers=11)
    order = np.random.default_rng(1).permutation(300)
    keys = np.array(rows.table["key"].to_pylist())
    one = chosen(rows)
    other_rows = Rows(rows.table.take(order), rows.codec)
    other, other_keys = chosen(other_rows), keys[order]
    assert [(keys[t], keys[r]) for t, r in zip(one.target, one.reference, strict=True)] == [
        (other_keys[t], other_keys[r]) for t, r in zip(other.target, other.reference, strict=True)
    ]
    from dataclasses import replace

    assert (chosen(rows, replace(ANY, seed=1)).reference != one.reference).mean() > 0.5


def test_limits_of_the_reference_and_its_channel():
    rows = make_rows(600, speakers=20)
    seconds, channel = rows.table["seconds"].to_numpy(), np.array(rows.table["channel"].to_pylist())
    for kind in ("same", "other"):
        pairs = chosen(rows, PairSettings(shortest_reference_seconds=1.0, longest_reference_seconds=3.0, channel=kind))
        assert ((seconds[pairs.reference] >= 1) & (seconds[pairs.reference] <= 3)).all() and len(pairs) > 300
        assert ((channel[pairs.target] == channel[pairs.reference]) == (kind == "same")).all()
    pairs = chosen(rows, PairSettings(shortest_reference_seconds=50.0, longest_reference_seconds=60.0))
    assert len(pairs) == 0 and pairs.left_out == {"no reference of its speaker fits": 600}


def test_nothing_is_longer_than_the_limit_and_all_is_accounted_for():
    rows = make_rows(500, speakers=25)
    texts = np.where(np.arange(500) % 10 == 0, -1, 30)
    pairs = chosen(rows, PairSettings(most_tokens=300, shortest_reference_seconds=0.0), text_tokens=texts)
    assert pairs.num_tokens.max() <= 300 and len(pairs) > 50
    assert len(pairs) + sum(pairs.left_out.values()) == 500 and pairs.left_out["no text that can be used"] == 50
    assert {"longer than 300 tokens with a reference"} <= pairs.left_out.keys()


def test_speakers_are_balanced_and_the_lonely_left_out():
    names = ["loud"] * 900 + [f"s{i // 10}" for i in range(90)] + ["alone"] + [""] * 9
    rows = make_rows(1_000, speaker=names)
    told = []
    pairs = choose_pairs(rows, ANY, text_tokens=np.full(1_000, 5), overhead_tokens=3, choose=lambda *a: told.append(a))
    counts = np.unique(np.array(names)[pairs.target], return_counts=True)
    assert dict(zip(*(c.tolist() for c in counts), strict=True))["loud"] == 40 and told[0][1] == 40
    assert pairs.left_out == {
        "no speaker is stated": 9,
        "the only segment of its speaker": 1,
        "its speaker has enough": 860,
    }
    many = chosen(
        rows, PairSettings(pairs_per_segment=3, most_per_speaker=5, shortest_reference_seconds=0, most_tokens=10_000)
    )
    together = list(zip(many.target.tolist(), many.reference.tolist(), strict=True))
    assert len(set(together)) == len(together) == 10 * 5 * 3


def test_labels_begin_behind_the_reference():
    assert masked_labels([5, 6, 7, 8, 9, 1], first_code=2, num_reference_codes=2) == [IGNORED] * 4 + [9, 1]


def test_a_large_set_takes_little_memory():
    small = make_rows(2_000).table
    import pyarrow as pa

    table = pa.concat_tables([small] * 50).drop_columns(["key", "speaker"])
    number = table.num_rows
    table = table.append_column("key", pa.array([f"k{i}" for i in range(number)]))
    table = table.append_column("speaker", pa.array([f"s{i % 500}" for i in range(number)]))
    rows = Rows(table, make_rows(1).codec)
    tracemalloc.start()
    began = time.monotonic()
    pairs = chosen(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == number == 100_000 and peak < 120e6 and time.monotonic() - began < 30


@pytest.mark.parametrize(
    "settings, codec, kind",
    [
        (PairSettings(shortest_reference_seconds=5, longest_reference_seconds=2), None, UsageError),
        (PairSettings(pairs_per_segment=0), None, UsageError),
        (PairSettings(), {}, DataError),
    ],
)
def test_settings_that_cannot_be(settings, codec, kind):
    rows = make_rows(4)
    with pytest.raises(kind):
        chosen(rows if codec is None else Rows(rows.table, codec), settings)
