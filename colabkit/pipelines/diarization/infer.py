"""Diarize recordings of any length: sliding windows, linking, turns. NumPy only; the network is a callable.

Axes: W window, F frame of 20 ms, S local speaker, C powerset class, E embedding, K speaker of the recording.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError
from colabkit.pipelines.diarization import FRAME_SAMPLES, FRAME_SECONDS, RATE_HZ
from colabkit.pipelines.diarization.clustering import AGREEMENT_SECONDS, link_speakers
from colabkit.pipelines.diarization.config import InferConfig
from colabkit.pipelines.diarization.rttm import Turn, frames_to_turns

SHORTEST_SECONDS = 0.5
RELIABLE_SECONDS = 1.0  # solo speech that makes an embedding worth clustering by
DEFAULT_CLUSTER_DISTANCE, DEFAULT_SMOOTHING_SECONDS = 0.7, 0.0
WINDOWS_AT_ONCE = 4

RunWindows = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""waves (W, sample) float32 -> log probabilities or logits (W, F, C), embeddings (W, F, E)."""


@dataclass(frozen=True, slots=True)
class Windows:
    """What the network says of every window: probability and active (W, F, S), embeddings (W, S, E)."""

    num_frames: int  # of the recording
    starts: np.ndarray  # (W,) first frame of each window
    probability: np.ndarray
    active: np.ndarray
    embeddings: np.ndarray


