"""Listen to one recording from beginning to end, a block at a time, and yield what was cut out of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from colabkit.core.errors import DataError
from colabkit.io.audio.opened import AudioSource, OpenedAudio
from colabkit.pipelines.dataset.cut.recordings import Recording
from colabkit.pipelines.dataset.cut.spans import Span, cut, last_rest, padded
from colabkit.pipelines.dataset.cut.subtitles import marks
from colabkit.pipelines.dataset.cut.vad import FRAME_SECONDS, RATE_HZ, SpeechDetector
from colabkit.pipelines.dataset.segments.quality import levels_db
from colabkit.pipelines.dataset.segments.rules import CutRules

BLOCK_SECONDS = 30.0
MOST_SECONDS = 300.0  # held in memory: speech without a single pause for so long is cut where it is


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What was cut out: (sample,) float32 at `rate_hz`, with the probabilities and levels of its frames."""

    wave: np.ndarray
    rate_hz: int
    start_seconds: float
    probabilities: np.ndarray
    level_db: np.ndarray

    @property
    def stop_seconds(self) -> float:
        return self.start_seconds + len(self.wave) / self.rate_hz


class Listener:
    """Cuts one recording. `seconds` and `speech_seconds` are what was heard so far, whole after `excerpts`."""

    def __init__(
        self,
        recording: Recording,
        detector: SpeechDetector,
        rules: CutRules,
        rate_hz: int | None,
        block_seconds: float = BLOCK_SECONDS,
    ):
        # one text for all of it: in one piece, if it may
        if any(line.stop_seconds == math.inf for line in recording.lines):
            rules = replace(rules, max_pause_seconds=max(rules.max_pause_seconds, rules.max_seconds - 1))
        self.recording, self.rules, self.wanted_hz, self.block_seconds = recording, rules, rate_hz, block_seconds
        self.stream = detector.stream()
        self.seconds = self.speech_seconds = 0.0
        self.num_channels = 1

    def excerpts(self) -> Iterator[Excerpt]:
        """Yield what the rules cut, in order. Raises: DataError for a recording that cannot be read to its end."""
        source = self.recording.open()
        try:
            yield from self._listen(source)
        except DataError:
            # of a store that did not answer: libsndfile takes it for the end
            failure = getattr(source, "failure", None)
            if failure is not None:
                raise failure from None
            raise

    def _listen(self, source: AudioSource) -> Iterator[Excerpt]:
        with OpenedAudio(source) as audio:
            self.num_channels = audio.file.channels
            self.rate_hz = self.wanted_hz or audio.rate_hz
            self.seconds = audio.num_frames / audio.rate_hz
            self._wave, self._first_sample = np.zeros(0, np.float32), 0  # what is held, and where it begins
            self._found, self._first_frame = np.zeros(0, np.float32), 0
            to_model, to_wanted = _Rate(audio.rate_hz, RATE_HZ), _Rate(audio.rate_hz, self.rate_hz)
            for block, is_last in _blocks(audio, self.block_seconds):
                heard = self.stream.push(to_model(block, is_last))
                self._found = np.concatenate(
                    [self._found, heard, self.stream.finish()] if is_last else [self._found, heard]
                )
                self._wave = np.concatenate([self._wave, to_wanted(block, is_last)])
                yield from self._cut_held(is_last)

    def _cut_held(self, is_last: bool) -> Iterator[Excerpt]:
        """Cut what is held up to the last long pause, or to its end; keep the rest."""
        num_frames = len(self._found) if is_last else min(len(self._found), self._frames_of_wave())
        edges = self._edges(num_frames)
        level_db = levels_db(self._wave, edges - self._first_sample)
        rest = num_frames if is_last else last_rest(self._found[:num_frames], self.rules)
        is_held_too_long = not rest and num_frames * FRAME_SECONDS > MOST_SECONDS
        if not rest and not is_held_too_long:
            return
        stop = rest or num_frames
        breaks, inside = marks(self.recording.lines, self._first_frame, stop, FRAME_SECONDS)
        spans = cut(self._found[:stop], level_db[:stop], self.rules, breaks=breaks, keep_whole=inside)
        if is_held_too_long and len(spans) > 1:  # the last goes on in what comes next
            stop, spans = spans[-1][0], spans[:-1]
        self.speech_seconds += sum(b - a for a, b in spans) * FRAME_SECONDS
        for span in padded(spans, stop, self.rules):
            yield self._excerpt(span, edges, level_db)
        self._forget(stop, edges)

    def _excerpt(self, span: Span, edges: np.ndarray, level_db: np.ndarray) -> Excerpt:
        start, stop = int(edges[span[0]]), int(edges[span[1]])
        wave = self._wave[start - self._first_sample : stop - self._first_sample].copy()
        return Excerpt(
            wave, self.rate_hz, start / self.rate_hz, self._found[span[0] : span[1]], level_db[span[0] : span[1]]
        )

    def _forget(self, num_frames: int, edges: np.ndarray) -> None:
        first_sample = int(edges[num_frames])
        self._wave = self._wave[first_sample - self._first_sample :].copy()
        self._found = self._found[num_frames:]
        self._first_sample, self._first_frame = first_sample, self._first_frame + num_frames

    def _edges(self, num_frames: int) -> np.ndarray:
        """Return where the frames that are held begin in the recording, and where the last ends.

        Shape: (frame + 1,).
        """
        frames = self._first_frame + np.arange(num_frames + 1, dtype=np.int64)
        return np.minimum(
            np.round(frames * FRAME_SECONDS * self.rate_hz).astype(np.int64), self._first_sample + len(self._wave)
        )

    def _frames_of_wave(self) -> int:
        """Return how many of the frames held have all of their samples."""
        return max(
            0, int((self._first_sample + len(self._wave)) / (FRAME_SECONDS * self.rate_hz)) - self._first_frame - 1
        )


class _Rate:
    """Brings blocks to a rate, as if they were one."""

    def __init__(self, from_hz: int, to_hz: int):
        self.resampler = None
        if from_hz != to_hz:
            import soxr

            self.resampler = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32")

    def __call__(self, block: np.ndarray, is_last: bool) -> np.ndarray:
        return block if self.resampler is None else self.resampler.resample_chunk(block, last=is_last)


def _blocks(audio: OpenedAudio, seconds: float) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield a recording's mono blocks, and whether each is the last, which may be up to twice as long."""
    length, begin = max(1, int(seconds * audio.rate_hz)), 0
    while begin < audio.num_frames:
        end = begin + length if begin + 2 * length <= audio.num_frames else audio.num_frames
        yield audio.read_mono(begin, end), end == audio.num_frames
        begin = end
