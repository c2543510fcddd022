"""Recordings of radio channels that never were: several voices, pauses, a little noise, a jingle.

They are made offline and are repeatable.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.io.samples.shards import flac_bytes
from colabkit.io.voices import make_speakers, utterance

CHANNELS = ("Atlas", "Meridian", "Polaris")
TRANSCRIPT = "transcript.csv"  # recording, start, end, text, speaker: a table for find_recordings
_JINGLE_SECONDS = 2.0
_NOISE_DB = -58.0


def made_recordings(
    folder: Path,
    *,
    num_channels: int = 3,
    seconds: float = 60.0,
    speakers_a_channel: int = 2,
    rate_hz: int = 24_000,
    languages: tuple[str, ...] = ("en", "es", "it"),
    seed: int = 0,
) -> list[Path]:
    """Write CHANNEL/morning.flac for each channel, about so many seconds long, and TRANSCRIPT for all.

    Returns the audio files. Each begins with a jingle, which is no speech; then its speakers take turns. The same
    arguments give the same bytes. Raises as io/voices/__init__.py does.
    """
    speakers = make_speakers(num_channels * speakers_a_channel, seed=seed, languages=languages)
    paths, rows = [], []
    for number in range(num_channels):
        name = CHANNELS[number % len(CHANNELS)] + (str(number // len(CHANNELS) + 1) if number >= len(CHANNELS) else "")
        draw = np.random.default_rng([seed, number])
        parts, at, turn = [_jingle(rate_hz, number)], _JINGLE_SECONDS, 0
        while at < seconds:
            speaker = speakers[
                (turn + int(draw.integers(0, speakers_a_channel)) * (turn % 3 == 2)) % speakers_a_channel
                + number * speakers_a_channel
            ]
            said = utterance(speaker, turn, seed=seed, rate_hz=rate_hz)
            pause = np.zeros(int(rate_hz * draw.uniform(0.25, 1.6)), np.float32)
            at += len(pause) / rate_hz
            rows.append(
                [
                    f"{name}/morning.flac",
                    f"{at + said.words[0].start_seconds:.3f}",
                    f"{at + said.words[-1].end_seconds:.3f}",
                    said.text,
                    said.speaker,
                ]
            )
            parts += [pause, said.wave]
            at += said.duration_seconds
            turn += 1
        wave = np.concatenate([*parts, np.zeros(rate_hz, np.float32)])
        noise = draw.standard_normal(len(wave)).astype(np.float32) * np.float32(10 ** (_NOISE_DB / 20))
        path = Path(folder) / name / "morning.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, flac_bytes(wave + noise, rate_hz), durable=False)
        paths.append(path)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([["recording", "start", "end", "text", "speaker"], *rows])
    files.write_atomic(Path(folder) / TRANSCRIPT, table.getvalue(), durable=False)
    return paths


def _jingle(rate_hz: int, number: int) -> np.ndarray:
    """Return a few notes, other ones for each channel. Shape: (sample,) float32."""
    time = np.arange(int(rate_hz * _JINGLE_SECONDS / 4)) / rate_hz
    notes = [220 * 2 ** ((step + 2 * number) / 12) for step in (0, 4, 7, 12)]
    fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.02)
    return np.concatenate(
        [0.2 * fade * (np.sin(2 * np.pi * f * time) + 0.3 * np.sin(4 * np.pi * f * time)) for f in notes]
    ).astype(np.float32)
