"""Features, codes and plans as one environment computes them, to be compared with another's.

    python alike.py make|tell FOLDER

`make` writes small codecs into FOLDER, which the older environment does: a newer one reads what an older one has
written. `tell` prints JSON: features as lists of float32, codes, and the plans of several models.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
CODECS, FITTED = ("mimi", "dac", "encodec"), "fitted.safetensors"
PLANNED = ("facebook/wav2vec2-base", "facebook/hubert-base-ls960", "openai/whisper-small", "facebook/w2v-bert-2.0")


def make(folder: Path) -> None:
    from colabkit.pipelines.dataset.codecs.kmeans_mel import KMeansMel
    from tests.pipelines.dataset.codecs.small_models import make_folder

    for kind in CODECS:
        make_folder(kind, folder / kind)
    KMeansMel.fit(_waves(), num_codebooks=2, codebook_size=16, seed=0).save(folder / FITTED)


def tell(folder: Path) -> dict[str, Any]:
    return {
        "features": {name: array.ravel()[::97].astype(float).tolist() for name, array in _features().items()},
        "codes": {kind: _codes(folder / kind) for kind in CODECS} | {"kmeans-mel": _fitted_codes(folder / FITTED)},
        "plans": {name: _plan(name) for name in PLANNED},
    }


def _waves() -> list[np.ndarray]:
    from tests.pipelines.dataset.codecs.small_models import speech

    return [speech(num, 16_000, seed=seed) for seed, num in enumerate((16_000, 24_000, 33_333))]


def _features() -> dict[str, np.ndarray]:
    import torch

    from colabkit.pipelines.dataset.codecs.kaldi_mel import normalised_log_mels
    from colabkit.pipelines.dataset.codecs.mel import MelFrames

    return {
        "kaldi mels": normalised_log_mels(torch.from_numpy(_waves()[1])[None]).numpy(),
        "mels": np.asarray(MelFrames(16_000).log_mels(_waves()[1])),
    }


def _codes(folder: Path) -> list[list[list[int]]]:
    """Compute in float64, so that no code hangs on the last bit of a kernel."""
    from colabkit.pipelines.dataset.codecs import families
    from colabkit.pipelines.dataset.codecs.by_name import open_codec

    stacked = families.stacked
    families.stacked = lambda waves, length: stacked(waves, length).double()
    try:
        codec = open_codec(str(folder), device="cpu")
        codec._model.double()
        return [codec.encode_batch([wave])[0].tolist() for wave in _waves()]
    finally:
        families.stacked = stacked


def _fitted_codes(path: Path) -> list[list[list[int]]]:
    from colabkit.pipelines.dataset.codecs.kmeans_mel import KMeansMel

    codec = KMeansMel.load(path)
    return [codec.encode_batch([wave])[0].tolist() for wave in _waves()]


def _plan(name: str) -> Any:
    from colabkit import cli

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert cli.main(["plan", "asr", "--set", f"model.name={name}", "--json"]) == 0
    return json.loads(printed.getvalue())


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        print(json.dumps(tell(Path(sys.argv[2]))))
