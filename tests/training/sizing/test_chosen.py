"""Sizing, as it was chosen: how many samples of which length go through at once, in which regime, and why."""

from __future__ import annotations

import json

import numpy as np
import pytest

from colabkit.training.sizing.chosen import Sizing
from tests.training.sizing.sized import LENGTHS, reasons, sized


def test_capacity_fits_never_rises_with_length_and_uses_the_room():
    sizing = sized("L4", checkpointing="no")
    seconds = np.linspace(1, 30, 500)
    at_once = [sizing.capacity(s) for s in seconds]
    assert all(a >= b for a, b in zip(at_once[:-1], at_once[1:], strict=True)) and at_once[0] > 10 * at_once[-1]
    for s, n in zip(seconds, at_once, strict=True):
        assert sizing.bytes(n, s) <= sizing.limit_bytes < sizing.bytes(n + 1, s)


def test_buckets_cover_the_samples():
    sizing = sized("L4")
    assert len(sizing.buckets) == 30 and sum(b.num_seen for b in sizing.buckets) == len(LENGTHS)
    assert sizing.buckets[-1].longest_seconds == 30.0
    assert all(b.num_samples == sizing.capacity(b.longest_seconds) and 0 < b.fill <= 1 for b in sizing.buckets)
    assert len(sizing.table().rows) == 30


def test_steps_are_cut_to_exactly_the_effective_batch():
    for effective, world in ((32, 1), (33, 1), (7, 2), (64, 3)):
        sizing = sized("T4", effective_batch=effective, world=world, checkpointing="no")
        for seconds in (1.0, 7.3, 30.0):
            parts = sizing.parts(seconds)
            assert sum(parts) == -(-effective // world) and max(parts) - min(parts) <= 1
            assert max(parts) <= sizing.capacity(seconds)
            assert sizing.accumulation(seconds) == len(parts)
            at_once, passes = sizing.even_batch(seconds)
            assert at_once * passes == sizing.share(seconds) and at_once <= sizing.capacity(seconds)


@pytest.mark.parametrize("world", [1, 2])
def test_of_an_effective_batch_in_seconds_short_samples_are_more(world):
    sizing = sized("T4", effective_batch=None, effective_seconds=400.0, world=world, checkpointing="no")
    assert [sizing.step_samples(seconds) for seconds in (30.0, 10.0, 1.0)] == [13, 40, 400]
    for seconds in (1.0, 7.3, 30.0):
        parts = sizing.parts(seconds)
        assert sum(parts) == sizing.share(seconds) == -(-int(400 / seconds) // world)
        assert max(parts) <= sizing.capacity(seconds) <= sizing.fits(seconds)
        at_once, passes = sizing.even_batch(seconds)
        assert at_once <= sizing.capacity(seconds) and at_once * passes == int(400 / seconds) // world
        assert at_once * passes * world * seconds <= 400.0
    again = Sizing.from_dict(json.loads(json.dumps(sizing.to_dict())))
    assert again == sizing and [again.capacity(s) for s in (1.0, 9.0)] == [sizing.capacity(s) for s in (1.0, 9.0)]
    older = sized("T4").to_dict()
    del older["effective_seconds"]
    assert Sizing.from_dict(older).effective_seconds is None, "a record of before there was such a setting"


def test_no_more_at_once_than_asked_for():
    sizing = sized("H200", most=3)
    assert {sizing.capacity(s) for s in (1.0, 30.0)} == {3} and "3 at most" in reasons(sizing)["at_once"]


def test_beyond_the_knee_no_more_go_through_at_once():
    sizing = sized("H200", checkpointing="no")
    kneed = sizing.with_model(sizing.model, knee_seconds=100.0)
    assert kneed.capacity(10.0) == 10 and kneed.capacity(1000.0) <= 1 and kneed.fits(10.0) == sizing.fits(10.0) > 10
    assert all(b.num_samples == kneed.capacity(b.longest_seconds) for b in kneed.buckets)


def test_to_and_from_json():
    sizing = sized("L4", most=5)
    again = Sizing.from_dict(json.loads(json.dumps(sizing.to_dict(), default=float)))
    assert (
        again.capacity(12.3) == sizing.capacity(12.3)
        and again.regime == sizing.regime
        and again.device == sizing.device
    )
    assert again.limit_bytes == sizing.limit_bytes and len(again.buckets) == len(sizing.buckets)
    assert [c[0] for c in again.choices] == [c[0] for c in sizing.choices]


def test_figure_data_shows_prediction_and_limit():
    sizing = sized("L4", checkpointing="no")
    data = sizing.figure_data(50)
    assert len(data["seconds"]) == len(data["predicted_bytes"]) == 50
    assert max(data["predicted_bytes"]) <= data["limit_bytes"] < data["usable_bytes"]
