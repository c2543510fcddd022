"""The codec of a run: opened by name, or fitted on the store's own speech once; and used on the user's files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.teller import Teller
from colabkit.io.audio import read_audio, resample, write_wav
from colabkit.io.places import Place, Taken
from colabkit.pipelines.dataset.codecs.by_name import open_codec
from colabkit.pipelines.dataset.codecs.codec import Codec
from colabkit.pipelines.dataset.codecs.names import FITTED
from colabkit.pipelines.dataset.config import CodecConfig
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.segment import Segment
from colabkit.pipelines.dataset.store.open import SEGMENTS

CODEC = "codec"  # folder of a run's step, and of a store
_FILE = "codec.safetensors"
_NAME = "codec.json"
_RATE_HZ = 16_000
_NUM_CODEBOOKS = 6  # of a fitted codec


def codec_of_store(config: CodecConfig, store: Place, folder: Path, teller: Teller) -> Codec:
    """Return the codec to encode a store with; `folder`/codec keeps what it takes to open it again."""
    place = folder / CODEC
    place.mkdir(exist_ok=True)
    if config.name == FITTED:
        (place / _FILE).exists() or files.write_atomic(place / _FILE, _fitted(config, store, teller))
    files.write_json(
        place / _NAME, {"name": config.name, "precision": config.precision, "num_codebooks": config.num_codebooks}
    )
    return codec_of_run(folder, teller)


def codec_of_run(folder: Path, teller: Teller) -> Codec:
    """Return the codec that a step encoded with."""
    known = files.read_json(folder / CODEC / _NAME)
    if known["name"] == FITTED:
        return open_codec(f"{FITTED}:{folder / CODEC / _FILE}")
    return open_codec(known["name"], precision=known["precision"], num_codebooks=known["num_codebooks"], teller=teller)


def _fitted(config: CodecConfig, store: Place, teller: Teller) -> bytes:
    """Return the file of the codec fitted on this store with these settings; the first to fit it fits it for all."""
    settings = {
        "fit_seconds": config.fit_seconds,
        "num_codebooks": config.num_codebooks or _NUM_CODEBOOKS,
        "codebook_size": config.codebook_size,
        "seed": config.seed,
    }
    name = (
        f"{CODEC}/{FITTED}-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]}.safetensors"
    )
    if (found := store.get_if_there(name)) is not None:
        teller.say(f"  {FITTED} is taken from the store: it was fitted on this store before")
        return found[0]
    from colabkit.pipelines.dataset.codecs.kmeans_mel import KMeansMel

    codec = KMeansMel.fit(_speech(store, settings.pop("fit_seconds")), rate_hz=_RATE_HZ, **settings)
    try:
        store.put(name, codec.to_bytes(), only_if_absent=True)
    except Taken:  # another machine was faster: there must be one codec
        return store.get(name)
    return codec.to_bytes()


def _speech(store: Place, seconds: float) -> Iterator[np.ndarray]:
    """Yield waves of the store's first segments at the codec's rate, until there are so many seconds."""
    from colabkit.pipelines.dataset.segments.walk import segment_rows

    for segment in segment_rows(store.below(SEGMENTS), problem=lambda name, reason: None):
        yield resample(segment.wave, segment.rate_hz, _RATE_HZ)
        seconds -= segment.seconds
        if seconds <= 0:
            return


def encode_files(step_folder: Path, paths: list[Path], output: Path) -> list[Path]:
    """Write NAME.npz (audio and codes, as a dataset's segments) and NAME.wav (decoded) for each file; return all."""
    codec = codec_of_run(step_folder, Teller())
    written = []
    for path in paths:
        wave = read_audio(path, rate_hz=codec.rate_hz_in)
        codes = codec.encode_batch([wave])[0]
        segment = Segment(key=path.stem, wave=wave, rate_hz=codec.rate_hz_in, codes=codes)
        files.write_atomic(output / f"{path.stem}.npz", write_npz(segment))
        write_wav(output / f"{path.stem}.wav", codec.decode_batch([codes])[0].clip(-1, 1), codec.rate_hz_out)
        written += [output / f"{path.stem}.npz", output / f"{path.stem}.wav"]
    return written
