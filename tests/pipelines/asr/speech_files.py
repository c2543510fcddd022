"""Transcribed speech as files: recordings of noise, tables that say what is said in them, shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from colabkit.io.audio import write_wav
from colabkit.io.samples.listing import Listing
from colabkit.io.samples.shards import ShardWriter, flac_bytes

NAMES = [f"clips/a{i}.wav" for i in range(10)]
TEXTS = [f'sentence {i} „quoted" text' for i in range(10)]


def sound(seed: int, seconds: float = 0.5) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=int(16_000 * seconds)) * 0.1).astype(np.float32)


def write_files(folder: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_wav(folder / name, sound(i), 16_000)


def texts_of(listing: Listing) -> dict[str, str]:
    """Return {name: text} of all splits."""
    return {
        name: text
        for split in listing.splits.values()
        for name, text in zip(split.names.to_list(), split.texts.to_list(), strict=True)
    }


def tsv(names, texts, **columns):
    heads = ["client_id", "path", "sentence", "up_votes"]
    rows = [[f"speaker{i // 2}", name, text, "2"] for i, (name, text) in enumerate(zip(names, texts, strict=True))]
    return "\n".join("\t".join(row) for row in [heads, *rows]) + "\n"


def as_csv(rows):
    return "\ufefffile_name,transcription\r\n" + "".join(
        f'{n},"{t.replace(chr(34), chr(34) * 2)}"\r\n' for n, t in rows
    )


def shards(folder: Path, number: int = 12, *, text: str | None = "text", **more) -> Path:
    with ShardWriter(folder, shard_bytes=60_000) as writer:
        for i in range(number):
            columns = {"speaker": f"s{i % 6}"} | ({text: f"words of {i}"} if text else {})
            writer.add(f"u{i}", flac_bytes(sound(i), 16_000), ".flac", columns)
    return folder
