"""Claim: `import colabkit` takes < 0.2 s without torch.

A restarted process takes its next optimizer step <= 5 s after the imports.

    python benchmarks/startup.py

The peer of the import is `import torch`. The restart is that of an interrupted run of the diarization demo, and, where
they are, of one on 200 real speakers (../shared/data): from the end of the imports to the first new optimizer step.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("COLABKIT_TEST_DATA", ROOT.parent / "shared" / "data")).resolve() / "librispeech-mini"

IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
RESTART = """
import os, sys, time
import torch, accelerate, scipy.signal, soundfile, soxr, transformers
from colabkit import cli, launch
from colabkit.pipelines.diarization import recipe; from colabkit.pipelines.diarization.train import loop as train
began, plain, resumed = time.perf_counter(), train.average_weights, os.environ["RESUMED"] == "yes"
count = 0
def counted(*arguments):
    global count
    plain(*arguments)
    count += 1
    if resumed:
        print("SECONDS", time.perf_counter() - began, flush=True)
        os._exit(0)
    if count == 7:  # past the checkpoint at step 5
        time.sleep(1.0)
        os._exit(0)
train.average_weights = counted
cli.main(sys.argv[1:])
"""


def python(code: str, *arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | environment,
    ).stdout


def seconds_to_import(module: str) -> float:
    return statistics.median(float(python(IMPORT.format(module))) for _ in range(7))


def seconds_to_restart(settings: list[str]) -> float:
    with tempfile.TemporaryDirectory() as state:
        arguments = ["run", "diarization", "--state", state, "--set", "train.checkpoint_every_steps=5"]
        arguments += [part for setting in settings for part in ("--set", setting)]
        python(RESTART, *arguments, RESUMED="no")
        lines = python(RESTART, *arguments, RESUMED="yes").splitlines()
        assert any("continues at step 5" in line for line in lines), lines
        return float(next(line.split()[1] for line in lines if line.startswith("SECONDS")))


def main() -> int:
    ours, theirs = seconds_to_import("colabkit"), seconds_to_import("torch")
    print(f"import colabkit {ours * 1e3:.0f} ms (target < 200 ms), import torch {theirs * 1e3:.0f} ms")
    cases = {"demo": []}
    if DATA.is_dir():
        cases["200 real speakers"] = [f"speech.source={DATA}", "speech.speaker_from=name"]
    for name, settings in cases.items():
        print(
            f"restart to the next optimizer step, {name}: {seconds_to_restart(settings):.2f} s beyond imports "
            "(target <= 5 s)"
        )
    print(f"ratio: {theirs / ours:.0f}x faster to import than torch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