@dataclass(frozen=True, slots=True)
class Diarizer:
    """A trained network with all that is needed to use it. `table` (C, S) says who talks in each powerset class."""

    run_windows: RunWindows
    table: np.ndarray
    settings: InferConfig
    cluster_distance: float = DEFAULT_CLUSTER_DISTANCE
    smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS

    @classmethod
    def from_onnx(
        cls, folder: str | Path, *, int8: bool = False, settings: InferConfig | None = None, num_threads: int = 0
    ) -> Diarizer:
        """Load `model.onnx` (or `model.int8.onnx`) and `diarizer.json`; needs onnxruntime, not torch."""
        import onnxruntime

        description = files.read_json(Path(folder) / "diarizer.json")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(Path(folder) / ("model.int8.onnx" if int8 else "model.onnx")),
            options,
            providers=["CPUExecutionProvider"],
        )
        return cls(
            lambda wave: tuple(session.run(None, {"wave": wave})),
            np.array(description["table"], np.float32),
            settings or InferConfig(**description["infer"]),
            **tuned_in(description),
        )

    def diarize(self, wave: np.ndarray, *, num_speakers: int | None = None) -> list[Turn]:
        """Return who speaks when. Shapes: wave (sample,) float32 at 16 kHz. Raises: DataError when it is too short."""
        return self.link(self.run(wave), num_speakers=num_speakers)

    def run(self, wave: np.ndarray) -> Windows:
        """Run the network on every window of a recording, and decode who talks in it."""
        return self.decode(len(wave) // FRAME_SAMPLES, self.score(wave))

    def score(self, wave: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield what the network says of some windows at a time: probabilities (W, F, C) and embeddings (W, F, E).

        Shapes: wave (sample,) float32 at 16 kHz. Raises: DataError when it is too short, or holds what is no number.
        """
        if len(wave) < SHORTEST_SECONDS * RATE_HZ:
            raise DataError(
                "The recording is too short to diarize",
                got=f"{len(wave) / RATE_HZ:.2f} s",
                expected=f"at least {SHORTEST_SECONDS} s",
                fix="leave this file out",
            )
        if not np.isfinite(wave).all():
            raise DataError(
                "The recording holds samples that are not numbers",
                got=f"{int((~np.isfinite(wave)).sum())} samples",
                expected="finite samples",
                fix="write the file anew, for example as 16-bit wav",
            )
        starts, length = window_starts(len(wave) // FRAME_SAMPLES, self.settings)
        for first in range(0, len(starts), WINDOWS_AT_ONCE):
            waves = np.stack(
                [
                    wave[s * FRAME_SAMPLES : (s + length) * FRAME_SAMPLES]
                    for s in starts[first : first + WINDOWS_AT_ONCE]
                ]
            ).astype(np.float32, copy=False)
            logits_WFC, embeddings_WFE = self.run_windows(waves)
            odds_WFC = np.exp(logits_WFC - logits_WFC.max(-1, keepdims=True))
            yield odds_WFC / odds_WFC.sum(-1, keepdims=True), embeddings_WFE

    def decode(self, num_frames: int, scored: Iterable[tuple[np.ndarray, np.ndarray]]) -> Windows:
        """Return who talks in each window of a recording of so many frames, by what `score` said of them.

        Probabilities are averaged over `smoothing_seconds`, so that no single frame changes who talks.
        """
        from scipy.ndimage import uniform_filter1d

        asked = self.settings.smoothing_seconds
        # odd: nothing shifts
        width = 1 + 2 * round((self.smoothing_seconds if asked is None else asked) / FRAME_SECONDS / 2)
        probability, active, embeddings = [], [], []
        for classes_WFC, embeddings_WFE in scored:
            smoothed_WFC = uniform_filter1d(classes_WFC, width, axis=1, mode="nearest")
            probability.append(smoothed_WFC @ self.table)
            active.append(self.table[smoothed_WFC.argmax(-1)] > 0)
            embeddings.append(_embed(embeddings_WFE, active[-1]))
        starts, _ = window_starts(num_frames, self.settings)
        return Windows(
            num_frames, starts, np.concatenate(probability), np.concatenate(active), np.concatenate(embeddings)
        )

    def link(self, windows: Windows, *, num_speakers: int | None = None) -> list[Turn]:
        """Link the windows' local speakers into the recording's and return their turns."""
        active = _combine(windows, self._speakers(windows, num_speakers or self.settings.num_speakers))
        order = np.argsort(np.where(active.any(0), active.argmax(0), windows.num_frames), kind="stable")
        names = [f"speaker{i + 1:02d}" for i in range(active.shape[1])]
        return frames_to_turns(
            active[:, order],
            FRAME_SECONDS,
            names,
            self.settings.shortest_turn_seconds,
            self.settings.shortest_pause_seconds,
        )

    def _speakers(self, windows: Windows, num_speakers: int | None) -> np.ndarray:
        """Return the recording's speaker of each local one, (W, S) int, -1 for those who never talk."""
        speaker_WS = np.full(windows.active.shape[::2], -1)
        alone_WS = (windows.active & (windows.active.sum(-1, keepdims=True) == 1)).sum(1)
        window, local = np.nonzero(windows.active.any(1))
        distance = self.settings.cluster_distance
        speaker_WS[window, local] = link_speakers(
            windows.embeddings[window, local],
            alone_WS[window, local],
            window,
            _agreement(windows, window, local),
            cluster_distance=self.cluster_distance if distance is None else distance,
            num_speakers=num_speakers,
            reliable_frames=round(RELIABLE_SECONDS / FRAME_SECONDS),
        )
        return speaker_WS

    def describe(self) -> str:
        """Return the JSON that from_onnx reads beside the network."""
        return json.dumps(
            {
                "table": self.table.tolist(),
                "infer": asdict(self.settings),
                "cluster_distance": self.cluster_distance,
                "smoothing_seconds": self.smoothing_seconds,
                "rate_hz": RATE_HZ,
                "frame_seconds": FRAME_SECONDS,
            },
            indent=1,
        )


def tuned_in(description: dict) -> dict[str, float]:
    """Return what validation found, of a diarizer.json; one that tells of no smoothing was tuned without."""
    return {
        "cluster_distance": description["cluster_distance"],
        "smoothing_seconds": description.get("smoothing_seconds", 0.0),
    }


def window_starts(num_frames: int, settings: InferConfig) -> tuple[np.ndarray, int]:
    """Return the windows' first frames and their length; one window for a short recording, the last ends with it."""
    length = round(settings.window_seconds / FRAME_SECONDS)
    if num_frames <= length * 1.5:
        return np.zeros(1, int), num_frames
    hop = round(settings.hop_seconds / FRAME_SECONDS)
    starts = np.arange(0, num_frames - length, hop)
    return np.append(starts, num_frames - length), length


def _embed(frame_embeddings: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Average embeddings over the frames in which a speaker talks alone. Shapes: (W, F, E), (W, F, S) -> (W, S, E)."""
    alone = (active & (active.sum(-1, keepdims=True) == 1)).astype(np.float32)
    summed = np.einsum("wfs,wfe->wse", alone, frame_embeddings)
    return summed / np.maximum(np.linalg.norm(summed, axis=-1, keepdims=True), 1e-6)


def _agreement(windows: Windows, window: np.ndarray, local: np.ndarray) -> np.ndarray:
    """Return, for each two local speakers, intersection over union of speech in the common part of their windows."""
    starts, active = windows.starts, windows.active
    length = active.shape[1]
    result = np.full((len(window), len(window)), np.nan)
    first_item = np.searchsorted(window, np.arange(len(starts) + 1))
    for a in range(len(starts)):
        for b in range(a + 1, len(starts)):
            shift = int(starts[b] - starts[a])
            if shift >= length:
                break
            ours = active[a, shift:, local[first_item[a] : first_item[a + 1]]].astype(np.float32)
            theirs = active[b, : length - shift, local[first_item[b] : first_item[b + 1]]].astype(np.float32)
            common = ours @ theirs.T
            union = ours.sum(1)[:, None] + theirs.sum(1)[None] - common
            value = np.where(union >= AGREEMENT_SECONDS / FRAME_SECONDS, common / np.maximum(union, 1), np.nan)
            rows, columns = slice(first_item[a], first_item[a + 1]), slice(first_item[b], first_item[b + 1])
            result[rows, columns] = value
            result[columns, rows] = value.T
    return result


def _combine(windows: Windows, speaker_WS: np.ndarray) -> np.ndarray:
    """Average the windows: as many speakers talk in a frame as the windows say, the likeliest ones. -> (F, K) bool."""
    num_frames, active = windows.num_frames, windows.active
    num_speakers = max(int(speaker_WS.max()) + 1, 1)
    length = active.shape[1]
    # The middle of a window knows both sides and counts most.
    weight = np.minimum(np.arange(length) + 1, np.arange(length)[::-1] + 1).clip(max=length // 4 + 1).astype(np.float64)
    score = np.zeros((num_frames, num_speakers))
    count, total = np.zeros(num_frames), np.zeros(num_frames)
    for w, start in enumerate(windows.starts):
        frames = slice(start, start + length)
        for s, k in enumerate(speaker_WS[w]):
            if k >= 0:
                score[frames, k] += weight * windows.probability[w, :, s]
        count[frames] += weight * active[w].sum(-1)
        total[frames] += weight
    number = np.round(count / np.maximum(total, 1e-9)).astype(int)
    rank = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1, kind="stable")
    return (rank < number[:, None]) & (score > 0)
