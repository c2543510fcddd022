"""A transformers codec: batches without padding, memory that runs out, a decoder that stays where it is until needed.

Axes: B wave, K codebook, F frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from colabkit.core.errors import DataError
from colabkit.core.teller import Teller
from colabkit.pipelines.dataset.codecs.at_once import seconds_at_once
from colabkit.pipelines.dataset.codecs.codec import checked_codes, checked_waves
from colabkit.pipelines.dataset.codecs.families import Family, grouped
from colabkit.training.sizing.out_of_memory import clean_up, is_out_of_memory, release

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


class TransformersCodec:
    """Speech to codes and back with a model of transformers.

    encode_batch: a wave gets the codes that the model's documented call gives it alone. Waves are encoded whole,
    however long; one that is longer than the device has memory for, or than the model counts, raises a DataError.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        family: Family,
        fingerprint: str,
        *,
        device: Any,
        precision: str = "fp32",
        teller: Teller = Teller(),
    ):
        self.name, self.family, self.fingerprint = name, family, fingerprint
        self.rate_hz_in, self.rate_hz_out = family.rate_hz_in, family.rate_hz_out
        self.frame_rate_hz = family.rate_hz_in / family.hop
        self.num_codebooks, self.codebook_size = family.num_codebooks, family.codebook_size
        self.device, self.precision = device, precision
        self._teller = teller
        self._most_seconds: float | None = None
        self._decoder_is_here = False
        self._model = model
        for child, module in model.named_children():
            if child not in family.decoder:
                module.to(device)

    def num_frames(self, num_samples: int) -> int:
        return self.family.num_frames(num_samples) if num_samples > 0 else 0

    def most_seconds(self) -> float:
        if self._most_seconds is None:
            seconds, reason = seconds_at_once(self.fingerprint, self.device, self._probe, self.family.seconds_on_cpu)
            self._most_seconds = float(self._teller.choose("codec.seconds_at_once", seconds, reason))
        return self._most_seconds

    def encode_batch(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return (codebook, frame) uint16 for each wave.

        Raises: DataError for a wave that is empty, not finite, too short or too long, or of another number of frames.
        """
        if not waves:
            return []
        frames = checked_waves(waves, self)
        longest = max(map(len, waves))
        if longest > self.family.most_samples:
            raise self._too_long(longest, "more than the model counts exactly")
        codes: list[Any] = [None] * len(waves)
        for part in self.family.parts([len(wave) for wave in waves], frames):
            for place, found in zip(part, self._halving([waves[i] for i in part], self._encode, longest), strict=True):
                codes[place] = found
        return codes

    def decode_batch(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return (sample,) float32 at `rate_hz_out` for each (codebook, frame) array, of any numbers of frames.

        Raises: DataError for codes that this codec does not have.
        """
        codes = checked_codes(codes, self)
        self._fetch_decoder()
        waves: list[Any] = [None] * len(codes)
        for part in grouped([array.shape[1] for array in codes]):
            samples = round(codes[part[0]].shape[1] * self.family.hop)
            for place, found in zip(part, self._halving([codes[i] for i in part], self._decode, samples), strict=True):
                waves[place] = found
        return waves

    def _halving(self, items: list, work: Callable[[list], list], num_samples: int) -> list:
        """Do the work in batches that fit; one that does not is halved, and the limit remembered."""
        seconds = num_samples / self.rate_hz_in
        done: list = []
        while len(done) < len(items):
            at_once = max(1, int(self.most_seconds() / seconds + 1e-9))
            batch = items[len(done) : len(done) + at_once]
            try:
                done += work(batch)
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                told = release(error)
            clean_up()
            if len(batch) == 1:
                raise self._too_long(num_samples, f"too much for the memory of {self.device}: {told[:120]}")
            self._most_seconds = seconds * (len(batch) // 2)
            self._teller.say(
                f"  memory ran out with {len(batch)} segments of {seconds:.1f} s at once: "
                f"{self._most_seconds:.1f} s at once from now on"
            )
        return done

    def _too_long(self, num_samples: int, why: str) -> DataError:
        return DataError(
            "A segment is too long to be encoded",
            got=f"{num_samples / self.rate_hz_in:.0f} s, {why}",
            expected=f"at most {self.family.most_samples / self.rate_hz_in:.0f} s, and what memory holds",
            where=self.name,
            fix="cut it into shorter segments (30 s are plenty for speech), or use a larger GPU",
        )

    def _encode(self, waves: list[np.ndarray]) -> list[np.ndarray]:
        with self._computing():
            codes_BKF = self.family.encode(self._model, waves, self.device)
            return list(codes_BKF.cpu().numpy().astype(np.uint16))

    def _decode(self, codes: list[np.ndarray]) -> list[np.ndarray]:
        import torch

        with self._computing():
            codes_BKF = torch.from_numpy(np.stack(codes).astype(np.int64)).to(self.device)
            return list(self.family.decode(self._model, codes_BKF).float().cpu().numpy())

    def _fetch_decoder(self) -> None:
        if not self._decoder_is_here:
            for child in self.family.decoder:
                getattr(self._model, child).to(self.device)
            self._decoder_is_here = True

    def _probe(self, seconds: float, num: int) -> None:
        wave = np.random.default_rng(0).standard_normal(int(seconds * self.rate_hz_in)).astype(np.float32) * 0.05
        self._encode([wave] * num)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """No gradients, and the chosen precision: with "fp32" a GPU rounds nothing to TF32."""
        import torch

        if self.precision in ("bf16", "fp16"):
            cast: Any = torch.autocast(
                self.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
            )
        else:
            cast = nullcontext()
        with torch.inference_mode(), cast, _tf32(self.device, self.precision != "fp32"):
            yield


@contextmanager
def _tf32(device: Any, is_allowed: bool) -> Iterator[None]:
    """Say for a while whether a GPU may round factors to 10 bits."""
    import torch

    if device.type != "cuda":
        yield
        return
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = is_allowed
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value
