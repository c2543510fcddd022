"""What a run made, used on the user's files: their codes, and what they sound like."""

from __future__ import annotations

from pathlib import Path

from colabkit.core import files
from colabkit.io.audio import read_audio, write_wav
from colabkit.pipelines.dataset.run_codec import codec_of_run
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.segment import Segment


def encode_files(step_folder: Path, paths: list[Path], output: Path) -> list[Path]:
    """Write NAME.npz (audio and codes, as the segments of a dataset) and NAME.wav (decoded) for each file; return all."""
    codec = codec_of_run(step_folder, lambda name, value, reason: value, print)
    written = []
    for path in paths:
        wave = read_audio(path, rate_hz=codec.rate_hz_in)
        codes = codec.encode_batch([wave])[0]
        segment = Segment(key=path.stem, wave=wave, rate_hz=codec.rate_hz_in, codes=codes)
        files.write_atomic(output / f"{path.stem}.npz", write_npz(segment))
        write_wav(output / f"{path.stem}.wav", codec.decode_batch([codes])[0].clip(-1, 1), codec.rate_hz_out)
        written += [output / f"{path.stem}.npz", output / f"{path.stem}.wav"]
    return written
