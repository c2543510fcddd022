"""Call the codec: batches that do not fit the device are halved, and what breaks it alone is told from the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from colabkit.core.errors import ColabkitError, StateError
from colabkit.pipelines.dataset.codecs.codec import Codec


class Encoder:
    """Encodes batches of waves of equally many frames. `most_seconds` shrinks when the device runs out of memory."""

    def __init__(self, codec: Codec, *, say: Callable[[str], None] = print):
        self.codec, self.say = codec, say
        self.most_seconds = float("inf")
        # what surely can be encoded
        self._good: np.ndarray = np.sin(np.arange(codec.rate_hz_in, dtype=np.float32) / 20) / 4

    def encode(self, waves: Sequence[np.ndarray], num_frames: int) -> list[np.ndarray | str]:
        """Return (codebook, frame) uint16 for each wave, or why it has none.

        Raises: StateError when the codec fails on what it could encode before: then the fault is not the waves'.
        """
        results = self._encode(waves, num_frames)
        good = next((wave for wave, codes in zip(waves, results, strict=True) if not isinstance(codes, str)), None)
        if good is not None:
            self._good = good
        if any(isinstance(codes, str) for codes in results):
            self._try_good()
        return results

    def _try_good(self) -> None:
        try:
            self.codec.encode_batch([self._good])
        except (ColabkitError, RuntimeError, ValueError, MemoryError) as error:
            raise StateError(
                "The codec fails on everything",
                got=_told(error),
                expected="codes",
                where=self.codec.name,
                fix="restart the process (and look at the device, nvidia-smi); what is done is kept: run the same "
                "again",
            ) from error

    def _encode(self, waves: Sequence[np.ndarray], num_frames: int) -> list[np.ndarray | str]:
        seconds = sum(len(wave) for wave in waves) / self.codec.rate_hz_in
        if seconds > self.most_seconds and len(waves) > 1:
            return self._halves(waves, num_frames)
        try:
            made = self.codec.encode_batch(waves)
        except ColabkitError as error:
            return [str(error).splitlines()[0]] if len(waves) == 1 else self._one_by_one(waves, num_frames)
        except (RuntimeError, ValueError, MemoryError) as error:  # of torch, numpy, onnxruntime
            if not _is_out_of_memory(error):
                return [_told(error)] if len(waves) == 1 else self._one_by_one(waves, num_frames)
            if len(waves) == 1:
                return [f"the device runs out of memory over its {seconds:.0f} s alone"]
        else:
            return [self._checked(codes, num_frames) for codes in made]
        _empty_cache()
        self.most_seconds = seconds / 2
        self.say(
            f"  WARNING the device ran out of memory over {seconds:.0f} s of audio: batches hold at most "
            f"{self.most_seconds:.0f} s from now on"
        )
        return self._halves(waves, num_frames)

    def _halves(self, waves: Sequence[np.ndarray], num_frames: int) -> list[np.ndarray | str]:
        middle = len(waves) // 2
        return [*self._encode(waves[:middle], num_frames), *self._encode(waves[middle:], num_frames)]

    def _one_by_one(self, waves: Sequence[np.ndarray], num_frames: int) -> list[np.ndarray | str]:
        return [codes for wave in waves for codes in self._encode([wave], num_frames)]

    def _checked(self, codes: np.ndarray, num_frames: int) -> np.ndarray | str:
        codes = np.asarray(codes)
        shape = (self.codec.num_codebooks, num_frames)
        if codes.shape != shape:
            return f"the codec made codes of shape {codes.shape} instead of {shape}"
        return codes.astype(np.uint16, copy=False)


def _is_out_of_memory(error: Exception) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in str(error).lower()
    )


def _told(error: Exception) -> str:
    told = str(error).splitlines()
    return f"the codec fails on it: {type(error).__name__}: {told[0] if told else ''}"[:300]


def _empty_cache() -> None:
    import sys

    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
