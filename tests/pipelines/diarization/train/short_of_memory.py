"""A training of two processes in which memory runs out in one of them, in the middle of its forward or backward pass.

    RANK=0 WORLD_SIZE=2 ... python -m tests.pipelines.diarization.train.short_of_memory FOLDER SETTINGS

SETTINGS: JSON of the settings of training, and of `faults`: [rank, "forward" or "backward", which time].
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from colabkit.pipelines.diarization.config import ModelConfig, TrainConfig
from colabkit.pipelines.diarization.conversations.simulate import ConversationSimulator
from colabkit.pipelines.diarization.conversations.turn_taking import measured_meetings
from colabkit.pipelines.diarization.train import loop
from colabkit.pipelines.diarization.train.batches import TrainingBatches
from colabkit.training.processes import ranks
from tests.pipelines.diarization.conftest import buzz_bank
from tests.pipelines.stand_in import StandInRun

MODEL = ModelConfig(num_speakers=2, hidden_size=16, num_blocks=2, num_attention_layers=1, embedding_size=8)


def build_short_of_memory(faults, rank, build):
    """Return a build_model whose first block, between two batch norms, runs out of memory at those times."""
    counts = {"forward": 0, "backward": 0}

    def count(phase):
        counts[phase] += 1
        if [rank, phase, counts[phase]] in faults:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    def make(config):
        model = build(config)
        block = model.encoder.blocks[0]
        block.register_forward_hook(lambda *_: count("forward"))
        block.register_full_backward_hook(lambda *_: count("backward"))
        return model

    return make


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    team = ranks.join()
    torch.set_num_threads(1)
    loop.build_model = build_short_of_memory(settings.pop("faults"), team.rank, loop.build_model)
    simulator = ConversationSimulator(
        buzz_bank(4),
        measured_meetings(),
        seed=0,
        window_seconds=2.0,
        speaker_counts={2: 1.0},
        max_speakers=2,
        acoustics=None,
    )
    batches = TrainingBatches(simulator, None, real_fraction=0.0, effective_batch=8, seed=0)
    run = StandInRun(folder)
    metrics = loop.train(TrainConfig(**settings), MODEL, batches, lambda model: {"der": 0.5}, 4, run)
    (folder / f"chosen-{team.rank}.json").write_text(json.dumps({"chosen": run.choices, "metrics": metrics}))
    ranks.part()


if __name__ == "__main__":
    main()
