"""Hear what was encoded: some segments decoded to wav files beside the originals, compared and drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from colabkit.core.errors import ChangedError, DataError
from colabkit.core.table import Table, new_figure, save_figure
from colabkit.io.audio import write_wav
from colabkit.io.places.place import Place
from colabkit.pipelines.dataset.codecs.codec import Codec
from colabkit.pipelines.dataset.codecs.likeness import Likeness, likeness, picture_of
from colabkit.pipelines.dataset.codecs.mel import FRAMES_PER_SECOND
from colabkit.pipelines.dataset.segments.walk import from_shard
from colabkit.pipelines.dataset.store.codes import codes_of, read_sidecar

FIGURE = "listen.png"
_MOST_DRAWN = 4
_SIDECAR = re.compile(r"[^/]+\.parquet")  # in folders lie plans, manifests and claims


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One segment with its codes. wave: (sample,) float32 at `rate_hz`, empty where the original is not at hand."""

    key: str
    codes: np.ndarray
    wave: np.ndarray
    rate_hz: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One decoded segment: files, length, what its codes take, and how near it is (None without an original)."""

    key: str
    decoded: str
    original: str | None
    seconds: float
    kbps: float
    likeness: Likeness | None

    def to_dict(self) -> dict:
        return asdict(self)


def choose_examples(
    store: Place,
    codec: Codec,
    *,
    num: int = 3,
    seed: int = 0,
    default_rate_hz: int | None = None,
    say: Callable[[str], None] = print,
) -> list[Example]:
    """Choose segments from the codes sidecars of a store, with their audio from its segments/.

    The same store and seed give the same ones. Raises: DataError without sidecars, ChangedError when another codec made
    them.
    """
    names = [found.name for found in store.below("codes").list() if _SIDECAR.fullmatch(found.name)]
    if not names:
        raise DataError(
            "There are no codes to listen to",
            where=f"{store.address}/codes",
            expected="sidecars of the step encode",
            fix="encode first: colabkit run dataset --to encode",
        )
    rng = np.random.default_rng(seed)
    found: list[Example] = []
    for name in rng.permutation(sorted(names))[: max(1, num)]:
        table, facts = read_sidecar(store.get(f"codes/{name}"), f"{store.address}/codes/{name}")
        require_same_codec(facts, codec, f"{store.address}/codes/{name}")
        wanted = min(table.num_rows, num - len(found) if len(names) == 1 else math.ceil(num / min(num, len(names))))
        for i in sorted(rng.choice(table.num_rows, wanted, replace=False).tolist()):
            found.append(
                _example(
                    store,
                    table.slice(i, 1).to_pylist()[0],
                    codes_of(table, i, codec.num_codebooks),
                    default_rate_hz,
                    say,
                )
            )
    return found[:num]


def require_same_codec(facts: dict, codec: Codec, where: str) -> None:
    """Raise a ChangedError where codes were made by another codec, or by the same with other weights."""
    if facts.get("fingerprint") != codec.fingerprint:
        raise ChangedError(
            "These codes were made by another codec",
            got=f"{facts.get('name')} {str(facts.get('fingerprint'))[:12]}",
            expected=f"{codec.name} {codec.fingerprint[:12]}",
            where=where,
            fix="open the codec that encoded (its name, revision and settings), or encode again",
        )


def listen_to(
    codec: Codec, examples: Iterable[Example], folder: Path, *, say: Callable[[str], None] = print
) -> list[Heard]:
    """Decode segments into `folder`: KEY.decoded.wav beside KEY.original.wav, and listen.png with both spectrograms."""
    folder.mkdir(parents=True, exist_ok=True)
    heard, drawn = [], []
    for number, example in enumerate(examples):
        decoded = codec.decode_batch([example.codes])[0]
        stem = f"{number:02d}-" + re.sub(r"[^\w.-]+", "_", example.key)[-80:]
        write_wav(folder / f"{stem}.decoded.wav", decoded.clip(-1, 1), codec.rate_hz_out)
        near = None
        if len(example.wave):
            write_wav(folder / f"{stem}.original.wav", example.wave.clip(-1, 1), example.rate_hz)
            near = likeness(example.wave, example.rate_hz, decoded, codec.rate_hz_out)
        seconds = example.codes.shape[1] / codec.frame_rate_hz
        heard.append(
            Heard(
                key=example.key,
                decoded=f"{stem}.decoded.wav",
                seconds=round(seconds, 3),
                likeness=near,
                original=f"{stem}.original.wav" if near else None,
                kbps=round(bit_rate_kbps(codec), 3),
            )
        )
        if len(drawn) < _MOST_DRAWN:
            drawn.append((example, decoded))
    if drawn:
        draw(codec, drawn, folder / FIGURE)
        say(str(table_of(heard)))
    return heard


def bit_rate_kbps(codec: Codec) -> float:
    """Return what the codes of a second take, in kbit/s."""
    return codec.frame_rate_hz * codec.num_codebooks * math.log2(codec.codebook_size) / 1000


def table_of(heard: Sequence[Heard]) -> Table:
    """Return the figures of all segments, their mean last."""

    def row(key: str, seconds: float, near: Sequence[Likeness]) -> list:
        def mean(name: str) -> str:
            values = [getattr(one, name) for one in near if not math.isnan(getattr(one, name))]
            return f"{np.mean(values):.2f}" if values else "-"

        return [
            key,
            f"{seconds:.2f}",
            *(mean(name) for name in ("mel_db", "si_sdr_db", "f0_correlation", "voiced_agreement")),
        ]

    rows = [row(one.key, one.seconds, [one.likeness] if one.likeness else []) for one in heard]
    if len(heard) > 1:
        rows.append(
            row("mean", float(np.mean([one.seconds for one in heard])), [one.likeness for one in heard if one.likeness])
        )
    return Table(
        ["segment", "seconds", "mel distance, dB", "SI-SDR, dB", "melody correlation", "voicing agrees"],
        rows,
        title="Decoded against original",
    )


def draw(codec: Codec, pairs: Sequence[tuple[Example, np.ndarray]], path: Path) -> None:
    """Draw the mel spectrograms of originals and decoded waves below each other, on one time axis."""
    rows = []
    for example, decoded in pairs:
        parts = [(f"from {codec.name} codes, {example.key[-40:]}", picture_of(decoded, codec.rate_hz_out))]
        if len(example.wave):
            parts.insert(0, (f"original, {example.key[-40:]}", picture_of(example.wave, example.rate_hz)))
        top = float(np.quantile(parts[0][1], 0.98)) + 6  # one scale for both
        rows += [(title, picture, top) for title, picture in parts]
    figure, axes = new_figure(len(rows), (9.0, 0.5 + 1.25 * len(rows)))
    axes = np.atleast_1d(axes)
    for axis, (title, picture, top) in zip(axes, rows, strict=True):
        axis.imshow(
            picture,
            origin="lower",
            aspect="auto",
            vmin=top - 50,
            vmax=top,
            cmap="magma",
            interpolation="nearest",
            extent=(0, picture.shape[1] / FRAMES_PER_SECOND, 0, len(picture)),
        )
        axis.set_title(title, fontsize=8, loc="left")
        axis.set_yticks([0, len(picture)], ["0", "8 kHz"], fontsize=7)
        axis.set_xlim(0, max(picture.shape[1] for _, picture, _ in rows) / FRAMES_PER_SECOND)
    axes[-1].set_xlabel("seconds", fontsize=8)
    save_figure(figure, path)


def _example(
    store: Place, row: dict, codes: np.ndarray, default_rate_hz: int | None, say: Callable[[str], None]
) -> Example:
    """Return one row with its audio; without it where the segment is gone, or is another one by now."""
    start, length = int(row["offset"]), int(row["length"])
    try:
        payload = store.get(
            f"segments/{row['object']}", start, None if length < 0 else start + length, version=row["version"] or ""
        )
        segment = from_shard(payload, row["key"], {}, default_rate_hz=default_rate_hz)
        wave, rate_hz = segment.wave, segment.rate_hz
    except (DataError, ChangedError) as error:
        say(f"  the original of {row['key']} cannot be had: {str(error).splitlines()[0]}")
        wave, rate_hz = np.zeros(0, np.float32), int(row["rate_hz"])
    return Example(key=row["key"], codes=codes, wave=np.ascontiguousarray(wave, np.float32), rate_hz=rate_hz)
