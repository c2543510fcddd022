"""The recipe's steps among each other: what one writes is what the next one goes by."""

from __future__ import annotations

import json

from colabkit import pipelines
from colabkit.pipelines.asr.configure.training_config import TrainingConfig
from colabkit.pipelines.asr.train import loop
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from colabkit.training.processes import team
from tests.contracts.small import small_config


def test_the_configuration_that_is_chosen_is_the_one_trained_with(tmp_path, monkeypatch):
    seen, ours = [], loop._ours

    def spied(arguments, *rest):
        seen.append(arguments)
        return ours(arguments, *rest)

    monkeypatch.setattr(loop, "_ours", spied)
    pipeline, said = pipelines.find("asr"), []
    folder = open_run(tmp_path, "asr", "a")
    try:
        run = Run(
            pipeline="asr",
            steps=pipeline.steps[:4],
            config=small_config(pipeline),
            preset="demo",
            run_folder=folder,
            say=said.append,
            carry_out=team.carry_out,
        )
        run.do_all()
        stored = json.loads((run.folder_of("03_configure") / "training_config.json").read_text())["config"]
    finally:
        folder.close()
    [arguments] = seen
    assert stored["per_device_train_batch_size"] > 1, "else the test shows nothing"
    for name in (
        "per_device_train_batch_size",
        "learning_rate",
        "weight_decay",
        "max_grad_norm",
        "seed",
        "bf16",
        "fp16",
        "gradient_checkpointing",
    ):
        assert getattr(arguments, name) == stored[name], name
    assert sum(TrainingConfig(**stored).equation() in line for line in said) == 1
