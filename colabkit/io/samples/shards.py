"""Write samples into tar shards in the WebDataset layout, and the index of them for free."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError, UsageError
from colabkit.io.audio import audio_info
from colabkit.io.samples.index import FILE_NAME, Entry, SampleIndex, Shard

SHARD_BYTES = 256 << 20  # few, large files: a store lists and serves them best


class ShardWriter:
    """Write samples one after another; use as a context manager. Shards appear whole, the index last.

        with ShardWriter("shards") as writer:
            writer.add("anna-1", flac_bytes(wave, 16_000), ".flac", {"speaker": "anna"})

    The same samples give the same bytes. Shards of an earlier writer in the same folder are replaced, except those of
    `begun`: the indexes that `finished` returned for the first shards, after which this writer goes on. Raises:
    UsageError for a key used twice; StateError for a full disk; DataError for a shard of `begun` that is not there
    whole.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        shard_bytes: int = SHARD_BYTES,
        name: str = "{:05d}.tar",
        begun: Sequence[SampleIndex] = (),
    ):
        self.folder, self.shard_bytes, self.name = Path(folder), shard_bytes, name
        self.folder.mkdir(parents=True, exist_ok=True)
        before = SampleIndex.join("", begun) if begun else SampleIndex.of("", [], [])
        self._require_whole(before.shards)
        self.shards: list[Shard] = list(before.shards)
        self.entries: list[Entry] = list(before.entries())
        self._keys: set[str] = {entry.key for entry in self.entries}
        self._buffer = io.BytesIO()
        self.index: SampleIndex | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()

    def add(self, key: str, audio: bytes, suffix: str, columns: Mapping[str, str]) -> None:
        """Add one audio file with what is known of it. The key may hold dots, slashes and any letters."""
        if not key or key in self._keys:
            raise UsageError(
                "Cannot add this sample", got=key, expected="a key of its own", fix="give every sample another key"
            )
        info = audio_info(audio)
        self._keys.add(key)
        details = json.dumps(dict(columns), ensure_ascii=False, sort_keys=True).encode()
        room = len(audio) + len(details) + 8 * tarfile.BLOCKSIZE
        if self._buffer.tell() and self._buffer.tell() + room > self.shard_bytes:
            self._finish_shard()
        offset = self._append(key + suffix, audio)
        self._append(key + ".json", details)
        self.entries.append(
            Entry(
                key=key,
                shard=len(self.shards),
                offset=offset,
                length=len(audio),
                frames=info.num_frames,
                rate_hz=info.rate_hz,
                crc32=zlib.crc32(audio),
                columns=dict(columns),
            )
        )

    def finished(self, number: int) -> SampleIndex:
        """Return the index of one finished shard alone."""
        entries = []
        for entry in reversed(self.entries):
            if entry.shard < number:
                break
            if entry.shard == number:
                entries.append(replace(entry, shard=0))
        return SampleIndex.of("", [self.shards[number]], entries[::-1])

    def close(self) -> SampleIndex:
        """Write what is left, and the index; returns it."""
        if self._buffer.tell():
            self._finish_shard()
        number = len(self.shards)
        while (left := self.folder / self.name.format(number)).is_file():  # of an earlier, longer set
            files.remove_generation(left)
            number += 1
        self.index = SampleIndex.of("", self.shards, self.entries)
        self.index.save(self.folder / FILE_NAME)  # without an address: the folder may be copied anywhere
        self.index = self.index.at(os.fspath(self.folder.resolve()))
        return self.index

    def _require_whole(self, shards: Sequence[Shard]) -> None:
        for number, shard in enumerate(shards):
            path = self.folder / shard.name
            size = path.stat().st_size if path.is_file() else -1
            if shard.name != self.name.format(number) or size != shard.size:
                raise DataError(
                    "Cannot go on after these shards",
                    got=f"{size} bytes" if size >= 0 else "no such file",
                    expected=f"{shard.size} bytes",
                    where=path,
                    fix="put the shard back, or write all of them again",
                )

    def _append(self, name: str, content: bytes) -> int:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._buffer.write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        offset = self._buffer.tell()
        self._buffer.write(content)
        self._buffer.write(b"\0" * (-len(content) % tarfile.BLOCKSIZE))
        return offset

    def _finish_shard(self) -> None:
        if not self.shards:
            files.remove_generation(self.folder / FILE_NAME)  # one of earlier shards must not vouch for these
        self._buffer.write(b"\0" * 2 * tarfile.BLOCKSIZE)
        name = self.name.format(len(self.shards))
        content = self._buffer.getbuffer()
        files.write_atomic(self.folder / name, content)
        self.shards.append(Shard(name, len(content), f"crc32-{zlib.crc32(content):08x}"))
        content.release()
        self._buffer = io.BytesIO()


def flac_bytes(wave: np.ndarray, rate_hz: int) -> bytes:
    """Encode (sample,) float in [-1, 1] or int16 as 16 bit FLAC, about half the size of wav and just as exact."""
    return _encoded(wave, rate_hz, "FLAC")


def pcm_bytes(wave: np.ndarray, rate_hz: int) -> bytes:
    """Encode (sample,) float in [-1, 1] or int16 as 16 bit PCM in a wav file: larger than FLAC, read for nothing."""
    return _encoded(wave, rate_hz, "WAV")


def _encoded(wave: np.ndarray, rate_hz: int, kind: str) -> bytes:
    import soundfile

    if wave.dtype != np.int16:
        wave = np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate_hz, format=kind, subtype="PCM_16")
    return buffer.getvalue()
