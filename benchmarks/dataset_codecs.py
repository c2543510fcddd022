"""Claim: codes made in batches of equally many frames are those of transformers' documented call for each wave alone.

All codes are the same, and it is no slower; batches padded to the longest wave give other codes.

    python benchmarks/dataset_codecs.py [--models mimi,encodec,dac,neucodec] [--items 24] [--small] [--rounds 3]

Models have their published sizes and random weights (--small: small ones, to try the script). "alone": transformers'
feature extractor and model.encode, one wave a call; for neucodec, whose extractor needs torchaudio, the emulated call
of neucodec 0.0.6, whose features are rounded otherwise: there parity is with one wave a call of ours, and both rates
are printed. "padded": the same call with all waves. Lengths differ within the batch by less than a frame, and for
"padded" by up to a third. Rounds of alone and ours alternate; medians. Parity is that of batches as a GPU gets them;
timed are those that are chosen for a CPU, where DAC and NeuCodec take one wave at a time. The fitted codec kmeans-mel
is timed with them, fitted on speech made on the spot. The ratio comes last: ours to alone, the least of the models.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import codec_calls  # noqa: E402
from colabkit.core.table import Table  # noqa: E402
from colabkit.core.teller import Teller  # noqa: E402
from colabkit.pipelines.dataset.codecs.families import FAMILIES  # noqa: E402
from colabkit.pipelines.dataset.codecs.kmeans_mel import KMeansMel  # noqa: E402
from colabkit.pipelines.dataset.codecs.transformers_codec import TransformersCodec  # noqa: E402

SECONDS = (2.0, 4.0)


def buckets(rate_hz: int, codec, num: int) -> list[list[np.ndarray]]:
    """Return batches of waves with equally many frames and unlike numbers of samples."""
    rng = np.random.default_rng(0)
    made = []
    for number, seconds in enumerate(SECONDS):
        wave = codec_calls.speech(seconds, rate_hz, number)
        frames = codec.num_frames(len(wave) - codec.family.hop // 2)
        lengths = [n for n in range(len(wave) - 2 * codec.family.hop, len(wave)) if codec.num_frames(n) == frames]
        made.append(
            [
                codec_calls.speech(seconds, rate_hz, i)[:n]
                for i, n in enumerate(rng.choice(lengths, num // len(SECONDS)))
            ]
        )
    return made


def agreement(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Return the share of codes that are the same."""
    return sum((a == b).sum() for a, b in zip(one, other, strict=True)) / sum(a.size for a in one)


def timed(call, batches) -> tuple[float, list[np.ndarray]]:
    began = time.perf_counter()
    codes = [array for batch in batches for array in call(batch)]
    return time.perf_counter() - began, codes


class _AllAtOnce(Teller):
    """Lets ten minutes of audio through at once."""

    def choose(self, name: str, value: float, reason: str) -> float:
        return 640.0


def compare(kind: str, options: argparse.Namespace) -> tuple[list, float, float]:
    model = codec_calls.build(kind, small=options.small)
    extractor = {"sampling_rate": 16_000 if kind == "neucodec" else 24_000}
    codec, at_once = (
        TransformersCodec(
            kind, model, FAMILIES[kind](model.config, extractor), kind, device=torch.device("cpu"), teller=teller
        )
        for teller in (Teller(), _AllAtOnce())
    )
    alone = codec_calls.NeuCodecsOwn(model) if kind == "neucodec" else codec_calls.documented(kind, model, padded=False)
    batches = buckets(codec.rate_hz_in, codec, options.items)
    audio = sum(len(wave) for batch in batches for wave in batch) / codec.rate_hz_in
    codec.encode_batch(batches[0][:2]), alone(batches[0][:1])  # the first call makes kernels ready
    rounds = [(timed(alone, batches), timed(codec.encode_batch, batches)) for _ in range(options.rounds)]
    theirs, ours = (statistics.median(pair[i][0] for pair in rounds) for i in range(2))
    by_call, by_us = rounds[0][0][1], [codes for batch in batches for codes in at_once.encode_batch(batch)]
    exact = agreement(
        by_us, [codec.encode_batch([w])[0] for batch in batches for w in batch] if kind == "neucodec" else by_call
    )
    padded = "-"
    if kind != "neucodec":
        mixed = [wave[: int(len(wave) * (1 - i / (3 * len(batches[1]))))] for i, wave in enumerate(batches[1])]
        found = codec_calls.documented(kind, model, padded=True)(mixed)
        padded = f"{agreement(found, [alone([wave])[0] for wave in mixed]):.3%}"
    used = len(np.unique(np.concatenate([codes.ravel() for codes in by_us])))
    return (
        [
            kind,
            used,
            f"{audio / theirs:.1f}",
            f"{audio / ours:.1f}",
            f"{theirs / ours:.2f}",
            f"{agreement(by_us, by_call):.4%}",
            f"{exact:.4%}",
            padded,
        ],
        theirs / ours,
        exact,
    )


def fitted(num: int) -> list:
    """Return what one core does with the fitted codec."""
    from colabkit.io.voices import make_speakers, utterance

    waves = [utterance(speaker, i).wave for speaker in make_speakers(6) for i in range(4)]
    began = time.perf_counter()
    codec = KMeansMel.fit(waves)
    fit_seconds, audio = time.perf_counter() - began, sum(map(len, waves)) / 16_000
    test = [utterance(speaker, 30 + i).wave for speaker in make_speakers(6) for i in range(num // 6 + 1)]
    began = time.perf_counter()
    codes = [codec.encode_batch([wave])[0] for wave in test]
    encoding = time.perf_counter() - began
    began = time.perf_counter()
    codec.decode_batch(codes)
    seconds = sum(map(len, test)) / 16_000
    decoding = time.perf_counter() - began
    return [f"{audio:.0f} s in {fit_seconds:.1f} s", f"{seconds / encoding:.0f}", f"{seconds / decoding:.1f}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="mimi,encodec,dac,neucodec")
    parser.add_argument("--items", type=int, default=24, help="waves a model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="small models: does the script hold together?")
    options = parser.parse_args()
    print(
        Table(
            ["fitted on", "encoded, x real time", "decoded, x real time"], [fitted(options.items)], title="kmeans-mel"
        )
    )
    found = [compare(kind, options) for kind in options.models.split(",")]
    columns = [
        "codec",
        "codes used",
        "alone, x real time",
        "ours, x real time",
        "ratio",
        "as alone",
        "parity",
        "padded as alone",
    ]
    print(Table(columns, [row for row, _, _ in found], title=f"{torch.get_num_threads()} CPU threads"))
    ratio, exact = min(ratio for _, ratio, _ in found), min(exact for _, _, exact in found)
    print(
        f"parity {exact:.4%} (target 100%); ratio: {ratio:.2f}x the audio in a second of one wave a call "
        f"(target >= 1x), the least of {len(found)}"
    )
    return 0 if exact == 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
