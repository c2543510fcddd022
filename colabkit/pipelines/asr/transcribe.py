"""Recordings of any length to text with times: cut at quiet places, heard piece by piece, joined without a seam.

    transcriber = Transcriber.from_folder(run.output / "model")
    transcript = transcriber.transcribe("talk.mp3")
    write(transcript, Path("talk.srt"))

Pieces overlap, and are joined frame by frame where both hear nothing: no word is lost or doubled. Axes: T frame, C
token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colabkit.core import files
from colabkit.core.errors import UsageError
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.evaluate.decode import Hypothesis, Timed, greedy
from colabkit.training.sizing.out_of_memory import clean_up, is_out_of_memory, release

OVERLAP_SECONDS = 2.0  # of two pieces; half of short ones
SHORTEST_PIECE_SECONDS = 2.0
PAUSE_SECONDS = 0.6  # without a character: a new segment
QUIET_SECONDS = 0.2  # over which loudness is taken where a piece is to end
SILENT_SHARE = 10**-3.5  # of the energy of loud speech: 35 dB below it there is none
SILENCE_SECONDS = 0.4  # silence of that length is left out,
BEFORE_SECONDS, AFTER_SECONDS = 0.05, 0.3  # but for so much before and after speech: most corpora are cut like that
SURELY_NOT = -30.0  # log-probability of characters where nothing was said
SEAM_FRAMES = 3  # on both sides of a seam, both pieces should hear nothing
CAPTION_SECONDS, CAPTION_CHARACTERS = 7.0, 84  # of one subtitle at most
TRAINED = "trained_on.json"
FORMATS = (".txt", ".srt", ".vtt", ".json")

Decode = Callable[..., Hypothesis]  # (log_probs_TC, frame_seconds=..., start_seconds=...)


@dataclass(frozen=True, slots=True)
class Segment:
    """Speech between pauses. `words` have their own times with CTC models; Whisper tells those of segments only."""

    start_seconds: float
    end_seconds: float
    text: str
    words: tuple[Timed, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a recording of so many seconds."""

    segments: tuple[Segment, ...]
    seconds: float

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)

    @property
    def words(self) -> tuple[Timed, ...]:
        return tuple(word for segment in self.segments for word in segment.words)

    def to_dict(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 3),
            "text": self.text,
            "segments": [
                {
                    "start_seconds": round(s.start_seconds, 3),
                    "end_seconds": round(s.end_seconds, 3),
                    "text": s.text,
                    "words": [word.to_dict() for word in s.words],
                }
                for s in self.segments
            ],
        }


