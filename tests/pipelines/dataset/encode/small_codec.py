"""A codec that costs what it is told to, and segments for it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from colabkit.core.errors import DataError
from colabkit.pipelines.dataset.segments.segment import Segment


class SmallCodec:
    """Codes are sums of 320 samples.

    `encoded` holds (frames, items) of each call; `before(waves)` may wait or raise.
    """

    name, rate_hz_in, rate_hz_out, frame_rate_hz, num_codebooks, codebook_size = (
        "small",
        16_000,
        16_000,
        50.0,
        2,
        65_536,
    )

    def __init__(
        self,
        *,
        most: float = 20.0,
        seconds_per_second: float = 0.0,
        version: str = "1",
        before: Callable[[Sequence[np.ndarray]], None] = lambda waves: None,
    ):
        self.most, self.seconds_per_second, self.version, self.before = most, seconds_per_second, version, before
        self.encoded: list[tuple[int, int]] = []

    @property
    def fingerprint(self) -> str:
        return f"small-{self.version}"

    def num_frames(self, num_samples: int) -> int:
        return -(-num_samples // 320)

    def most_seconds(self) -> float:
        return self.most

    def encode_batch(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.before(waves)
        frames = {self.num_frames(len(wave)) for wave in waves}
        assert len(frames) == 1, f"unequal batch: {frames}"
        self.encoded.append((frames.pop(), len(waves)))
        if self.seconds_per_second:
            time.sleep(self.seconds_per_second * sum(map(len, waves)) / self.rate_hz_in)
        return [codes_for(wave) for wave in waves]

    def decode_batch(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.zeros(c.shape[1] * 320, np.float32) for c in codes]


def codes_for(wave: np.ndarray) -> np.ndarray:
    """Return the codes of a wave. Shape: (2, frame) uint16."""
    padded = np.pad(wave, (0, -len(wave) % 320)).reshape(-1, 320)
    sums = np.round(padded.astype(np.float64).sum(1) * 1000).astype(np.int64)
    return np.stack([sums % 65_536, (sums // 7) % 65_536]).astype(np.uint16)


def make_wave(number: int, num_samples: int) -> np.ndarray:
    """Return a wave that int16 holds exactly. Shape: (sample,) float32."""
    return (np.random.default_rng(number).integers(-3000, 3000, num_samples) / 32768).astype(np.float32)


def npz_bytes(wave: np.ndarray, rate_hz: int = 16_000, **values: str) -> bytes:
    """Return an npz as the seed's."""
    buffer = io.BytesIO()
    np.savez(buffer, audio=wave, sr=np.int64(rate_hz), **{name: np.array(value) for name, value in values.items()})
    return buffer.getvalue()


def read_small(payload: bytes, name: str, columns: Mapping[str, str]) -> Segment:
    """Read such an npz, or the bare int16 of `raw_bytes`."""
    known = dict(columns)
    if payload.startswith(b"PK"):
        try:
            with np.load(io.BytesIO(payload), allow_pickle=False) as opened:
                wave, rate_hz = np.asarray(opened["audio"], np.float32), int(opened["sr"])
                known |= {key: str(opened[key]) for key in opened.files if key not in ("audio", "sr")}
        except (ValueError, OSError) as error:
            raise DataError("Cannot read the segment", got=str(error), where=name, fix="write it again") from error
    else:
        import soundfile

        wave, rate_hz = soundfile.read(io.BytesIO(payload), dtype="float32")
    return Segment(
        key=name.removesuffix(".npz"),
        wave=wave,
        rate_hz=rate_hz,
        speaker=known.get("speaker", ""),
        channel=known.get("channel", ""),
        text=known.get("text", ""),
        metadata={"from": "test"},
    )


def fill(
    objects,
    number: int,
    *,
    first: int = 0,
    channels: int = 3,
    shortest: int = 1000,
    longest: int = 40_000,
    step: int = 500,
) -> dict[str, np.ndarray]:
    """Put segments CHANNEL/NUMBER.npz; returns the codes expected by key."""
    expected = {}
    for i in range(first, first + number):
        length = shortest + step * int(np.random.default_rng(i).integers(0, max(1, (longest - shortest) // step)))
        wave, key = make_wave(i, length), f"channel{i % channels}/{i:05d}"
        objects.put(f"{key}.npz", npz_bytes(wave, speaker=f"s{i % 7}", text=f"text {i}"))
        expected[key] = codes_for(wave)
    return expected
