"""Small stores of segments and codes, and what was read of them."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import Counter
from pathlib import Path

import numpy as np

from colabkit.io.places import Folder
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.segment import Segment
from colabkit.pipelines.dataset.store.codes import Row, write_sidecar
from colabkit.pipelines.dataset.store.commit import Committed, write_manifest

RATE_HZ, SPEAKERS, CHANNELS = 16_000, 12, ("Zad TV", "Atheer")
FACTS = {
    "version": 1,
    "name": "toy",
    "fingerprint": "toy-1",
    "frame_rate_hz": 50.0,
    "num_codebooks": 1,
    "codebook_size": 1024,
    "rate_hz_in": 16_000,
    "rate_hz_out": 24_000,
}


class CountingObjects(Folder):
    """A folder that counts the bytes that are read of it, by object."""

    read_bytes: Counter
    _counting = threading.Lock()

    def __init__(self, folder):
        super().__init__(folder)
        self.read_bytes = Counter()

    def get(self, name, start=0, stop=None, *, version=""):
        content = super().get(name, start, stop, version=version)
        with self._counting:
            self.read_bytes[name] += len(content)
        return content


def make_segment(i: int) -> Segment:
    rng = np.random.default_rng(i)
    wave = (0.1 * rng.standard_normal(int(RATE_HZ * rng.uniform(0.2, 0.6)))).astype(np.float32)
    return Segment(
        key=f"{CHANNELS[i % 2].replace(' ', '_')}/s{i:04d}",
        wave=wave,
        rate_hz=RATE_HZ,
        speaker=f"speaker {i % SPEAKERS}",
        channel=CHANNELS[i % 2],
        text=f"مرحبا {i}؟",
        metadata={"n": str(i)},
    )


def make_codes(i: int, num_samples: int, num_codebooks: int) -> np.ndarray:
    frames = num_samples // 320 + 1
    return np.random.default_rng(1000 + i).integers(0, 1024, (num_codebooks, frames)).astype(np.uint16)


def make_store(folder: Path, number: int, *, layout: str = "npz", num_codebooks: int = 1, codes: bool = True) -> Path:
    """Write segments/ and codes/ as uploading and encoding leave them. layout: "npz", or "tar" (shards of FLAC)."""
    segments = [make_segment(i) for i in range(number)]
    place = folder / "segments"
    rows = []
    if layout == "npz":
        for i, segment in enumerate(segments):
            path = place / f"{segment.key}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write_npz(segment))
            rows.append(_row(segment, make_codes(i, len(segment.wave), num_codebooks), f"{segment.key}.npz"))
    else:
        import zlib

        contents = [flac_bytes(segment.wave, segment.rate_hz) for segment in segments]
        with ShardWriter(place, shard_bytes=300_000) as writer:
            for segment, content in zip(segments, contents, strict=True):
                writer.add(
                    segment.key,
                    content,
                    ".flac",
                    {"speaker": segment.speaker, "channel": segment.channel, "text": segment.text},
                )
        for entry, segment, i in zip(writer.index.entries(), segments, range(number), strict=True):
            rows.append(
                _row(
                    segment,
                    make_codes(i, len(segment.wave), num_codebooks),
                    writer.index.shards[entry.shard].name,
                    entry.offset,
                    entry.length,
                    zlib.crc32(contents[i]),
                )
            )
    if codes:
        write_codes(folder, rows, num_codebooks)
    return folder


def _row(segment: Segment, codes: np.ndarray, name: str, offset: int = 0, length: int = -1, crc32: int = -1) -> Row:
    return Row(
        key=segment.key,
        codes=codes,
        num_samples=len(segment.wave),
        rate_hz=segment.rate_hz,
        speaker=segment.speaker,
        channel=segment.channel,
        text=segment.text,
        metadata='{"n": "x"}',
        object=name,
        offset=offset,
        length=length,
        crc32=crc32,
    )


def write_codes(folder: Path, rows: list[Row], num_codebooks: int = 1, piece: int = 16) -> None:
    """Write sidecars of some rows each, and the manifest of all."""
    store, facts = Folder(folder), {**FACTS, "num_codebooks": num_codebooks}
    pieces = []
    for number, start in enumerate(range(0, len(rows), piece)):
        part = rows[start : start + piece]
        content = write_sidecar(part, facts)
        name = f"codes/00000-{number:05d}-abc.parquet"
        store.put(name, content)
        pieces.append(
            Committed(
                piece=f"00000-{number:05d}",
                inputs="abc",
                object=name,
                size=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                num_rows=len(part),
                seconds=sum(r.num_samples / r.rate_hz for r in part),
            )
        )
    write_manifest(store, pieces, facts, source={}, settings={}, num_items=len(rows), num_changed=0)


def decode(content: bytes) -> np.ndarray:
    import soundfile

    return soundfile.read(io.BytesIO(content), dtype="float32")[0]
