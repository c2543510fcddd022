"""Say what a segment's file holds from its headers alone: a few hundred bytes of its ends are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zipfile import ZipInfo

from colabkit.core.errors import DataError
from colabkit.io.audio import audio_info
from colabkit.io.samples.range_file import RangeFile
from colabkit.pipelines.dataset.segments.npz import (
    CODES_NAMES,
    ArrayHeader,
    find_audio,
    read_header,
    sort_values,
    value_of,
)
from colabkit.pipelines.dataset.segments.pcm import series_shape
from colabkit.pipelines.dataset.segments.segment import channel_of
from colabkit.pipelines.dataset.segments.zip_members import LOCAL_BYTES, data_offset, first_bytes, read_directory

_TAIL_BYTES = 4096
_HEAD_BYTES = 1024
_LARGEST_VALUE = 64 << 10  # of a member that is read whole, for what it says
_WINDOW_BYTES = 16 << 10

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one segment's file holds. `rate_hz` 0: it is not told; `fault` says why it cannot be read."""

    name: str
    num_bytes: int
    num_samples: int = 0
    rate_hz: int = 0
    dtype: str = ""
    num_channels: int = 1
    channel: str = ""
    speaker: str = ""
    has_text: bool = False
    has_codes: bool = False
    content: str = ""  # the same for the same audio, "" where that is not known
    fault: str = ""

    def seconds(self, default_rate_hz: int | None = None) -> float | None:
        """Return its length, None where no rate is known."""
        rate_hz = self.rate_hz or default_rate_hz
        return self.num_samples / rate_hz if rate_hz else None


def inspect(read: Read, name: str, size: int) -> Facts:
    """Look at the headers of one segment's file of `size` bytes. `read(start, stop)` returns bytes of it.

    What is wrong with the file is its `fault`; what the store raises when it does not answer goes on.
    """
    if name.lower().endswith(".npz"):
        try:
            return _inspect_npz(_Ends(read, size), name, size)
        except DataError as error:
            return Facts(name=name, num_bytes=size, fault=error.what, channel=channel_of(name))
    file = RangeFile(read, size, name, window_bytes=_WINDOW_BYTES)
    try:
        info = audio_info(file)
    except DataError as error:
        if file.failure is not None:
            raise file.failure from None
        return Facts(name=name, num_bytes=size, fault=error.what, channel=channel_of(name))
    return Facts(
        name=name,
        num_bytes=size,
        num_samples=info.num_frames,
        rate_hz=info.rate_hz,
        dtype=info.format.lower(),
        num_channels=info.num_channels,
        channel=channel_of(name),
    )


class _Ends:
    """The ends of a file, read once; anything between is read when it is asked for."""

    def __init__(self, read: Read, size: int):
        self._read, self.size = read, size
        self.first = max(0, size - _TAIL_BYTES)
        self.tail = read(self.first, size)
        self.head = b""

    def __call__(self, start: int, stop: int) -> bytes:
        stop = min(stop, self.size)
        if start >= self.first:
            return self.tail[start - self.first : stop - self.first]
        if stop <= _HEAD_BYTES:
            self.head = self.head or self._read(0, min(_HEAD_BYTES, self.size))
            return self.head[start:stop]
        return self._read(start, stop)


def _inspect_npz(ends: _Ends, name: str, size: int) -> Facts:
    headers: dict[str, ArrayHeader] = {}
    values = {}
    by_key = {member.filename.removesuffix(".npy"): member for member in read_directory(ends, size, name)}
    for key, member in by_key.items():
        num_bytes = member.file_size
        is_small = max(num_bytes, member.compress_size) <= _LARGEST_VALUE
        whole = is_small and num_bytes <= 4 * _HEAD_BYTES
        content = _content(ends, member, name, num_bytes if whole else _HEAD_BYTES // 2)
        headers[key] = read_header(content, f"{key} of {name}")
        if headers[key].dtype.kind in "SU" and is_small and len(content) < num_bytes:
            content = _content(ends, member, name, num_bytes)
        if len(content) == num_bytes and key not in CODES_NAMES:
            values[key] = value_of(content, headers[key])
    audio = find_audio(headers, name)
    values.pop(audio, None)
    known = sort_values(values, name)
    header = headers[audio]
    if header.dtype.kind not in "fi":
        raise DataError(
            "Audio of this type cannot be read", got=str(header.dtype), where=name, fix="write it again as float32"
        )
    shape, axis = series_shape(header.shape, name)
    return Facts(
        name=name,
        num_bytes=size,
        num_samples=max(shape),
        rate_hz=known.rate_hz or 0,
        dtype=str(header.dtype),
        num_channels=1 if axis is None else shape[axis],
        channel=known.channel or channel_of(name),
        speaker=known.speaker,
        has_text=bool(known.text),
        has_codes=any(k in headers for k in CODES_NAMES),
        content=f"{by_key[audio].CRC:08x}-{by_key[audio].file_size}",
    )


def _content(ends: _Ends, member: ZipInfo, name: str, num_bytes: int) -> bytes:
    """Return the first bytes of a member's content."""
    local = ends(member.header_offset, member.header_offset + LOCAL_BYTES)
    begin = data_offset(local, member, name)
    stored = ends(begin, begin + min(member.compress_size, max(num_bytes, 64)))
    return first_bytes(stored, member, num_bytes, name)
