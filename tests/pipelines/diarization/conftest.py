"""Shared by the diarization tests: speakers made of modulated buzz and small models."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from colabkit.pipelines.diarization.conversations.simulate import Acoustics, ConversationSimulator
from colabkit.pipelines.diarization.conversations.turn_taking import measured_meetings
from colabkit.pipelines.diarization.model.network import FastDiarizationModel
from colabkit.pipelines.diarization.speech.bank import SpeakerMaterial, SpeechBank, prepare
from tests.told import Told

RATE_HZ = 16_000


def buzz(seconds: float, *, f0_hz: float, seed: int) -> np.ndarray:
    """Syllables of a harmonic tone with pauses in between: what a level detector takes for speech."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tone = sum(np.sin(2 * np.pi * f0_hz * k * time + k) / k for k in range(1, 12))
    envelope, place = np.zeros(len(time)), 0
    while place < len(time):
        talk = int(rng.uniform(0.5, 1.5) * RATE_HZ)
        envelope[place : place + talk] = 1.0
        place += talk + int(rng.uniform(0.5, 0.8) * RATE_HZ)
    envelope *= 0.55 + 0.45 * np.sin(2 * np.pi * 4.0 * time)
    return (0.1 * tone * envelope + 1e-4 * rng.standard_normal(len(time))).astype(np.float32)


def buzz_bank(num_speakers: int) -> SpeechBank:
    speakers = []
    for i in range(num_speakers):
        material = SpeakerMaterial(f"speaker{i}", "FM"[i % 2])
        for j in range(2):
            assert material.put(prepare(buzz(6.0, f0_hz=90.0 + 23.0 * i, seed=10 * i + j)))
        speakers.append(material)
    return SpeechBank(speakers)


@pytest.fixture(scope="session")
def make_buzz():
    return buzz


@pytest.fixture(scope="session")
def make_bank():
    return buzz_bank


@pytest.fixture(scope="session")
def bank():
    return buzz_bank(8)


@pytest.fixture(scope="session")
def make_simulator(bank):
    """Return a maker of simulators; what is not given is small and clean."""

    def make(given_bank=None, **how):
        how = {"seed": 0, "window_seconds": 6.0, "speaker_counts": {2: 1.0}, "max_speakers": 2, "acoustics": None} | how
        return ConversationSimulator(given_bank or bank, measured_meetings(), **how)

    return make


@pytest.fixture(scope="session")
def loud_acoustics():
    """Everything that can happen to the sound happens often."""
    return Acoustics(telephone_probability=0.5)


@pytest.fixture
def make_model():
    """Return a maker of tiny models with fixed weights."""

    def make(num_speakers=2, encoder_type="lightweight-cnn", *, seed=0, **how):
        torch.manual_seed(seed)
        how = {"hidden_size": 16, "num_blocks": 1, "num_attention_layers": 1, "embedding_size": 8, "num_heads": 2} | how
        return FastDiarizationModel(num_speakers, encoder_type=encoder_type, **how)

    return make


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def problems(told):
    """What was told as left aside: reasons by item."""
    return told.problems


@pytest.fixture(scope="session")
def real_data():
    """The folder of real recordings; tests that want it are skipped without it."""
    folder = Path(os.environ.get("COLABKIT_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}")
    return folder
