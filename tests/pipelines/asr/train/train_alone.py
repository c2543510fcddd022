"""A training in a process of its own, to be killed or to be one of several.

    python train_alone.py FOLDER PLACES [setting=value ...]

PLACES is a file: each sample that a step uses is written to it when the step begins, as "step sample".
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[4]))

import torch

from colabkit.pipelines.asr.config import ModelConfig, TrainConfig
from colabkit.pipelines.asr.model.recognizer import build_model
from colabkit.pipelines.asr.text.vocabulary import Vocabulary
from colabkit.pipelines.asr.train.loop import StepTrainer, train
from colabkit.training.processes.ranks import join, part
from tests.pipelines.asr.conftest import LETTERS, Capacity, Tones
from tests.pipelines.stand_in import StandInRun

SETTINGS = {
    "steps": 24,
    "effective_batch": 6,
    "learning_rate": 5e-3,
    "validate_every_steps": 8,
    "validation_samples": 6,
    "checkpoint_every_steps": 3,
    "tracker": "none",
}


def main(folder: Path, places: Path, *settings: str) -> None:
    torch.set_num_threads(1)
    given = dict(setting.split("=") for setting in settings)
    run = StandInRun(folder)
    still = given.pop("still", "")
    at_once = int(given.pop("at_once", 1000))
    config = TrainConfig(**SETTINGS | {name: None if value == "none" else int(value) for name, value in given.items()})
    model = ModelConfig(hidden_size=32, num_layers=1, **({"dropout": 0.0, "mask_time": 0.0} if still else {}))
    original = StepTrainer.training_step

    def noted(self, model, inputs, *more):
        with places.open("a") as log:
            log.writelines(f"{self.state.global_step} {self.ranks.rank} {number}\n" for number, _ in inputs.samples)
            log.flush()
        return original(self, model, inputs, *more)

    StepTrainer.training_step = noted
    metrics = train(
        config,
        build_model(model, Vocabulary.of(LETTERS), seed=0),
        Tones(31),
        Tones(8, seed=1, name="validation"),
        Capacity(at_once),
        run,
    )
    if join().is_first:
        print(metrics)
    part()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
