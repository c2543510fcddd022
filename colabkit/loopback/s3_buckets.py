"""Buckets on loopback: objects in memory, or in a folder where the next server finds them."""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from bisect import bisect_right
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote, unquote

from colabkit.core import files
from colabkit.loopback.messages import FilePart

_SUFFIX = ".object"  # of every file of a bucket: a temporary one is none


@dataclass(frozen=True, slots=True)
class Stored:
    """One object; `content` is None where bodies are not kept, a path where they lie in a folder."""

    size: int
    etag: str
    modified: float
    content: bytes | Path | None = field(repr=False)

    @property
    def modified_http(self) -> str:
        return formatdate(self.modified, usegmt=True)

    @property
    def modified_iso(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(self.modified))


class Bucket:
    """Objects by key. Thread-safe; `changing` is held by whoever looks and then writes."""

    def __init__(self, folder: Path | None = None, *, keep_bodies: bool = True):
        self.folder, self.keep_bodies = folder, keep_bodies
        self.changing = threading.RLock()
        self._objects: dict[str, Stored] = {}
        self._sorted: list[str] | None = None
        self._uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"*{_SUFFIX}"):
            content = path.read_bytes()
            self._objects[unquote(path.name.removesuffix(_SUFFIX))] = Stored(
                len(content), _etag(content), path.stat().st_mtime, path
            )

    def __len__(self) -> int:
        return len(self._objects)

    def find(self, key: str) -> Stored | None:
        return self._objects.get(key)

    def keys_after(self, key: str, most: int) -> list[str]:
        """Return keys in order, those behind `key`."""
        with self.changing:
            if self._sorted is None:
                self._sorted = sorted(self._objects)  # code points sort as UTF-8 does
            start = bisect_right(self._sorted, key)
            return self._sorted[start : start + most]

    def put(self, key: str, content: bytes, etag: str = "") -> Stored:
        """Keep an object."""
        etag = etag or (_etag(content) if self.keep_bodies else f'"{zlib.crc32(content):08x}-1"')
        kept: bytes | Path | None = content if self.keep_bodies else None
        if self.folder is not None:
            kept = self.folder / (quote(key, safe="") + _SUFFIX)
            files.write_atomic(kept, content, durable=False)
        stored = Stored(len(content), etag, time.time(), kept)
        with self.changing:
            if key not in self._objects:
                self._sorted = None
            self._objects[key] = stored
        return stored

    def delete(self, key: str) -> None:
        with self.changing:
            found = self._objects.pop(key, None)
            if found is not None:
                self._sorted = None
                if isinstance(found.content, Path):
                    found.content.unlink(missing_ok=True)

    def take(self, found: Stored, start: int, stop: int) -> bytes | memoryview | FilePart:
        """Return bytes start..stop; zeros where bodies are not kept."""
        if found.content is None:
            return bytes(stop - start)
        if isinstance(found.content, Path):
            return FilePart(found.content, start, stop)
        return memoryview(found.content)[start:stop]

    def begin(self, key: str, upload: str) -> str:
        self._uploads[upload] = (key, {})
        return upload

    def put_part(self, upload: str, number: int, content: bytes) -> str:
        """Keep a part and return its ETag; "" for an upload that is not known."""
        if upload not in self._uploads:
            return ""
        self._uploads[upload][1][number] = content
        return _etag(content)

    def complete(self, upload: str, numbers: list[int]) -> Stored | None:
        """Join the parts to an object; None where one is missing."""
        key, parts = self._uploads.get(upload, ("", {}))
        if not numbers or any(n not in parts for n in numbers):
            return None
        digest = hashlib.md5(b"".join(hashlib.md5(parts[n]).digest() for n in numbers)).hexdigest()
        stored = self.put(key, b"".join(parts[n] for n in numbers), f'"{digest}-{len(numbers)}"')
        self.abort(upload)
        return stored

    def abort(self, upload: str) -> None:
        self._uploads.pop(upload, None)


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'
