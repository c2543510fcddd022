"""Claim: batches of simulated conversations come >= 10x as fast as batches of pyannote.audio's own training loader.

    python benchmarks/stream_simulation.py --peers PATH-OF-VENV [--seconds 20] [--data FOLDER]

Windows of 10 s, batches of 32, two workers each. pyannote.audio 4 crops windows out of recordings with RTTM labels
(here conversations that colabkit made of the same speech, as 16 kHz wav); colabkit makes every window anew: turns,
speeds, rooms, noise. The peers' environment needs pyannote.audio, torchcodec and FFmpeg's libraries. Rounds alternate;
medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.prefetch import prefetch  # noqa: E402
from colabkit.core.table import Table  # noqa: E402
from colabkit.core.teller import Teller  # noqa: E402
from colabkit.io.audio import write_wav  # noqa: E402
from colabkit.pipelines.diarization.config import Config, EvaluateConfig, SpeechConfig  # noqa: E402
from colabkit.pipelines.diarization.evaluate.step import conversation  # noqa: E402
from colabkit.pipelines.diarization.rttm import write_rttm  # noqa: E402
from colabkit.pipelines.diarization.speech.pool import load_bank  # noqa: E402
from colabkit.pipelines.diarization.speech.step import list_speech  # noqa: E402
from colabkit.pipelines.diarization.train.batches import TrainingBatches, held_out_simulator, training_simulator  # noqa: E402

BATCH, WINDOW_SECONDS, NUM_RECORDINGS = 32, 10.0, 40
PEER = ROOT / "benchmarks" / "peers" / "pyannote_loader.py"


def load_speech(folder: Path):
    """Return the training speech of the recordings, or of voices where there are none."""
    speech = (
        SpeechConfig(source=(str(folder),), speaker_from="name") if folder.is_dir() else SpeechConfig(num_voices=60)
    )
    with tempfile.TemporaryDirectory() as listing:
        spoken = list_speech(speech, Path(listing), Teller())
        return load_bank(spoken, "train", Teller())


def write_recordings(bank, folder: Path) -> None:
    """Write conversations of a minute as pyannote.database wants them."""
    simulator = held_out_simulator(bank, EvaluateConfig(), seconds=60.0, num_speakers=3, seed=0)
    names = [f"mix{number:03d}" for number in range(NUM_RECORDINGS)]
    for number, name in enumerate(names):
        talk = conversation(name, simulator.sample(number))
        write_wav(folder / f"{name}.wav", talk.wave / max(1.0, abs(talk.wave).max()), 16_000)
        write_rttm(folder / f"{name}.rttm", name, talk.turns)
    for subset, chosen in (("train", names[:-4]), ("dev", names[-4:])):
        (folder / f"{subset}.lst").write_text("\n".join(chosen) + "\n")
        (folder / f"{subset}.uem").write_text("".join(f"{name} 1 0.0 60.0\n" for name in chosen))
        (folder / f"{subset}.rttm").write_text("".join((folder / f"{name}.rttm").read_text() for name in chosen))
    parts = {"train": "train", "development": "dev"}
    (folder / "database.yml").write_text(
        f"Databases:\n  Bench: {folder}/{{uri}}.wav\n"
        "Protocols:\n  Bench:\n    SpeakerDiarization:\n      mixes:\n        scope: file\n"
        + "".join(
            f"        {part}:\n          uri: {folder}/{name}.lst\n          annotation: {folder}/{name}.rttm\n"
            f"          annotated: {folder}/{name}.uem\n"
            for part, name in parts.items()
        )
    )


def ours(bank, seconds: float, workers: int) -> float:
    config = Config()
    simulator = training_simulator(bank, config.simulate, seed=0, max_speakers=3)
    batches = TrainingBatches(simulator, None, real_fraction=0.0, effective_batch=BATCH, seed=0)
    with closing(prefetch(batches.batch, 0, workers=workers, kind="threads")) as feed:
        next(feed)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            count += len(next(feed).wave)
        return count / (time.perf_counter() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="/tmp/peers-pyannote", help="virtual environment with pyannote.audio")
    parser.add_argument("--data", default=os.environ.get("COLABKIT_TEST_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    bank = load_speech(Path(options.data).resolve() / "librispeech-mini")
    figures: dict[str, list[float]] = {"colabkit, simulated": [], "pyannote.audio, cropped": []}
    with tempfile.TemporaryDirectory() as place:
        write_recordings(bank, Path(place))
        for _ in range(options.rounds):
            figures["colabkit, simulated"].append(ours(bank, options.seconds, options.workers))
            done = subprocess.run(
                [
                    f"{options.peers}/bin/python",
                    str(PEER),
                    place,
                    str(options.workers),
                    str(options.seconds),
                    str(BATCH),
                    str(WINDOW_SECONDS),
                ],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                print(done.stderr[-2000:])
                return 1
            figures["pyannote.audio, cropped"].append(json.loads(done.stdout.splitlines()[-1])["windows_per_second"])
    medians = {name: statistics.median(values) for name, values in figures.items()}
    print(
        Table(
            ["loader", "windows/s, median", "range"],
            [
                [name, f"{medians[name]:.1f}", f"{min(values):.1f}-{max(values):.1f}"]
                for name, values in figures.items()
            ],
        )
    )
    print(f"ratio: {medians['colabkit, simulated'] / medians['pyannote.audio, cropped']:.2f}x (target 10x)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
