"""ASR trainings killed with SIGKILL at random moments and resumed: ours, and transformers' Trainer by its own means.

    python benchmarks/asr_resume.py --kills 20

The same small w2v-BERT with dropout and SpecAugment, the same speech of tones, checkpoints as often. A killed training
is started again until it ends; then its weights are compared with those of one left in peace, the samples of its steps
with theirs, and what was read is counted. The peers resume with resume_from_checkpoint=True, once with a data set in
memory and once with one that is streamed; a checkpoint that a kill left half written is removed as a person would do,
and counted. The last line is the result; the exit code is 1 if ours differed at all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from safetensors.torch import load_file

from colabkit.pipelines.asr.config import ModelConfig, TrainConfig
from colabkit.pipelines.asr.model.examples import losses, read_example
from colabkit.pipelines.asr.model.recognizer import build_model
from colabkit.pipelines.asr.text.vocabulary import Vocabulary
from colabkit.pipelines.asr.train.loop import StepTrainer, Trainer, train
from tests.pipelines.asr.conftest import LETTERS, Capacity, Tones
from tests.pipelines.stand_in import StandInRun

STEPS, BATCH, SAVE_EVERY, NUM_SAMPLES = 60, 6, 3, 64
MODEL = ModelConfig(hidden_size=64, num_layers=1, dropout=0.1, mask_time=0.1)
NAMES = {"ours": "colabkit", "memory": "Trainer, data set in memory", "streamed": "Trainer, data set streamed"}


class Heard(Tones):
    """Speech that notes what is read of it."""

    def __init__(self, log: Path):
        super().__init__(NUM_SAMPLES)
        self.log = log

    def read_wave(self, i: int) -> np.ndarray:
        note(self.log, "read", i)
        return super().read_wave(i)


def note(log: Path, *words) -> None:
    with log.open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def train_ours(folder: Path, log: Path) -> None:
    original = StepTrainer.training_step

    def noted(self, model, inputs, *more):
        note(log, "step", self.state.global_step, *(number for number, _ in inputs.samples))
        return original(self, model, inputs, *more)

    StepTrainer.training_step = noted
    config = TrainConfig(
        steps=STEPS,
        effective_batch=BATCH,
        learning_rate=3e-3,
        validate_every_steps=STEPS,
        validation_samples=4,
        checkpoint_every_steps=SAVE_EVERY,
        tracker="none",
    )
    train(
        config,
        build_model(MODEL, Vocabulary.of(LETTERS), seed=0),
        Heard(log),
        Tones(4, seed=1, name="validation"),
        Capacity(),
        StandInRun(folder),
    )


def train_peer(folder: Path, log: Path, *, streamed: bool) -> None:
    from transformers import TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    recognizer, speech = build_model(MODEL, Vocabulary.of(LETTERS), seed=0), Heard(log)

    class InMemory(torch.utils.data.Dataset):
        def __len__(self):
            return NUM_SAMPLES

        def __getitem__(self, i):
            return i, read_example(speech, recognizer, i)

    class Streamed(torch.utils.data.IterableDataset):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            for i in np.random.default_rng(self.epoch).permutation(NUM_SAMPLES).tolist():
                yield i, read_example(speech, recognizer, i)

    def put_together(pairs):
        numbers, examples = zip(*pairs, strict=True)
        return {"numbers": torch.tensor(numbers), "examples": examples}

    class Peer(Trainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            note(log, "step", self.state.global_step, *inputs["numbers"].tolist())
            return super().training_step(model, inputs, num_items_in_batch)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            examples = inputs["examples"]
            return losses(recognizer, examples).sum() / sum(len(e.labels) for e in examples)

        def _prepare_inputs(self, inputs):
            return inputs

        def floating_point_ops(self, inputs):
            return 0

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=3e-3,
        warmup_steps=0.1,
        weight_decay=0.01,
        save_strategy="steps",
        save_steps=SAVE_EVERY,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        logging_strategy="no",
        seed=0,
    )
    trainer = Peer(
        model=recognizer.model,
        args=arguments,
        train_dataset=Streamed() if streamed else InMemory(),
        data_collator=put_together,
    )
    while (last := get_last_checkpoint(str(folder))) is not None:
        try:
            trainer.train(resume_from_checkpoint=True)
            break
        except Exception as error:  # whatever it raises for a checkpoint that is not whole
            note(log, "unusable", type(error).__name__)
            shutil.rmtree(last)
    else:
        trainer.train()
    recognizer.model.save_pretrained(folder / "model")


KINDS = {
    "ours": train_ours,
    "memory": lambda folder, log: train_peer(folder, log, streamed=False),
    "streamed": lambda folder, log: train_peer(folder, log, streamed=True),
}


def in_child(work, folder: Path, log: Path, kill_after_seconds: float | None) -> bool:
    """Do the work in a fork of this process, killed after a while; returns whether it ended by itself.

    Raises: when it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            try:
                torch.set_num_threads(1)
                work(folder, log)
                code = 0
            except BaseException as error:
                note(log, "failed", type(error).__name__, *str(error).splitlines()[:1])
        os._exit(code)
    end = None if kill_after_seconds is None else time.monotonic() + kill_after_seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if status:
                raise SystemExit(f"a training failed: {log.read_text()[-500:]}")
            return True
        if end is not None and time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.005)


