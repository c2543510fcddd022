"""A picture of who speaks when: the reference above, the hypothesis below, in the same colours; and training curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from colabkit.core.table import COLOURS, new_figure, save_figure
from colabkit.pipelines.diarization import RATE_HZ
from colabkit.pipelines.diarization.evaluate.metrics import score
from colabkit.pipelines.diarization.rttm import Turn


def draw_timeline(
    path: Path, wave: np.ndarray, hypothesis: list[Turn], reference: list[Turn] | None = None, title: str = ""
) -> None:
    """Write a PNG: the wave, the reference's turns where known, the hypothesis' turns, speakers matched by colour."""
    figure, axes = new_figure(2, (11, 4.2), height_ratios=[1, 2])
    seconds = np.arange(len(wave)) / RATE_HZ
    step = max(len(wave) // 6000, 1)
    envelope = np.abs(wave[: len(wave) // step * step]).reshape(-1, step).max(1)
    axes[0].fill_between(seconds[::step][: len(envelope)], -envelope, envelope, color="#888888", linewidth=0)
    axes[0].set_yticks([])
    axes[0].set_ylabel("wave")
    mapping = score(reference, hypothesis).mapping if reference else {}
    names = list(dict.fromkeys(t.speaker for t in sorted(reference or hypothesis)))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    unmatched = [n for n in dict.fromkeys(t.speaker for t in hypothesis) if n not in colour and n not in mapping]
    colour |= {n: COLOURS[(len(names) + i) % len(COLOURS)] for i, n in enumerate(unmatched)}
    rows, labels = 0, []
    for kind, turns in (("reference", reference), ("found", hypothesis)):
        speakers = list(dict.fromkeys(t.speaker for t in sorted(turns or [])))
        for speaker in sorted(speakers, key=lambda s: list(colour).index(mapping.get(s, s))):
            bars = [(t.start_seconds, t.end_seconds - t.start_seconds) for t in turns if t.speaker == speaker]
            axes[1].broken_barh(
                bars,
                (rows + 0.1, 0.8),
                color=colour[mapping.get(speaker, speaker)],
                alpha=1.0 if kind == "found" else 0.45,
                linewidth=0,
            )
            labels.append(f"{kind}  {speaker}")
            rows += 1
    axes[1].set_yticks(np.arange(rows) + 0.5, labels, fontsize=8)
    axes[1].invert_yaxis()
    axes[1].set_xlim(0, len(wave) / RATE_HZ)
    axes[1].set_xlabel("seconds")
    axes[0].set_title(title, fontsize=10, loc="left")
    save_figure(figure, path)


def draw_history(path: Path, rows: list[dict]) -> None:
    """Write a PNG of the training loss and the validation DER over steps."""
    figure, axes = new_figure(2, (8, 4.2))
    steps = [row["step"] for row in rows]
    axes[0].plot(steps, [row["frame_loss"] for row in rows], "o-", color=COLOURS[0], label="frame loss")
    axes[0].set_ylabel("loss")
    second = axes[0].twinx()
    second.plot(steps, [row["speaker_loss"] for row in rows], "s--", color=COLOURS[1], label="speaker loss (right)")
    lines = axes[0].get_lines() + second.get_lines()
    axes[0].legend(lines, [line.get_label() for line in lines], fontsize=8)
    axes[1].plot(steps, [100 * row["der"] for row in rows], "o-", color=COLOURS[2])
    axes[1].set_ylabel("validation DER (%)")
    axes[1].set_ylim(bottom=0)
    axes[1].set_xlabel("step")
    save_figure(figure, path)
