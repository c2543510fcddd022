"""Open a path, bytes or a stream as audio; the faults of files become errors with name and mend."""

from __future__ import annotations

import contextlib
import io
import os
from typing import BinaryIO

import numpy as np

from colabkit.core.errors import DataError, UsageError
from colabkit.core.files import path_hint
from colabkit.io.audio.headers import count_mp3_frames, first_frame_of_last_ogg_page, missing_wav_bytes

AudioSource = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO

_BLOCK_FRAMES = 1 << 18
_TWO_OGG_PAGES_BYTES = 2 * 65_307
_VORBIS_BLOCK_FRAMES = 8192  # the longest there is
_MP3_RESERVOIR_FRAMES = 32 * 1152  # at the lowest bit rates it reaches back over 24 frames of 576
_MP3_SLACK_FRAMES = 2 * 1152  # encoder delay and padding, which headers count or leave out
_CONVERT = "ffmpeg -i IN -ac 1 -ar 16000 OUT.wav"
_NOT_AUDIO = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "git lfs pull"),
    (b"<!doctype", "a web page", "download the file again: the address gave a page instead"),
    (b"<html", "a web page", "download the file again: the address gave a page instead"),
    (b"<?xml", "an XML document", "download the file again: the address gave an error document instead"),
)


class OpenedAudio:
    """A source opened by libsndfile, with the faults of files turned into errors that name them."""

    def __init__(self, source: AudioSource):
        self.name = name_of(source)
        self._path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        self._stream = _as_seekable(source, self.name)

    def __enter__(self) -> OpenedAudio:
        import soundfile

        try:
            self._check_content()
            # A path goes to libsndfile itself, which reads faster than through Python.
            self.file = soundfile.SoundFile(self._path or self._stream)
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: suffix of headerless audio
            raise DataError(
                "Cannot read this as audio",
                got=f"{error}",
                expected="wav, flac, mp3 or ogg",
                where=self.name,
                fix=f"remove it, or convert it: {_CONVERT}",
            ) from error
        finally:
            if self._path:
                self._stream.close()
        self.rate_hz, self.num_frames = self.file.samplerate, self.file.frames
        try:
            self._check_header()
        except BaseException:
            self.file.close()
            raise
        return self

    def __exit__(self, *failure) -> None:
        self.file.close()

    def read_mono(self, begin: int, end: int) -> np.ndarray:
        """Decode frames begin..end and average the channels, block by block."""
        import soundfile

        skipped = begin - self._where_to_seek(begin)
        begin -= skipped
        wave = np.empty(end - begin, np.float32)
        weights = np.full(self.file.channels, 1 / self.file.channels, np.float32)
        done = 0
        try:
            if begin:
                self.file.seek(begin)
            while done < wave.size:
                if self.file.channels == 1:
                    num_read = len(self.file.read(out=wave[done:]))
                else:
                    block = self.file.read(min(_BLOCK_FRAMES, wave.size - done), dtype="float32", always_2d=True)
                    num_read = len(block)
                    np.dot(block, weights, out=wave[done : done + num_read])
                if num_read == 0:
                    break
                done += num_read
        except soundfile.LibsndfileError as error:
            raise self._cut_short(f"{error}") from error
        if wave.size - done > (_MP3_SLACK_FRAMES if self.file.format == "MP3" else 0) or done == 0:
            raise self._cut_short(f"{begin + done} frames of {self.num_frames}")
        wave = wave[skipped:done]
        finite = np.isfinite(wave)
        if not finite.all():
            raise DataError(
                "The audio holds NaN or infinite samples",
                got=f"{np.sum(~finite)} of {wave.size}",
                where=self.name,
                fix="write the file again from its source, or remove it",
            )
        return wave

    def _where_to_seek(self, frame: int) -> int:
        """Return `frame`, or one before it from where libsndfile decodes it right.

        It misses a place within the last page of vorbis by what the end of that page was trimmed by, and the
        first frames of an mp3 after a seek lack the data that lies in frames before them (the bit reservoir).
        """
        if frame and self.file.subtype == "VORBIS":
            page = first_frame_of_last_ogg_page(self._bytes(_TWO_OGG_PAGES_BYTES))
            return min(frame, max(0, page - _VORBIS_BLOCK_FRAMES))
        return max(0, frame - _MP3_RESERVOIR_FRAMES) if self.file.format == "MP3" else frame

    def _check_mp3_length(self) -> None:
        """Replace a guessed length by a counted one, and refuse what libsndfile would not read to its end."""
        counted, is_told = count_mp3_frames(self._bytes())
        if counted and not is_told:
            self.num_frames = min(self.num_frames, counted)
        if counted - self.num_frames > max(10 * _MP3_SLACK_FRAMES, self.num_frames // 50):
            raise DataError(
                "The mp3 header does not tell the length, and part of the audio would be lost",
                got=f"{self.num_frames} frames announced, about {counted} present",
                where=self.name,
                fix="write a right header: ffmpeg -i in.mp3 -c copy out.mp3",
            )

    def _bytes(self, num_last: int = 1 << 62) -> bytes:
        """Return the content, or its end."""
        with open(self._path, "rb") if self._path else contextlib.nullcontext(self._stream) as stream:
            position = stream.tell()  # libsndfile goes on from where it stood
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - num_last))
            content = stream.read()
            stream.seek(position)
        return content

    def _check_content(self) -> None:
        head = self._stream.read(64)
        if not head:
            raise DataError(
                "The audio file is empty",
                got="0 bytes",
                where=self.name,
                fix="copy or download it again, or remove it",
            )
        text = head.lstrip().lower()
        for start, what, fix in _NOT_AUDIO:
            if text.startswith(start):
                raise DataError(
                    "Cannot read this as audio",
                    got=what,
                    expected="wav, flac, mp3 or ogg",
                    where=self.name,
                    fix=fix,
                )
        self._missing_bytes = missing_wav_bytes(self._stream)
        self._stream.seek(0)

    def _check_header(self) -> None:
        if self._missing_bytes:
            raise self._cut_short(f"{self._missing_bytes} bytes missing at the end")
        if self.num_frames == 0:
            raise DataError(
                "The audio has no samples",
                got="length zero",
                where=self.name,
                fix="record or convert it again, or remove it",
            )
        if self.file.format == "MP3":
            self._check_mp3_length()
        if self.num_frames >= 1 << 50:
            raise DataError("The header does not tell the length", where=self.name, fix=f"write it again: {_CONVERT}")

    def _cut_short(self, got: str) -> DataError:
        return DataError(
            "The audio is damaged or cut short",
            got=got,
            where=self.name,
            fix=f"copy or download it again; to keep the usable part: {_CONVERT}",
        )


