"""Read and write segments as npz files: audio, its rate, what is known of it, and codes where there are any.

Nothing is ever unpickled. The arrays are found by zipfile and read here as views of the file, their usual headers by
one pattern: numpy.load copies every array, and numpy.lib.format takes six times as long for a header
(benchmarks/dataset_segments.py would reach 1.5 times numpy.load instead of 2.3). An unusual header is
numpy's to read.
"""

from __future__ import annotations

import io
import json
import math
import re
import sys
import tokenize
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.dataset.segments.pcm import to_wave
from colabkit.pipelines.dataset.segments.segment import Segment, channel_of, key_of_whole
from colabkit.pipelines.dataset.segments.zip_members import read_directory, read_member

AUDIO_NAMES = ("audio", "wav", "wave", "waveform", "samples", "array")
RATE_NAMES = ("sr", "rate", "sample_rate", "sampling_rate", "rate_hz", "samplerate", "fs")
CODES_NAMES = ("codes", "vq_codes", "audio_codes", "codec_codes")
JSON_NAMES = ("metadata", "meta", "info")
SPEAKER_NAMES = ("speaker", "speaker_id", "spk", "spk_id", "speaker_name", "client_id")
CHANNEL_NAMES = ("channel", "channel_name", "channel_id", "station")
TEXT_NAMES = ("text", "transcript", "transcription", "sentence", "normalized_text")
RATES_HZ = (4_000, 192_000)  # from telephones of old to studios: outside it is a mistake
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?)([a-zA-Z])(\d*)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), ?\} *\n?"
)
_MOST_AXES = 32  # what every numpy can hold
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold: the same segment gives the same bytes


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What a .npy header says: the type, the shape, and how many bytes stand before the data."""

    dtype: np.dtype
    shape: tuple[int, ...]
    is_fortran: bool
    num_header_bytes: int


@dataclass(slots=True)
class Known:
    """What a segment's small values say: of the roles, and everything else as text."""

    rate_hz: int | None = None
    speaker: str = ""
    channel: str = ""
    text: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


def read_npz(payload: bytes, name: str, *, default_rate_hz: int | None = None) -> Segment:
    """Read one segment; its key is `name` without the suffix. The wave may be a read-only view of `payload`.

    Audio stands under AUDIO_NAMES or is the only series of numbers; float16/32/64 or PCM integers; (sample,), or with a
    channel axis, which is averaged and told in the metadata. Raises: DataError for a file that is cut, holds pickled
    objects, no audio or audio that is not finite or not in [-1, 1], and where no rate is told and no `default_rate_hz`
    is given.
    """
    members = read_directory(lambda start, stop: payload[start:stop], len(payload), name)
    contents = {member.filename.removesuffix(".npy"): read_member(payload, member, name) for member in members}
    headers = {key: read_header(content, f"{key} of {name}") for key, content in contents.items()}
    audio = find_audio(headers, name)
    codes = next((key for key in CODES_NAMES if key in headers), None)
    values = {key: value_of(contents[key], header) for key, header in headers.items() if key not in (audio, codes)}
    known = sort_values(values, name)
    rate_hz = known.rate_hz or default_rate_hz
    if rate_hz is None:
        raise DataError(
            "The segment does not say its rate",
            got=f"arrays {', '.join(headers)}",
            where=name,
            expected=f"a number under {', '.join(RATE_NAMES[:4])}",
            fix="if you know it, say it: --set segments.default_rate_hz=24000; guessing would change speed and pitch",
        )
    wave, num_channels = to_wave(as_array(contents[audio], headers[audio], f"{audio} of {name}"), name)
    if num_channels > 1:
        known.metadata["mixed_from_channels"] = str(num_channels)
    found = None if codes is None else _to_codes(as_array(contents[codes], headers[codes], f"{codes} of {name}"), name)
    return Segment(
        key=key_of_whole(name, (".npz",)),
        wave=wave,
        rate_hz=require_rate(rate_hz, name),
        speaker=known.speaker,
        channel=known.channel or channel_of(name),
        text=known.text,
        metadata=known.metadata,
        codes=found,
    )


