"""Count what wav and mp3 files hold, where libsndfile takes their headers at their word."""

from __future__ import annotations

import os
from typing import BinaryIO

_UNKNOWN_WAV_BYTES = 0x7FFF_0000  # sizes from here on are placeholders of writers that could not seek back
_MP3_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG-1 layer III
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG-2 and 2.5
}
_MP3_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def missing_wav_bytes(stream: BinaryIO) -> int:
    """Return how many bytes a RIFF wav promises beyond the end of `stream`, 0 for other formats."""
    stream.seek(0, os.SEEK_END)
    size = stream.tell()
    stream.seek(0)
    if stream.read(4) != b"RIFF":
        return 0
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        header = stream.read(8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            return 0 if length >= _UNKNOWN_WAV_BYTES else max(0, position + 8 + length - size)
        position += 8 + length + length % 2
    return 0


def first_frame_of_last_ogg_page(tail: bytes) -> int:
    """Return the granule position of the last page but one (RFC 3533, 6), 0 if `tail` has fewer."""
    at = len(tail)
    granules: list[int] = []
    while len(granules) < 2 and (at := tail.rfind(b"OggS\0", 0, at)) >= 0:
        granule = int.from_bytes(tail[at + 6 : at + 14], "little", signed=True)
        if granule >= 0:  # -1: no packet ends on this page
            granules.append(granule)
    return granules[1] if len(granules) == 2 else 0


def count_mp3_frames(content: bytes) -> tuple[int, bool]:
    """Return samples per channel, and whether a Xing, Info or VBRI tag tells the length.

    Walks the layer III frame headers of ISO 11172-3, 2.4.1.3; (0, False) where there are none.
    """
    position, count, is_told = 0, 0, False
    if content[:3] == b"ID3" and len(content) > 10:
        position = 10 + sum(byte << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=True))
    while position + 4 <= len(content):
        first, second, third = content[position : position + 3]
        version, rate, kbps = second >> 3 & 3, third >> 2 & 3, third >> 4
        if first != 0xFF or second & 0xE6 != 0xE2 or version == 1 or rate == 3 or kbps in (0, 15):
            break  # a tag at the end, or something this walk does not know
        is_first = version == 3
        length = (144 if is_first else 72) * 1000 * _MP3_KBPS[is_first][kbps] // _MP3_RATES_HZ[version][rate]
        length += third >> 1 & 1
        if count == 0:
            first_frame = content[position : position + length]
            is_told = any(tag in first_frame for tag in (b"Xing", b"Info", b"VBRI"))
        position += length
        count += 1152 if is_first else 576
    return count, is_told