class Transcriber:
    """Transcribes waves and files with a recognizer.

    Pieces have `longest_seconds` at most, `at_once` go through together. A model hears best what is about as long as
    what it was trained on: `from_folder` does not make pieces longer than that.

    `decode(log_probs_TC, frame_seconds=, start_seconds=)` makes words of log-probabilities; without it the likeliest
    token of each frame counts. Raises: UsageError for pieces too short to overlap.
    """

    def __init__(
        self, recognizer: Any, *, longest_seconds: float = 30.0, at_once: int = 4, decode: Decode | None = None
    ):
        if longest_seconds < SHORTEST_PIECE_SECONDS:
            raise UsageError(
                "Cannot cut recordings into such pieces",
                got=f"{longest_seconds:g} s",
                expected=f"{SHORTEST_PIECE_SECONDS:g} s or more",
                where="data.longest_seconds",
                fix="--set data.longest_seconds=30",
            )
        self.recognizer, self.longest_seconds, self.at_once = recognizer, longest_seconds, max(1, at_once)
        self.decode = decode

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, device: str | None = None, longest_seconds: float = 30.0, **how: Any
    ) -> Transcriber:
        """Open a model that was fine-tuned, on the GPU where there is one. Raises: as load_model."""
        import torch

        from colabkit.pipelines.asr.model.recognizer import load_model

        recognizer = load_model(folder)
        recognizer.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        trained = trained_seconds(folder)
        if trained is not None:
            longest_seconds = min(longest_seconds, max(trained, SHORTEST_PIECE_SECONDS))
        return cls(recognizer, longest_seconds=longest_seconds, **how)

    def transcribe(self, source: str | Path | np.ndarray) -> Transcript:
        """Transcribe a file, or a wave at 16 kHz. Shape: (sample,). Raises: DataError for a file that is no audio."""
        wave = _wave(source)
        seconds = len(wave) / RATE_HZ
        if not len(wave):
            return Transcript((), 0.0)
        if not self.recognizer.is_ctc:
            return Transcript(tuple(self._write(wave)), seconds)
        log_probs_TC = self.log_probs(wave)
        step_seconds = self.recognizer.features.step_samples / RATE_HZ
        coder = self.recognizer.coder
        found = []
        for first, stop in talk(log_probs_TC, (coder.blank, coder.delimiter), step_seconds, self.longest_seconds):
            part, times = (
                log_probs_TC[first:stop],
                {"frame_seconds": step_seconds, "start_seconds": first * step_seconds},
            )
            heard = self.decode(part, **times) if self.decode else greedy(part, coder, **times)
            if heard.words:
                found.append(
                    Segment(
                        heard.words[0].start_seconds, min(seconds, heard.words[-1].end_seconds), heard.text, heard.words
                    )
                )
        return Transcript(tuple(found), seconds)

    def log_probs(self, wave: np.ndarray) -> np.ndarray:
        """Return the log-probabilities of a whole recording of any length (T, C), in pieces that fit."""
        step = self.recognizer.features.step_samples
        pieces = cut(wave, step, round(self.longest_seconds * RATE_HZ)) or [(0, step)]  # nothing but silence
        heard: list[np.ndarray] = []
        while len(heard) < len(pieces):
            part = pieces[len(heard) : len(heard) + self.at_once]
            try:
                heard += self._hear([wave[start:stop] for start, stop in part])
            except RuntimeError as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
                release(error)
                clean_up()
                self.at_once = len(part) // 2
        return join(heard, [start // step for start, _ in pieces], self.recognizer.coder.blank, len(wave) // step)

    def _hear(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        import torch

        recognizer = self.recognizer
        recognizer.model.eval()
        inputs = recognizer.features.collate([recognizer.features(wave) for wave in waves])
        with torch.no_grad():
            log_probs_BTC = recognizer.log_probs({name: value.to(recognizer.device) for name, value in inputs.items()})
        frames = [max(1, recognizer.features.num_frames(len(wave))) for wave in waves]
        return [one[:num] for one, num in zip(log_probs_BTC.cpu().numpy(), frames, strict=True)]

    def _write(self, wave: np.ndarray) -> Iterator[Segment]:
        """Yield what Whisper writes, which finds its own way through a recording of any length."""
        import torch

        from colabkit.pipelines.asr.model.whisper import write_timed

        recognizer = self.recognizer
        inputs = {name: value.to(recognizer.device) for name, value in recognizer.features.whole(wave).items()}
        recognizer.model.eval()
        with torch.no_grad():
            for text, start, end in write_timed(recognizer.model, recognizer.coder, inputs):
                if start < len(wave) / RATE_HZ:
                    yield Segment(start, min(end, len(wave) / RATE_HZ), text)


def cut(wave: np.ndarray, step: int, longest: int) -> list[tuple[int, int]]:
    """Return (start, stop) of pieces of at most `longest` samples, in order; starts lie on `step`s.

    Silence between them is left out. Stretches without silence that are too long are cut into pieces that overlap. A
    recording that is short enough is one piece.
    """
    if len(wave) <= longest:
        return [(0, len(wave))]
    loudness = _loudness(wave, step)
    loud = float(np.quantile(loudness, 0.9))
    pieces: list[tuple[int, int]] = []
    for start, stop in _sounds(loudness <= SILENT_SHARE * loud, step, len(wave)):
        if pieces and stop - pieces[-1][0] <= longest and pieces[-1][1] - pieces[-1][0] < longest // 3:
            pieces[-1] = (pieces[-1][0], stop)
        else:
            pieces.append((start, stop))
    return [part for start, stop in pieces for part in _split(loudness, start, stop, step, longest)]


def _sounds(is_silent: np.ndarray, step: int, num_samples: int) -> list[tuple[int, int]]:
    """Return (start, stop) in samples of what lies between long enough silences, with a little of these around."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], is_silent, [True]]).astype(int)))
    first, stop = edges[::2], edges[1::2]  # of sound, in steps
    if not len(first):
        return []
    # Loudness is taken over a while, so that sound looks longer than it is, by half of that at both ends.
    apart = (first[1:] - stop[:-1]) * step / RATE_HZ + QUIET_SECONDS >= SILENCE_SECONDS
    before, after = (
        round((seconds - QUIET_SECONDS / 2) * RATE_HZ / step) for seconds in (BEFORE_SECONDS, AFTER_SECONDS)
    )
    begins, ends = first[np.concatenate([[True], apart])] - before, stop[np.concatenate([apart, [True]])] + after
    begins[0] = begins[0] if first[0] else 0  # what sounds from the start on begins there
    # no further than the middle of the silence
    begins[1:] = np.maximum(begins[1:], (first[1:][apart] + stop[:-1][apart]) // 2)
    ends[:-1] = np.minimum(ends[:-1], (first[1:][apart] + stop[:-1][apart] + 1) // 2)
    return [(max(0, int(a)) * step, min(num_samples, int(b) * step)) for a, b in zip(begins, ends, strict=True)]


def _split(loudness: np.ndarray, start: int, stop: int, step: int, longest: int) -> list[tuple[int, int]]:
    """Return overlapping pieces of a stretch that is too long, each to end in the quietest place of its last third."""
    half = min(round(OVERLAP_SECONDS / 2 * RATE_HZ), longest // 4) // step * step
    pieces: list[tuple[int, int]] = []
    while stop - start > longest:
        latest = (start + longest - half) // step
        earliest = latest - (latest - (pieces[-1][1] if pieces else start) // step - 1) // 3  # beyond the piece before
        place = (earliest + int(loudness[earliest : latest + 1].argmin())) * step
        pieces.append((start, min(stop, place + half)))
        start = place - half
    return [*pieces, (start, stop)]


def note_trained_seconds(folder: Path, seconds: float) -> None:
    """Write beside a model how long the longest samples were that it was trained on."""
    files.write_json(Path(folder) / TRAINED, {"longest_seconds": round(float(seconds), 3)})


def trained_seconds(folder: str | Path) -> float | None:
    """Return how long the longest samples were that a model was trained on, None where its folder does not say."""
    path = Path(folder).expanduser() / TRAINED
    return float(files.read_json(path)["longest_seconds"]) if path.is_file() else None


def _loudness(wave: np.ndarray, step: int) -> np.ndarray:
    """Return the energy around every `step`-th sample. Shape: (len(wave) // step + 1,)."""
    sums = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    places, reach = np.arange(0, len(wave) + 1, step), round(QUIET_SECONDS / 2 * RATE_HZ)
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach, len(wave))
    return (sums[high] - sums[low]) / (high - low)


def join(pieces: Sequence[np.ndarray], starts: Sequence[int], blank: int, num_frames: int = 0) -> np.ndarray:
    """Return one sequence of frames made of those of pieces; piece i begins at frame starts[i].

    Shape: (T, C), T >= num_frames.

    Overlapping pieces are joined where both are surest of the blank for some frames around, well inside of what they
    share: there neither is in the middle of a character. What no piece covers is blank.
    """

    def silence(length: int) -> np.ndarray:
        made = np.full((length, pieces[0].shape[1]), SURELY_NOT, np.float32)
        made[:, blank] = 0.0
        return made

    parts, begin = [], 0  # begin: the first frame not taken yet
    for i, piece in enumerate(pieces):
        if starts[i] > begin:
            parts.append(silence(starts[i] - begin))
            begin = starts[i]
        stop = starts[i] + len(piece)
        if i + 1 < len(pieces) and starts[i + 1] < stop:
            first, last = max(begin, starts[i + 1]), min(stop, starts[i + 1] + len(pieces[i + 1]))
            stop = first + _quietest(
                np.minimum(
                    piece[first - starts[i] : last - starts[i], blank],
                    pieces[i + 1][first - starts[i + 1] : last - starts[i + 1], blank],
                )
            )
        parts.append(piece[begin - starts[i] : stop - starts[i]])
        begin = stop
    return np.concatenate([*parts, silence(max(0, num_frames - begin))])


def _quietest(blanks: np.ndarray) -> int:
    """Return the frame around which the blank is surest, of equally good ones the middle; not at the edges."""
    width = min(2 * SEAM_FRAMES + 1, len(blanks))
    sure = np.convolve(np.maximum(blanks, -20.0), np.ones(width) / width, mode="valid")
    margin = len(sure) // 4
    inner = sure[margin : len(sure) - margin]
    best = np.flatnonzero(inner >= inner.max() - 1e-3)
    return margin + int(best[np.abs(best - len(inner) // 2).argmin()]) + width // 2


def talk(
    log_probs_TC: np.ndarray, silent: tuple[int, ...], step_seconds: float, longest_seconds: float
) -> list[tuple[int, int]]:
    """Return (first, stop) of stretches of frames between pauses, none much longer than `longest_seconds`.

    Silence is left out. A stretch without a pause that is too long is cut at its longest pauses.
    """
    heard = np.flatnonzero(~np.isin(log_probs_TC.argmax(1), silent))
    if not len(heard):
        return []
    gaps = np.diff(heard)

    def middle_of(first: int, stop: int) -> int | None:
        """Return where to cut a stretch of `heard`, None where it may stay."""
        inside = gaps[first : stop - 1]
        if len(inside) and (
            inside.max() * step_seconds >= PAUSE_SECONDS
            or (heard[stop - 1] - heard[first]) * step_seconds > longest_seconds
            and inside.max() > 1
        ):
            return first + 1 + int(inside.argmax())
        return None

    found, waiting = [], [(0, len(heard))]
    while waiting:
        first, stop = waiting.pop()
        middle = middle_of(first, stop)
        if middle is None:
            found.append((first, stop))
        else:
            waiting += [(middle, stop), (first, middle)]
    ends = [0, *((heard[stop - 1] + heard[stop]) // 2 + 1 for _, stop in found[:-1]), len(log_probs_TC)]
    return [(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def captions(transcript: Transcript) -> list[Segment]:
    """Return the segments cut into subtitles, each short enough to be read."""
    found = []
    for segment in transcript.segments:
        held: list[Timed] = []
        for word in segment.words:
            text = " ".join(w.text for w in [*held, word])
            if held and (word.end_seconds - held[0].start_seconds > CAPTION_SECONDS or len(text) > CAPTION_CHARACTERS):
                found.append(_caption(held))
                held = []
            held.append(word)
        found.append(_caption(held) if held else segment)
    return found


def _caption(words: Sequence[Timed]) -> Segment:
    return Segment(words[0].start_seconds, words[-1].end_seconds, " ".join(w.text for w in words), tuple(words))


def write(transcript: Transcript, path: Path) -> Path:
    """Write a transcript as its suffix says: .txt, .srt, .vtt or .json. Raises: UsageError for another."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise UsageError(
            "Cannot write this kind of transcript",
            got=path.suffix or path.name,
            expected=", ".join(FORMATS),
            where=path,
            fix="name the file .txt, .srt, .vtt or .json",
        )
    if path.suffix == ".json":
        content = json.dumps(transcript.to_dict(), ensure_ascii=False, indent=1) + "\n"
    elif path.suffix == ".txt":
        content = "".join(segment.text + "\n" for segment in transcript.segments)
    else:
        point = "," if path.suffix == ".srt" else "."
        blocks = [
            f"{number}\n{_clock(c.start_seconds, point)} --> {_clock(c.end_seconds, point)}\n{c.text}\n"
            for number, c in enumerate(captions(transcript), 1)
        ]
        content = "\n".join((["WEBVTT\n"] if path.suffix == ".vtt" else []) + blocks)
    files.write_atomic(path, content)
    return path


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(1000 * seconds)
    return (
        f"{milliseconds // 3_600_000:02}:{milliseconds // 60_000 % 60:02}:{milliseconds // 1000 % 60:02}{point}"
        f"{milliseconds % 1000:03}"
    )


def _wave(source: str | Path | np.ndarray) -> np.ndarray:
    from colabkit.io.audio import read_audio

    if isinstance(source, (str, Path)):
        return read_audio(source, rate_hz=RATE_HZ)
    wave = np.asarray(source, np.float32)
    if wave.ndim != 1 or not np.isfinite(wave).all():
        raise UsageError(
            "Cannot transcribe this",
            got=f"an array of shape {wave.shape}",
            where="transcribe",
            expected="a file, or one channel of finite numbers at 16 kHz",
            fix="pass the file's path",
        )
    return wave
