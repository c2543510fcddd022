"""Claim: 30 minutes on two CPU cores teach diarization of real speech, DER <= 15% on speakers never heard.

    python benchmarks/diarization_real.py [--minutes 29] [--data ../shared/data] [--state out/real]

Trains on 80% of the speakers of a folder of LibriSpeech utterances (one file a speaker, 251 speakers), then scores
two-speaker mixes of the other 20%, and real meeting excerpts. Nothing is tuned on either. The reference is the
published small-budget recipe: 29.96% DER at a collar of 0.25 s on two-speaker mixes (mini_librispeech, EEND).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

REFERENCE_DER = 0.2996
TARGET_DER = 0.15


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=29.0, help="wall clock for training, validation included")
    parser.add_argument("--data", default=os.environ.get("COLABKIT_TEST_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--state", default=str(ROOT / "out" / "real"))
    parser.add_argument("--run", default="minutes")
    parser.add_argument("--redo", action="append", default=[], help="make a step anew, such as evaluate")
    parser.add_argument("--set", action="append", default=[], help="further settings, a.b=v")
    options = parser.parse_args()
    data = Path(options.data).resolve()
    if not (data / "librispeech-mini").is_dir():
        print(f"no recordings in {data}: nothing measured")
        return 0

    import colabkit

    settings = [
        f"speech.source={data / 'librispeech-mini'}",
        "speech.speaker_from=name",
        "speech.held_out_fraction=0.2",
        "speech.validation_fraction=0.04",
        f"recordings.test_source={data / 'meetings'}",
        "recordings.test_pattern=debug.development.rttm",
        f"train.minutes={options.minutes}",
        "train.num_validation_mixes=16",
        "train.validate_every_steps=500",
        "evaluate.num_mixes=120",
        *options.set,
    ]
    from colabkit.core.config import with_settings
    from colabkit.pipelines.diarization.config import Config

    config = with_settings(Config(), settings)
    began = time.monotonic()
    with colabkit.start("diarization", config, preset="default", run=options.run, state=options.state) as run:
        run.do_all(redo=options.redo)
        metrics = run.report.data["metrics"]
        minutes = run.ledger.record(run.steps[1])["seconds"] / 60
    print(
        f"\n{platform.machine()}, {os.cpu_count()} cores; training {minutes:.1f} min of wall clock "
        f"({metrics['train_steps']} steps, {metrics['parameters']:,} parameters), "
        f"all steps {(time.monotonic() - began) / 60:.1f} min"
    )
    print(
        colabkit.Table(
            ["test set", "DER 0.25", "DER 0", "missed", "false alarm", "confusion", "JER", "single speaker"],
            [
                [title]
                + [
                    f"{metrics[prefix + key]:.2%}"
                    for key in (
                        "der",
                        "der_no_collar",
                        "missed",
                        "false_alarm",
                        "confusion",
                        "jer",
                        "der_single_speaker",
                    )
                ]
                for title, prefix in (
                    ("120 mixes of two unheard speakers", ""),
                    ("meetings, annotated part", "recordings_"),
                )
            ],
        )
    )
    reached = "reached" if metrics["der"] <= TARGET_DER else "missed"
    print(
        f"ratio: {metrics['der'] / REFERENCE_DER:.2f} of the reference's DER ({metrics['der']:.2%} against "
        f"{REFERENCE_DER:.2%}; target {TARGET_DER:.0%} {reached})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
