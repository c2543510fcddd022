"""A codec fitted on the data itself: log-mel frames and residual k-means. Needs no download, no GPU and no torch.

    codec = KMeansMel.fit(waves, rate_hz=16_000)      # a minute for an hour of speech
    codec.save(Path("codec.safetensors"))
    codec = open_codec("kmeans-mel:codec.safetensors")

It is for trying a pipeline out and for machines without a network. What it decodes keeps words and voice apart but
sounds hollow: its phases are guessed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from colabkit.core.errors import DataError, UsageError
from colabkit.core.files import write_atomic
from colabkit.pipelines.dataset.codecs import kmeans
from colabkit.pipelines.dataset.codecs.codec import checked_codes, checked_waves
from colabkit.pipelines.dataset.codecs.mel import FRAMES_PER_SECOND, NUM_MELS, MelFrames

VERSION = 1  # goes up when codes of the same wave change
MOST_SECONDS = 600.0
_KEY = "colabkit.codec"  # of the file's metadata; a second key would make its bytes depend on their order


class KMeansMel:
    """Mean and codebooks of log-mel frames at 50 Hz; satisfies Codec."""

    name = "kmeans-mel"

    def __init__(self, mean: np.ndarray, books: np.ndarray, rate_hz: int):
        """`mean`: (mel,), `books`: (codebook, entry, mel), both float32."""
        self._mean, self._books, self._frames = mean, books, MelFrames(rate_hz)
        self.rate_hz_in = self.rate_hz_out = rate_hz
        self.frame_rate_hz = float(FRAMES_PER_SECOND)
        self.num_codebooks, self.codebook_size = books.shape[:2]
        digest = hashlib.sha256(json.dumps([self.name, VERSION, rate_hz, list(books.shape)]).encode())
        for array in (mean, books):
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        self.fingerprint = digest.hexdigest()

    @classmethod
    def fit(
        cls,
        waves: Iterable[np.ndarray],
        *,
        rate_hz: int = 16_000,
        num_codebooks: int = 8,
        codebook_size: int = 256,
        seed: int = 0,
        most_frames: int = 60_000,
    ) -> KMeansMel:
        """Fit a codec on (sample,) float32 waves at `rate_hz`.

        Of more than `most_frames` frames a random choice is used. The same waves in the same order and the same seed
        give the same codec, to the bit, on a machine.
        Raises: UsageError for sizes that cannot be, DataError where there is too little speech.
        """
        if rate_hz % 100 or not 8_000 <= rate_hz <= 48_000:
            raise UsageError(
                "A fitted codec cannot have this rate",
                got=rate_hz,
                expected="8000 to 48000 Hz in steps of 100",
                fix="choose 16000 or 24000",
            )
        if not 1 <= num_codebooks <= 32 or not 2 <= codebook_size <= 65_536:
            raise UsageError(
                "A fitted codec cannot have this size",
                got=f"{num_codebooks} codebooks of {codebook_size}",
                expected="1 to 32 codebooks of 2 to 65536 entries",
                fix="choose 8 codebooks of 256",
            )
        points = _sampled(waves, MelFrames(rate_hz), np.random.default_rng([seed, 1]), most_frames)
        if len(points) < 4 * codebook_size:
            raise DataError(
                "Too little speech to fit a codec",
                got=f"{len(points) / FRAMES_PER_SECOND:.1f} s",
                expected=f"at least {4 * codebook_size / FRAMES_PER_SECOND:.0f} s for {codebook_size} entries",
                fix="fit on more segments, or choose a smaller codebook_size",
            )
        mean = points.mean(0, dtype=np.float64).astype(np.float32)
        return cls(mean, kmeans.fit_residual(points - mean, num_codebooks, codebook_size, seed=seed), rate_hz)

    def save(self, path: Path) -> None:
        """Write the codec into one file. Raises: StateError."""
        write_atomic(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return mean, codebooks and settings as safetensors; the same codec gives the same bytes."""
        from safetensors.numpy import save

        settings = {"kind": self.name, "version": VERSION, "rate_hz": self.rate_hz_in, "fingerprint": self.fingerprint}
        return save({"mean": self._mean, "codebooks": self._books}, {_KEY: json.dumps(settings, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> KMeansMel:
        """Read a saved codec. Raises: DataError for a file that is not there, is broken, or is something else."""
        from safetensors import SafetensorError, safe_open

        fix = "fit the codec again, or name the file that save() wrote"
        try:
            with safe_open(path, framework="numpy") as opened:
                settings = json.loads((opened.metadata() or {}).get(_KEY, "{}"))
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}
        except (OSError, SafetensorError, ValueError) as error:
            raise DataError(
                "The fitted codec cannot be read",
                got=f"{type(error).__name__}: {error}"[:200],
                expected="a file of KMeansMel.save",
                where=path,
                fix=fix,
            ) from error
        mean, books = arrays.get("mean"), arrays.get("codebooks")
        if (
            settings.get("kind") != cls.name
            or settings.get("version") != VERSION
            or mean is None
            or books is None
            or mean.shape != (NUM_MELS,)
            or books.ndim != 3
            or books.shape[2] != NUM_MELS
        ):
            raise DataError(
                "This file is not a fitted codec of this version",
                got=f"{settings or 'no settings'}",
                expected=f"kind {cls.name}, version {VERSION}",
                where=path,
                fix=fix,
            )
        codec = cls(mean, books, int(settings["rate_hz"]))
        if codec.fingerprint != settings.get("fingerprint"):
            raise DataError(
                "The fitted codec was changed after it was written",
                got=codec.fingerprint[:16],
                expected=str(settings.get("fingerprint"))[:16],
                where=path,
                fix=fix,
            )
        return codec

    def num_frames(self, num_samples: int) -> int:
        return self._frames.num_frames(num_samples)

    def most_seconds(self) -> float:
        return MOST_SECONDS

    def encode_batch(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return (codebook, frame) uint16 for each wave, one after the other: a batch is no faster.

        Raises: DataError.
        """
        if waves:
            checked_waves(waves, self)
        return [kmeans.encode(self._frames.log_mels(wave) - self._mean, self._books) for wave in waves]

    def decode_batch(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return (frame * 20 ms,) float32 for each (codebook, frame) array. Raises: DataError for other codes."""
        return [self._frames.to_wave(self.decode_mels(array)) for array in checked_codes(codes, self)]

    def decode_mels(self, codes: np.ndarray) -> np.ndarray:
        """Return the (frame, mel) log-mels that (codebook, frame) codes stand for."""
        return kmeans.decode(codes, self._books) + self._mean


def _sampled(waves: Iterable[np.ndarray], frames: MelFrames, rng: np.random.Generator, most: int) -> np.ndarray:
    """Return log-mels of all frames, or of `most` chosen evenly from all in one pass (Vitter 1985, algorithm R)."""
    kept, seen = np.empty((most, NUM_MELS), np.float32), 0
    for wave in waves:
        if not len(wave):
            continue
        mels = frames.log_mels(np.asarray(wave, np.float32))
        room = max(0, min(most - seen, len(mels)))
        kept[seen : seen + room] = mels[:room]
        numbers = np.arange(seen + room, seen + len(mels))
        places = rng.integers(0, numbers + 1) if len(numbers) else numbers
        taken = places < most
        kept[places[taken]] = mels[room:][taken]
        seen += len(mels)
    return kept[: min(seen, most)]
