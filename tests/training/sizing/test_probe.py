"""A few real steps mend predictions: on real CPU tensors under a byte budget, and in cases no small model shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from colabkit.core.errors import DataError
from colabkit.training.sizing.choose import size
from colabkit.training.sizing.devices import GIB, find
from colabkit.training.sizing.memory_model import MemoryModel, Phase
from colabkit.training.sizing.pool import Predictions
from colabkit.training.sizing.probe import confirm, mended
from colabkit.training.sizing.remembered import FILE_NAME, Remembered
from colabkit.training.sizing.timing import Timing
from colabkit.training.sizing.tracing.accounting import Meter
from colabkit.training.sizing.workload import Workload
from tests.training.sizing import workloads
from tests.training.sizing.real_steps import MeteredStep
from tests.training.sizing.sized import emulated

LENGTHS = np.random.default_rng(0).lognormal(1.5, 0.8, 500).clip(1, 30)
WORK = Workload(name="w", identity="w", num_layers=1, build=None, layers=None, batch=None, loss=None)
MODEL = MemoryModel(
    phases=(Phase(name="backward", base_bytes=2 * GIB, bytes_per_second=30e6, bytes_per_second_squared=5e5),),
    state_bytes=1.5 * GIB,
    slack_fraction=0.02,
)


class Emulated:
    """A device whose steps take `truth` bytes and out of memory beyond `usable_bytes`; counts its steps."""

    def __init__(self, truth: MemoryModel, usable_bytes: float, timing: Timing | None = None):
        self.truth, self.usable_bytes, self.steps = truth, usable_bytes, []
        self.timing = timing or Timing(pass_seconds=0.0, seconds_per_second=0.001)

    def __call__(self, num_samples: int, seconds: float) -> tuple[float, float]:
        self.steps.append((num_samples, seconds))
        peak = self.truth.device_bytes(num_samples, seconds) - self.truth.context_bytes
        if peak > self.usable_bytes:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot.")
        audio = num_samples * seconds
        return self.timing.pass_seconds + audio * self.timing.seconds_per_second, peak


def sized(model: MemoryModel = MODEL, device: str = "A100-40", **more):
    predictions = Predictions(1.0, 30.0, predict=lambda *a, **k: model)
    return size(
        WORK,
        device=find(device),
        lengths=LENGTHS,
        checkpointing="no",
        predictions=predictions,
        **{"effective_batch": 9999} | more,
    )


def run_on(sizing, truth: MemoryModel, **more) -> Emulated:
    return Emulated(truth, sizing.device.usable_bytes - sizing.device.context_bytes, **more)


@pytest.mark.parametrize("factor", [0.8, 0.97, 1.0, 1.05, 1.15, 1.3, 1.6])
def test_whatever_the_error_every_bucket_ends_under_the_limit_and_well_filled(factor):
    sizing = sized()
    truth = MODEL.scaled(factor)
    device = run_on(sizing, truth)
    found = confirm(sizing, device)
    assert len(device.steps) == found.num_probes <= 6 and found.confirmed
    for bucket in found.buckets:
        held = truth.device_bytes(bucket.num_samples, bucket.longest_seconds) + found.device.context_bytes
        assert held <= 1.001 * found.limit_bytes
        more = truth.device_bytes(bucket.num_samples + 1, bucket.longest_seconds) + found.device.context_bytes
        assert more > 0.97 * found.limit_bytes


def test_errors_that_differ_by_length_are_mended_at_both_ends():
    sizing = sized()
    truth = replace(MODEL, phases=(replace(MODEL.phases[0], bytes_per_second=1.2 * 30e6),))  # the short ones take more
    found = confirm(sizing, run_on(sizing, truth))
    fills = [
        (truth.device_bytes(b.num_samples, b.longest_seconds) + found.device.context_bytes) / found.limit_bytes
        for b in found.buckets
    ]
    assert max(fills) <= 1.005 and np.mean(fills) > 0.93


def test_mended_never_falls_below_what_was_measured_and_never_falls_with_length():
    for short, long in ((1.0, 1.0), (1.3, 0.9), (0.9, 1.3), (5.0, 0.5), (0.2, 3.0)):
        model = mended(MODEL, {1.0: short, 30.0: long})
        for seconds, factor in ((1.0, short), (30.0, long)):
            beyond = MODEL.peak_bytes(50, seconds) - MODEL.state_bytes
            assert model.peak_bytes(50, seconds) - MODEL.state_bytes >= 0.999 * factor * beyond
        each = [model.phases[0].each(s) for s in np.linspace(1, 30, 100)]
        assert all(a <= b for a, b in zip(each[:-1], each[1:], strict=True))


def test_out_of_memory_shrinks_until_it_fits():
    sizing = sized()
    device = run_on(sizing, MODEL.scaled(1.35))
    found = confirm(sizing, device)
    refused = [m for m in found.measured if m.peak_bytes is None]
    assert refused and found.confirmed and len(found.measured) <= 6
    assert found.capacity(30.0) < sizing.capacity(30.0)


def test_far_too_much_is_not_confirmed_and_sized_carefully():
    sizing = sized()
    found = confirm(sizing, run_on(sizing, MODEL.scaled(2.4)))
    assert found.num_probes <= 6
    assert found.capacity(30.0) < 0.75 * sizing.capacity(30.0)


def test_not_even_one_sample():
    sizing = sized(MODEL.scaled(3.0), "T4", most=1)
    truth = replace(MODEL, phases=(replace(MODEL.phases[0], base_bytes=20 * GIB),))
    with pytest.raises(DataError, match="Not even one"):
        confirm(sizing, run_on(sizing, truth))


def test_no_more_is_tried_than_a_step_has():
    sizing = sized(effective_batch=4)
    device = run_on(sizing, MODEL)
    confirm(sizing, device)
    assert max(n for n, _ in device.steps) <= 4


def test_errors_that_are_not_of_memory_are_raised():
    def broken(num_samples, seconds):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        confirm(sized(), broken)


def test_the_knee_is_taken_where_more_gains_little():
    sizing = sized()
    timing = Timing(pass_seconds=0.050, seconds_per_second=0.002)  # half speed at 25 s of audio
    found = confirm(sizing, run_on(sizing, MODEL, timing=timing))
    most = max(found.fits(b.longest_seconds) * b.longest_seconds for b in found.buckets)
    assert timing.speed(found.knee_seconds) == pytest.approx(0.95 * timing.speed(most), rel=0.01)
    assert found.capacity(10.0) == min(found.fits(10.0), int(np.ceil(found.knee_seconds / 10.0)))
    told = []
    confirm(sizing, run_on(sizing, MODEL, timing=timing), choose=lambda *choice: told.append(choice))
    assert [name for name, _, _ in told] == ["at_once_confirmed", "knee_seconds"]


def test_without_a_cost_of_passes_there_is_no_knee():
    assert confirm(sized(), run_on(sized(), MODEL)).knee_seconds is None
    assert Timing.fitted([]).knee_seconds(100.0) is None


def test_the_next_run_takes_no_step(tmp_path):
    sizing, told = sized(), []
    first = confirm(sizing, run_on(sizing, MODEL.scaled(1.1)), remembered=Remembered(tmp_path))
    device = run_on(sizing, MODEL.scaled(1.1))
    again = confirm(sized(), device, remembered=Remembered(tmp_path), choose=lambda *choice: told.append(choice))
    assert not device.steps and again.num_probes == 0 and again.confirmed
    assert [b.num_samples for b in again.buckets] == [b.num_samples for b in first.buckets]
    assert "earlier run" in told[0][2]


def test_another_gpu_or_a_corrupt_file_is_measured_anew(tmp_path):
    sizing, said = sized(), []
    confirm(sizing, run_on(sizing, MODEL), remembered=Remembered(tmp_path))
    other = run_on(sized(device="L4"), MODEL)
    confirm(sized(device="L4"), other, remembered=Remembered(tmp_path))
    assert other.steps
    (tmp_path / FILE_NAME).write_text('{"format": 1, "ent')
    device = run_on(sizing, MODEL)
    assert confirm(sizing, device, remembered=Remembered(tmp_path, say=said.append)).confirmed and device.steps and said


def test_entries_of_other_lengths_or_without_sense_are_not_used(tmp_path):
    sizing = sized()
    confirm(sizing, run_on(sizing, MODEL), remembered=Remembered(tmp_path))
    predictions = Predictions(1.0, 60.0, predict=lambda *a, **k: MODEL)
    longer = size(
        WORK,
        device=find("A100-40"),
        lengths=[1.0, 60.0],
        effective_batch=99,
        checkpointing="no",
        predictions=predictions,
    )
    device = run_on(longer, MODEL)
    confirm(longer, device, remembered=Remembered(tmp_path))
    assert device.steps
    text = (tmp_path / FILE_NAME).read_text()
    (tmp_path / FILE_NAME).write_text(text.replace('"phases"', '"faces"'))
    device = run_on(longer, MODEL)
    assert confirm(longer, device, remembered=Remembered(tmp_path)).confirmed and device.steps


# Real steps of small models.


def test_real_steps_under_a_byte_budget():
    budget, work = 12 << 20, workloads.tiny()
    sizing = size(work, device=emulated(budget), lengths=LENGTHS.clip(1, 12), effective_batch=9999, checkpointing="no")
    meter = Meter(budget)
    with MeteredStep(work, sizing.regime, meter) as step:
        found = confirm(sizing, step, timed=False)
        assert found.num_probes <= 6 and found.confirmed
        for bucket in (found.buckets[0], found.buckets[15], found.buckets[-1]):
            _, peak = step(bucket.num_samples, bucket.longest_seconds)
            assert 0.85 * found.limit_bytes < peak <= 1.01 * found.limit_bytes