def name_of(source: AudioSource) -> str:
    """Return what messages call the source."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{len(source)} bytes in memory"
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else f"a stream ({type(source).__name__})"


def _as_seekable(source: AudioSource, name: str) -> BinaryIO:
    """Return a stream that can seek and stands at its start."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        try:
            return open(source, "rb")
        except FileNotFoundError as error:
            raise DataError("No such audio file", got=name, fix=path_hint(source)) from error
        except IsADirectoryError as error:
            raise DataError(
                "Cannot read a folder as audio",
                got=name,
                fix="list its files with colabkit.io.audio.find_audio(folder)",
            ) from error
        except OSError as error:
            raise DataError(
                "Cannot open the audio file",
                got=error.strerror or str(error),
                where=name,
                fix="check the path and the rights to read it",
            ) from error
    if not hasattr(source, "read"):
        raise UsageError(
            "Cannot read audio from this",
            got=type(source).__name__,
            expected="a path, bytes or an open binary stream",
            fix="pass the path of the file",
        )
    can_seek = getattr(source, "seekable", lambda: False)()
    if can_seek and source.tell() == 0 and isinstance(source.read(0), bytes):
        return source
    content = source.read()
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise UsageError(
            "Cannot read audio from a text stream",
            got=type(source).__name__,
            where=name,
            expected="a binary stream",
            fix="open the file with mode 'rb'",
        )
    return io.BytesIO(content)