@dataclass
class Found:
    """What a log and the weights of a training say."""

    steps: dict[int, list[int]] = field(default_factory=dict)  # the samples of each step, when it was done last
    reads: int = 0
    done: int = 0  # steps, those done again counted again
    unusable: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


def look(folder: Path, log: Path) -> Found:
    found = Found(weights=load_file(folder / "model" / "model.safetensors"))
    for line in log.read_text().splitlines():
        kind, *words = line.split()
        if kind == "step":
            found.steps[int(words[0])] = [int(word) for word in words[1:]]
            found.done += 1
        found.reads += kind == "read"
        found.unusable += kind == "unusable"
    return found


def measure(kind: str, place: Path, kills: int, seed: int) -> dict:
    """Kill one kind of training `kills` times in as many trainings as that takes; returns the counts."""
    began = time.monotonic()
    in_child(KINDS[kind], place / "plain", place / "plain.log", None)
    seconds, plain = time.monotonic() - began, look(place / "plain", place / "plain.log")
    draw, left, total = random.Random(seed), kills, Counter()
    number, difference = 0, 0.0
    while left > 0:
        number += 1
        folder, log = place / f"run{number}", place / f"run{number}.log"
        log.touch()
        ended = False
        for _ in range(min(left, 4)):
            ended = in_child(KINDS[kind], folder, log, draw.uniform(0.05, 0.7) * seconds)
            if ended:
                break
            left -= 1
        if not ended:
            in_child(KINDS[kind], folder, log, None)
        found = look(folder, log)
        change = max(float((found.weights[n].double() - plain.weights[n].double()).abs().max()) for n in plain.weights)
        difference = max(difference, change)
        total["different"] += change > 0
        total["other_steps"] += found.steps != plain.steps
        for first in range(0, STEPS, -(-NUM_SAMPLES // BATCH)):  # by epoch
            epoch = range(first, min(STEPS, first + -(-NUM_SAMPLES // BATCH)))
            counts = [Counter(s for step in epoch for s in steps.get(step, ())) for steps in (found.steps, plain.steps)]
            total["twice"] += sum((counts[0] - counts[1]).values())
            total["never"] += sum((counts[1] - counts[0]).values())
        total["reads"] += found.reads
        total["needless"] += max(
            0, found.reads - sum(len(s) for s in plain.steps.values()) - BATCH * (found.done - STEPS)
        )
        total["unusable"] += found.unusable
        shutil.rmtree(folder)
    print(
        f"{NAMES[kind]}: {kills} kills in {number} trainings of {seconds:.1f} s; weights differ in "
        f"{total['different']}, by at most {difference:.2e}, and steps in {total['other_steps']}; "
        f"of an epoch's samples seen twice {total['twice']}, never {total['never']}; "
        f"read but not needed {total['needless']}; checkpoints that could not be used {total['unusable']}",
        flush=True,
    )
    return total | {"runs": number, "difference": difference}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind of training (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="which random moments (default: 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="asr-resume-") as place:
        found = {kind: measure(kind, Path(place, kind), options.kills, options.seed) for kind in KINDS}
    ours, memory, streamed = (found[kind] for kind in KINDS)
    print(
        f"resumed bit for bit: colabkit {ours['runs'] - ours['different']} of {ours['runs']}, Trainer "
        f"{memory['runs'] - memory['different']} of {memory['runs']} in memory, "
        f"{streamed['runs'] - streamed['different']} of {streamed['runs']} streamed; "
        "samples read for nothing by the streamed Trainer over ours: "
        f"{streamed['needless']} / {ours['needless']}, ratio {streamed['needless'] / max(1, ours['needless']):.1f}"
    )
    return 1 if ours["different"] or ours["other_steps"] or ours["twice"] or ours["never"] else 0


if __name__ == "__main__":
    sys.exit(main())
