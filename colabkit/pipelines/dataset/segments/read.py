"""Read one segment of any kind by the suffix of its name: npz, or an audio file with what an index says of it."""

from __future__ import annotations

from collections.abc import Mapping

from colabkit.core.errors import DataError
from colabkit.io.audio import AUDIO_SUFFIXES
from colabkit.io.audio.opened import OpenedAudio
from colabkit.pipelines.dataset.segments.npz import read_npz, require_rate, sort_values
from colabkit.pipelines.dataset.segments.segment import Segment, channel_of, key_of_whole

SEGMENT_SUFFIXES = (".npz", *AUDIO_SUFFIXES)
_AUDIO_STARTS = (b"fLaC", b"RIFF", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3")


def is_segment(name: str) -> bool:
    """Tell whether a name is that of a file that holds one segment."""
    return name.lower().endswith(SEGMENT_SUFFIXES)


def read_segment(
    payload: bytes, name: str, columns: Mapping[str, str] | None = None, *, default_rate_hz: int | None = None
) -> Segment:
    """Read a segment from the bytes of its file; its key is `name` without the suffix, or all of a name that has none.

    `columns` (speaker, channel, text, anything) are what an index knows of it, and go before what the file says.
    Raises: DataError for a file that cannot be read, with its name.
    """
    if name.lower().endswith(".npz") or not is_segment(name) and payload.startswith(b"PK"):
        segment = read_npz(payload, name, default_rate_hz=default_rate_hz)
    elif is_segment(name) or payload.startswith(_AUDIO_STARTS):
        segment = _read_audio_file(payload, name)
    else:
        raise DataError(
            "This is no segment",
            got=bytes(payload[:8]),
            expected=f"a file as {', '.join(SEGMENT_SUFFIXES)}",
            where=name,
            fix="keep other files elsewhere",
        )
    return describe(segment, columns) if columns else segment


def describe(segment: Segment, columns: Mapping[str, str]) -> Segment:
    """Return the segment with what an index says of it; what the index leaves empty stays."""
    known = sort_values({name: value for name, value in columns.items() if value}, segment.key)
    return Segment(
        key=segment.key,
        wave=segment.wave,
        rate_hz=segment.rate_hz,
        codes=segment.codes,
        speaker=known.speaker or segment.speaker,
        channel=known.channel or segment.channel,
        text=known.text or segment.text,
        metadata={**segment.metadata, **known.metadata},
    )


def _read_audio_file(payload: bytes, name: str) -> Segment:
    try:
        with OpenedAudio(payload) as audio:
            num_channels = audio.file.channels
            wave, rate_hz = audio.read_mono(0, audio.num_frames), require_rate(audio.rate_hz, name)
    except DataError as error:
        raise DataError(error.what, got=error.got, expected=error.expected, where=name, fix=error.fix) from error
    metadata = {"mixed_from_channels": str(num_channels)} if num_channels > 1 else {}
    return Segment(
        key=key_of_whole(name, SEGMENT_SUFFIXES),
        wave=wave,
        rate_hz=rate_hz,
        channel=channel_of(name),
        metadata=metadata,
    )
