"""Find speech: Silero VAD's model, run block by block over recordings of any length.

Source: github.com/snakers4/silero-vad, the "sequence" export of its model 6: frames of 512 samples at 16 kHz, each with
64 samples before it; the state goes from block to block, so that the blocks' size changes nothing. The file is taken
from the package, which itself is never imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np

from colabkit.core.errors import StateError, missing_extra

RATE_HZ = 16_000
FRAME_SAMPLES = 512
FRAME_SECONDS = FRAME_SAMPLES / RATE_HZ
_CONTEXT_SAMPLES = 64
_BLOCK_FRAMES = 512
_MODEL = "silero_vad_16k_sequence.onnx"


class SpeechDetector:
    """The model. One is enough for many threads: each recording has a stream of its own."""

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise missing_extra(error, "dataset") from error
        content = path.read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # recordings run beside each other instead
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]

    def stream(self) -> SpeechStream:
        """Return what listens to one recording."""
        return SpeechStream(self)

    def probabilities(self, wave: np.ndarray) -> np.ndarray:
        """Return the probability of speech in each frame of a (sample,) wave at 16 kHz. Shape: (frame,) float32."""
        stream = self.stream()
        return np.concatenate([stream.push(wave), stream.finish()])


class SpeechStream:
    """Listens to one recording from its beginning, a piece at a time."""

    def __init__(self, detector: SpeechDetector):
        self.detector = detector
        self._hidden = np.zeros((1, 1, 128), np.float32)
        self._cell = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT_SAMPLES, np.float32)
        self._rest = np.zeros(0, np.float32)  # less than a frame

    def push(self, wave: np.ndarray) -> np.ndarray:
        """Return the probabilities of the frames that `wave`, (sample,) at 16 kHz, completes.

        Shape: (frame,) float32.
        """
        wave = np.concatenate([self._rest, np.asarray(wave, np.float32)])
        num_frames = len(wave) // FRAME_SAMPLES
        self._rest = wave[num_frames * FRAME_SAMPLES :]
        frames = wave[: num_frames * FRAME_SAMPLES].reshape(num_frames, FRAME_SAMPLES)
        found = [self._run(frames[i : i + _BLOCK_FRAMES]) for i in range(0, num_frames, _BLOCK_FRAMES)]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """Return the probability of the last frame, which silence fills up; none where nothing is left."""
        return self.push(np.zeros(-len(self._rest) % FRAME_SAMPLES, np.float32))

    def _run(self, frames: np.ndarray) -> np.ndarray:
        contexts = np.concatenate([self._context[None], frames[:-1, -_CONTEXT_SAMPLES:]])
        self._context = frames[-1, -_CONTEXT_SAMPLES:].copy()
        given = {"input": np.concatenate([contexts, frames], axis=1), "h": self._hidden, "c": self._cell}
        found, self._hidden, self._cell = self.detector.session.run(["speech_probs", "hn", "cn"], given)
        return found.reshape(-1)


def load_detector() -> SpeechDetector:
    """Load the model out of the installed silero-vad.

    Raises: StateError when it is not there, or too old to hold it.
    """
    found = importlib.util.find_spec("silero_vad")
    folders = list(found.submodule_search_locations or ()) if found else []
    path = next((p for folder in folders if (p := Path(folder) / "data" / _MODEL).is_file()), None)
    if path is None:
        raise StateError(
            "Cannot find speech: the model is not installed",
            where=_MODEL,
            got="an older silero-vad" if folders else "no silero-vad",
            expected="silero-vad 6.2.3 or newer",
            fix="pip install --no-deps 'silero-vad>=6.2.3'",
        )
    return SpeechDetector(path)
