"""Real recordings transcribed by a model that was trained on made-up voices alone, on two CPU cores.

    python benchmarks/asr_real.py --data ../shared/data/transcribed --steps 3000

The voices say random sequences of the words that occur in the recordings; the recordings themselves are never trained
on. A word model of random sequences knows the words and nothing of their order. Prints what was said and heard, WER and
CER with intervals, greedy and with the word model, and as the peer, where it is installed, pocketsphinx with its own
large English model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

import colabkit
from colabkit.io.audio import read_audio
from colabkit.pipelines.asr.evaluate.metrics import score

TABLES = ("ASR_train.json", "ASR_dev.json")


def recordings(folder: Path) -> dict[Path, str]:
    """Return {path: what is said}."""
    found = {}
    for table in TABLES:
        for row in json.loads((folder / table).read_text(encoding="utf-8")).values():
            found[folder / row["wav"].rpartition("/")[2]] = row["wrd"].lower()
    return found


def train(state: str, words: list[str], steps: int, voices: int) -> Path:
    """Train on voices that say these words; return the folder of the run."""
    settings = {
        "data.vocabulary": words,
        "data.num_voices": voices,
        "data.sentences_per_voice": 24,
        "train.steps": steps,
        "model.hidden_size": 160,
        "model.num_layers": 3,
        "train.learning_rate": 3e-3,
        "train.validate_every_steps": max(1, steps // 6),
        "train.checkpoint_every_steps": 200,
        "data.held_out_fraction": 0.05,
        "data.validation_fraction": 0.05,
        "train.tracker": "none",
    }
    with colabkit.start("asr", colabkit.configure("asr", "demo", settings), run="real", state=state) as run:
        run.do_all()
    return run.path


def heard_by_us(model: Path, paths: list[Path], words: list[str], *, with_words: bool) -> list[str]:
    transcriber = colabkit.Transcriber.from_folder(model)
    if with_words:
        from colabkit.pipelines.asr.evaluate.decode import BeamDecoder
        from colabkit.pipelines.asr.evaluate.language_model import NgramModel

        chance = np.random.default_rng(0)
        known = NgramModel.train([" ".join(chance.choice(words, 5)) for _ in range(2000)], order=1)
        beam = BeamDecoder(transcriber.recognizer.coder, width=64, language_model=known, lm_weight=0.6, word_bonus=2.0)
        transcriber.decode = beam.decode
    return [transcriber.transcribe(path).text for path in paths]


def heard_by_pocketsphinx(paths: list[Path]) -> list[str] | None:
    try:
        from pocketsphinx import Decoder
    except ModuleNotFoundError:
        return None
    found = []
    for path in paths:
        decoder = Decoder(samprate=16_000)
        decoder.start_utt()
        decoder.process_raw((read_audio(path) * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        found.append(decoder.hyp().hypstr if decoder.hyp() else "")
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, default=Path("../shared/data/transcribed"))
    options.add_argument("--steps", type=int, default=3000)
    options.add_argument("--voices", type=int, default=160)
    options.add_argument("--state", default="")
    options = options.parse_args()
    spoken = recordings(options.data)
    paths, said = list(spoken), list(spoken.values())
    words = sorted({word for text in said for word in text.split()})
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        model = train(options.state or scratch, words, options.steps, options.voices) / "04_train" / "model"
        print(f"trained {time.monotonic() - began:.0f} s on {options.voices} voices that say {len(words)} words")
        heard = {
            "greedy": heard_by_us(model, paths, words, with_words=False),
            "with the words": heard_by_us(model, paths, words, with_words=True),
        }
    if (peer := heard_by_pocketsphinx(paths)) is not None:
        heard["pocketsphinx"] = peer
    for path, text in spoken.items():
        print(f"{path.name}\n  said            {text}")
        for name, texts in heard.items():
            print(f"  {name:15} {texts[paths.index(path)]}")
    scores = {name: score(said, texts) for name, texts in heard.items()}
    for name, found in scores.items():
        print(
            f"{name:15} WER {found.wer:.1%} ({found.wer_interval[0]:.1%} to {found.wer_interval[1]:.1%}), "
            f"CER {found.cer:.1%}"
        )
    other = scores.get("pocketsphinx")
    print(
        f"ratio: WER {scores['with the words'].wer / other.wer:.2f}x of pocketsphinx's"
        if other
        else f"ratio: WER {scores['with the words'].wer / scores['greedy'].wer:.2f}x of greedy's"
    )


if __name__ == "__main__":
    main()
