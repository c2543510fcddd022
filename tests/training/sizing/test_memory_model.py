"""The polynomial: its peak, its inverse, and what is kept of it in a file."""

import json
from dataclasses import asdict

import pytest

from colabkit.training.sizing.memory_model import MemoryModel, Phase
from tests.training.sizing.sized import peak_phase

MODEL = MemoryModel(
    phases=(
        Phase(name="forward", base_bytes=1000, bytes_per_sample=10, bytes_per_second=5, bytes_per_second_squared=1),
        Phase(name="optimizer step", base_bytes=3000),
        Phase(name="backward", base_bytes=500, bytes_per_second=20, base_bytes_per_second_squared=3),
    ),
    state_bytes=400,
    slack_fraction=0.1,
    context_bytes=50,
)


@pytest.mark.parametrize(
    ("samples", "seconds", "peak", "phase"),
    [
        (1, 1.0, 3000, "optimizer step"),
        (100, 2.0, 4512, "backward"),
        (100, 20.0, 52000, "forward"),
        (1, 40.0, 6100, "backward"),
    ],
)
def test_the_peak_is_that_of_the_largest_phase(samples, seconds, peak, phase):
    assert MODEL.peak_bytes(samples, seconds) == peak
    assert peak_phase(MODEL, samples, seconds) == phase
    assert MODEL.device_bytes(samples, seconds) == pytest.approx(50 + peak + 0.1 * (peak - 400))


@pytest.mark.parametrize("seconds", [0.5, 3.0, 17.0, 40.0])
@pytest.mark.parametrize("limit", [3500, 10_000, 10**6, 10**8])
def test_capacity_is_the_most_that_fits(seconds, limit):
    found = MODEL.capacity(seconds, limit, most=10**9)
    assert found == 0 or MODEL.device_bytes(found, seconds) <= limit
    assert MODEL.device_bytes(found + 1, seconds) > limit


def test_capacity_is_bounded_and_zero_where_the_state_alone_is_too_much():
    assert MODEL.capacity(1.0, 10**12, most=64) == 64
    assert MODEL.capacity(1.0, 3000) == 0  # the optimizer step takes more, however few samples
    assert MODEL.capacity(100.0, 20_000) == 0  # what all samples share does


def test_scaling_leaves_the_state():
    scaled = MODEL.scaled(1.5)
    for samples, seconds in ((1, 1.0), (100, 2.0), (100, 20.0), (1, 40.0)):
        assert scaled.peak_bytes(samples, seconds) - 400 == pytest.approx(
            1.5 * (MODEL.peak_bytes(samples, seconds) - 400)
        )


def test_comes_back_from_json():
    assert MemoryModel.from_dict(json.loads(json.dumps(asdict(MODEL)))) == MODEL
