"""The speech detector: the package's own probabilities, whatever the blocks; speech found where there is some."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from colabkit.core.errors import StateError
from colabkit.io.voices import make_speakers, utterance
from colabkit.pipelines.dataset.cut.vad import FRAME_SAMPLES, FRAME_SECONDS, load_detector

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed")


@pytest.fixture(scope="module")
def detector():
    return load_detector()


@pytest.fixture(scope="module")
def spoken():
    """A second of silence, an utterance, a second of silence; and where its words are."""
    said = utterance(make_speakers(1)[0], 0)
    silence = np.zeros(16_000, np.float32)
    return (
        np.concatenate([silence, said.wave, silence]),
        1 + said.words[0].start_seconds,
        1 + said.words[-1].end_seconds,
    )


def test_speech_is_where_words_are(detector, spoken):
    wave, start, stop = spoken
    found = detector.probabilities(wave)
    times = np.arange(len(found)) * FRAME_SECONDS
    assert found.dtype == np.float32 and len(found) == -(-len(wave) // FRAME_SAMPLES)
    assert found[(times > start + 0.1) & (times < stop - 0.2)].mean() > 0.8
    assert found[(times < start - 0.2) | (times > stop + 0.3)].max() < 0.35


@pytest.mark.parametrize("sizes", [[1], [511], [512], [513], [8_191, 3, 1_024], [100_000]])
def test_blocks_change_nothing(detector, spoken, sizes):
    wave, _, _ = spoken
    wave = wave[: 40_000 if sizes == [1] else None]
    wave = wave[:6_000] if sizes == [1] else wave
    whole, stream, parts, at = detector.probabilities(wave), detector.stream(), [], 0
    while at < len(wave):
        size = sizes[len(parts) % len(sizes)]
        parts.append(stream.push(wave[at : at + size]))
        at += size
    parts.append(stream.finish())
    assert np.abs(np.concatenate(parts) - whole).max() < 1e-6


def test_recordings_beside_each_other_do_not_mix(detector, spoken):
    wave, _, _ = spoken
    waves = [wave, wave[::-1].copy(), np.zeros(50_000, np.float32), wave[9_000:]]
    alone = [detector.probabilities(w) for w in waves]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector.probabilities, waves * 3))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 3, together, strict=True))


def test_the_probabilities_are_those_of_the_package(detector, spoken):
    """In a process of its own: the package changes torch's settings when it is imported."""
    wave, _, _ = spoken
    program = """
import sys, numpy as np, torch
from silero_vad import load_silero_vad
model, wave = load_silero_vad(), torch.from_numpy(np.load(sys.argv[1]))
found = [model(torch.nn.functional.pad(wave[i:i + 512], (0, 512 - len(wave[i:i + 512]))), 16_000).item()
         for i in range(0, len(wave), 512)]
np.save(sys.argv[1], np.array(found, np.float32))
"""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wave.npy"
        np.save(path, wave)
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
        if "ModuleNotFoundError" in done.stderr or "Could not load this library" in done.stderr:
            pytest.skip("the package cannot be imported here")
        assert done.returncode == 0, done.stderr
        theirs = np.load(path)
    assert np.abs(detector.probabilities(wave) - theirs).max() < 1e-3


def test_an_empty_wave_has_no_frames(detector):
    assert len(detector.probabilities(np.zeros(0, np.float32))) == 0


@pytest.mark.parametrize("spec", [None, type("Spec", (), {"submodule_search_locations": ["/nowhere"]})()])
def test_a_missing_model_says_how_to_get_it(monkeypatch, spec):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(StateError) as caught:
        load_detector()
    assert "pip install --no-deps 'silero-vad>=" in caught.value.fix


def test_the_package_is_never_imported():
    program = (
        "import sys; from colabkit.pipelines.dataset.cut.vad import load_detector; load_detector();"
        "assert not {'silero_vad', 'torch', 'torchaudio'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