def write_npz(segment: Segment, *, dtype: str = "float32", deflate: bool = False) -> bytes:
    """Return a segment as the bytes of an npz file, the same for the same segment. `dtype` is "float32" or "int16"."""
    if dtype not in ("float32", "int16"):
        raise UsageError(
            "Cannot write audio of this type", got=dtype, expected="float32 or int16", fix="choose one of them"
        )
    wave = np.asarray(segment.wave)
    if wave.ndim != 1 or not len(wave):
        raise DataError(
            "Cannot write this segment",
            got=f"a wave of shape {wave.shape}",
            expected="(sample,)",
            where=segment.key,
            fix="pass at least one sample",
        )
    if dtype == "int16" and wave.dtype != np.int16:
        wave = np.clip(np.round(wave * 32768), -32768, 32767)
    arrays = {
        "audio": wave.astype(dtype),
        "sample_rate": np.int64(segment.rate_hz),
        "speaker": np.str_(segment.speaker),
        "channel": np.str_(segment.channel),
        "text": np.str_(segment.text),
        "metadata": np.str_(json.dumps(dict(segment.metadata), ensure_ascii=False, sort_keys=True)),
    }
    if segment.codes is not None:
        arrays["codes"] = np.asarray(segment.codes, np.uint16)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for key, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
            about = zipfile.ZipInfo(key + ".npy", _DATE)
            about.create_system = 3  # the same bytes on every system
            about.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
            archive.writestr(about, content.getvalue())
    return packed.getvalue()


def find_audio(headers: Mapping[str, ArrayHeader], where: str) -> str:
    """Return the name of the array that holds the audio: a usual one, or the only series of numbers there is."""
    for key in AUDIO_NAMES:
        if key in headers:
            return key
    series = [
        key
        for key, header in headers.items()
        if header.dtype.kind in "fi"
        and len(header.shape) in (1, 2)
        and math.prod(header.shape) > 1
        and key not in CODES_NAMES
    ]
    if len(series) == 1:
        return series[0]
    raise DataError(
        "The segment holds no audio" if not series else "It is not clear which array is the audio",
        got=", ".join(f"{key} {header.dtype}{list(header.shape)}" for key, header in headers.items()) or "nothing",
        expected=f"an array under {', '.join(AUDIO_NAMES)}",
        where=where,
        fix="write it again with the audio under the name audio, or remove the file",
    )


def read_header(content: bytes | memoryview, where: str) -> ArrayHeader:
    """Read the header of a .npy file from its first bytes.

    Source: numpy.lib.format, versions 1.0 to 3.0. Raises: DataError for what is none, and for pickled objects.
    """
    head = bytes(content[:12])
    if head[:6] != b"\x93NUMPY" or len(head) < 12 or head[6] not in (1, 2, 3):
        raise _not_array(where, f"it begins with {head[:8]!r}")
    start = 10 if head[6] == 1 else 12
    stop = start + int.from_bytes(head[8:start], "little")
    text = bytes(content[start:stop])
    if len(text) < stop - start:
        raise _not_array(where, f"{len(content)} bytes of a header of {stop}")
    usual = _HEADER.fullmatch(text)  # as numpy writes it
    if usual:
        order, kind, width, fortran, shape = (part.decode() for part in usual.groups())
        try:
            dtype = np.dtype(order + kind + width)
            dims = tuple(int(part) for part in shape.split(",") if part.strip())
        except (TypeError, ValueError, OverflowError) as error:
            raise _not_array(where, f"type {order + kind + width}, shape ({shape})"[:200]) from error
        header = ArrayHeader(dtype, dims, fortran == "True", stop)
    else:
        header = _read_unusual_header(bytes(content[:stop]), head[6], where)
    if len(header.shape) > _MOST_AXES or min(header.shape, default=0) < 0 or not header.dtype.itemsize:
        raise _not_array(where, f"{header.dtype} of shape {header.shape}"[:200])
    if header.dtype.hasobject:
        raise DataError(
            "The array holds pickled Python objects, which could run any program when read",
            got="type object",
            expected="numbers or text",
            where=where,
            fix="write it again from its source: numbers as arrays, dicts as json.dumps(...) text",
        )
    return header


