"""Profiles of hardware, data sets and models."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from colabkit.core.errors import DataError
from colabkit.io.audio import write_wav
from colabkit.pipelines.asr.configure.profiles import (
    DatasetProfile,
    HardwareProfile,
    ModelProfile,
    profile_dataset,
    profile_hardware,
    profile_model,
    ram_available_bytes,
    summarise,
)
from colabkit.training.sizing import devices


def test_hardware_of_this_machine():
    profile, device = profile_hardware(0.8)
    assert profile.num_cpus >= 1 and 0 < profile.ram_available_gib <= profile.ram_total_gib
    free = profile.gpu_available_gib if device.kind == "cuda" else profile.ram_total_gib
    assert profile.usable_gib == pytest.approx(0.8 * free)
    assert HardwareProfile.from_dict(profile.to_dict()) == profile
    stored = HardwareProfile.from_dict(profile.lasting())
    assert stored.ram_available_gib is None and str(stored) and stored.lasting() == profile.lasting()
    assert 0 < ram_available_bytes() <= profile.ram_total_gib * 2**30 * 8


def test_hardware_one_does_not_have():
    profile, device = profile_hardware(0.85, devices.find("L4"))
    assert profile.gpu_name == device.name == "L4" and profile.supports_bf16 and 21 < profile.gpu_available_gib < 23
    assert "L4" in str(profile) and "85%" in str(profile) and "<table" in profile._repr_html_()


def test_durations_are_measured_and_extrapolated(tmp_path):
    lengths = np.random.default_rng(0).uniform(1, 20, 2000)
    profile = profile_dataset([{"duration": float(s), "text": "a"} for s in lengths], sample_size=500)
    assert (profile.num_samples, profile.num_sampled) == (2000, 500)
    assert profile.mean_seconds == pytest.approx(10.5, rel=0.1)
    assert profile.total_hours == pytest.approx(lengths.sum() / 3600, rel=0.1)
    values = list(profile.percentiles.values())
    assert values == sorted(values) and profile.min_seconds <= values[0] and values[-1] <= profile.max_seconds
    assert profile.size_gb == pytest.approx(profile.total_hours * 3600 * 32_000 / 1e9, rel=0.01)
    assert DatasetProfile.from_dict({**profile.to_dict(), "another": 1}) == profile
    assert "2000" in str(profile) and "percentiles" in str(profile)


def test_the_size_is_that_of_the_files(tmp_path):
    for i in range(4):
        write_wav(tmp_path / f"{i}.wav", np.zeros(16_000 * (i + 1), np.float32), 16_000)
    paths = sorted(map(str, tmp_path.glob("*.wav")))
    profile = profile_dataset([{"audio": p, "text": "a"} for p in paths])
    assert profile.size_gb == pytest.approx(
        sum((tmp_path / f"{i}.wav").stat().st_size for i in range(4)) / 1e9, abs=1e-4
    )
    assert profile.rate_hz == 16_000 and (profile.min_seconds, profile.max_seconds) == (1.0, 4.0)


def test_broken_samples_are_counted_and_the_rest_measured(tmp_path):
    write_wav(tmp_path / "good.wav", np.zeros(16_000, np.float32), 16_000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    told = []
    profile = profile_dataset(
        [{"audio": str(tmp_path / n), "text": "a"} for n in ("good.wav", "bad.wav", "good.wav")],
        problem=lambda item, reason: told.append((item, reason)),
    )
    assert profile.num_broken == 1 and profile.num_sampled == 2 and len(told) == 1 and "1 broken" in str(profile)
    with pytest.raises(DataError, match="Not one of the samples"):
        profile_dataset([{"audio": str(tmp_path / "bad.wav"), "text": "a"}])


def test_a_stream_does_not_say_how_much_it_holds():
    def endless():
        while True:
            yield {"duration": 3.0, "text": "a"}

    class Stream:
        __iter__ = staticmethod(endless)

    profile = profile_dataset(Stream(), sample_size=10)
    assert (
        profile.num_samples is None
        and profile.total_hours is None
        and profile.size_gb is None
        and "stream" in str(profile)
    )


def test_data_without_text_or_audio():
    with pytest.raises(DataError, match="no transcripts"):
        profile_dataset([{"duration": 3.0}])
    assert profile_dataset([{"duration": 3.0}], needs_text=False).mean_seconds == 3.0
    with pytest.raises(DataError, match="no audio"):
        profile_dataset([{"text": "a"}])


def test_known_hours_beat_what_a_sample_suggests():
    assert summarise([1.0, 2.0], num_samples=100, how="2 of 100", hours=7.0).total_hours == 7.0


def test_a_model_is_counted():
    model = nn.Sequential(nn.Linear(100, 200), nn.Linear(200, 10))
    model[0].requires_grad_(False)
    profile = profile_model(model, name="two")
    assert (profile.parameters, profile.trainable) == (100 * 200 + 200 + 200 * 10 + 10, 200 * 10 + 10)
    assert profile.total_gib == profile.weights_gib + profile.gradients_gib + profile.optimizer_gib
    assert ModelProfile.from_dict(profile.to_dict()) == profile and "two" in str(profile)
    with pytest.raises(DataError, match="no parameters"):
        profile_model(nn.ReLU())