def as_array(content: bytes | memoryview, header: ArrayHeader, where: str) -> np.ndarray:
    """Return the array behind a header, a view of `content`. Raises: DataError when bytes are missing."""
    count = math.prod(header.shape)
    if len(content) - header.num_header_bytes != count * header.dtype.itemsize:
        raise _not_array(
            where, f"{len(content) - header.num_header_bytes} bytes for {header.dtype}{list(header.shape)}"
        )
    array = np.frombuffer(content, header.dtype, count, header.num_header_bytes) if count else np.zeros(0, header.dtype)
    return array.reshape(header.shape, order="F" if header.is_fortran else "C")


def sort_values(values: Mapping[str, object], where: str) -> Known:
    """Give a segment's small values (arrays by name, JSON texts opened) to the roles they play.

    Raises: DataError for a rate that is no number.
    """
    flat: dict[str, object] = {}
    for key, value in values.items():
        opened = _opened_json(value) if key in JSON_NAMES else None
        flat.update({key: value} if opened is None else opened)
    known = Known()
    for key in RATE_NAMES:
        if key in flat:
            known.rate_hz = require_rate(flat.pop(key), where)
            break
    for role, names in (("speaker", SPEAKER_NAMES), ("channel", CHANNEL_NAMES), ("text", TEXT_NAMES)):
        found = next((key for key in names if _as_text(flat.get(key))), None)
        if found:
            setattr(known, role, _as_text(flat.pop(found)))
            for key in names:  # the others, empty or the same
                if _as_text(flat.get(key)) in ("", getattr(known, role)):
                    flat.pop(key, None)
    known.metadata = {key: _as_text(value) for key, value in flat.items() if value is not None}
    return known


def require_rate(value: object, where: str) -> int:
    """Return a rate in Hz. Raises: DataError for one that no recording has."""
    try:
        rate_hz = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        rate_hz = math.nan
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1] or rate_hz != int(rate_hz):
        raise DataError(
            "The segment's rate cannot be",
            got=value,
            where=where,
            expected=f"a whole number of Hz from {RATES_HZ[0]} to {RATES_HZ[1]}",
            fix="write the file again with its true rate, or remove it",
        )
    return int(rate_hz)


def value_of(content: bytes | memoryview, header: ArrayHeader) -> object:
    """Return a small array as a plain value where it has one entry, else as it is."""
    array = as_array(content, header, "a value")
    if array.dtype.kind == "U" and not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "U" and array.reshape(-1).view(np.uint32).max(initial=0) > sys.maxunicode:
        raise _not_array("a value", "text with characters that there are none of")
    try:
        return array.reshape(-1)[0].item() if array.size == 1 and array.dtype.kind != "V" else array
    except (ValueError, OverflowError) as error:  # a date beyond all calendars
        raise _not_array("a value", f"{array.dtype}: {error}") from error


def _read_unusual_header(content: bytes, version: int, where: str) -> ArrayHeader:
    stream = io.BytesIO(content)
    try:
        np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == 1 else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(stream)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise _not_array(where, f"{type(error).__name__}: {error}") from error
    return ArrayHeader(dtype, tuple(shape), is_fortran, len(content))


def _opened_json(value: object) -> dict | None:
    """Return the values of a JSON text, None for what is no JSON object."""
    try:
        opened = json.loads(_as_text(value))
    except (ValueError, RecursionError):
        return None
    return opened if isinstance(opened, dict) else None


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        value = f"{value.dtype}{list(value.shape)}" if value.size > 64 or value.dtype.kind == "V" else value.tolist()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")  # half characters are of no use to anybody


def _to_codes(array: np.ndarray, where: str) -> np.ndarray:
    codes = (
        array.reshape(1, -1)
        if array.ndim == 1
        else array.reshape(array.shape[-2:])
        if array.ndim > 1 and all(length == 1 for length in array.shape[:-2])
        else None
    )
    if codes is None or codes.dtype.kind not in "iu" or not codes.size or codes.min() < 0 or codes.max() > 65_535:
        raise DataError(
            "The segment's codes cannot be read",
            got=f"{array.dtype}{list(array.shape)}",
            where=where,
            expected="(codebook, frame) whole numbers from 0 to 65535",
            fix="encode the segment again",
        )
    return codes.astype(np.uint16)


def _not_array(where: str, got: str) -> DataError:
    return DataError(
        "This is no whole array",
        got=got,
        expected="a .npy file",
        where=where,
        fix="copy or download the npz again, or remove it",
    )
