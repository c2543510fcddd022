"""The configuration: changed by hand it still adds up, and TrainingArguments take it as it is."""

from __future__ import annotations

import pytest
from transformers import TrainingArguments

from colabkit.core.errors import UsageError
from colabkit.pipelines.asr.configure.training_config import TrainingConfig


def test_a_smaller_batch_is_made_up_for_by_accumulation():
    config = TrainingConfig()
    for batch in (1, 2, 4, 8, 16, 32):
        config.per_device_train_batch_size = batch
        assert (
            config.per_device_train_batch_size * config.gradient_accumulation_steps == config.effective_batch_size == 32
        )
    config = TrainingConfig(num_processes=4)
    config.per_device_train_batch_size = 2
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps * config.num_processes == 32


@pytest.mark.parametrize(
    "batch, processes, equation",
    [
        (4, 2, "4 at once x 4 parts x 2 processes = 32 samples, the effective batch"),
        (32, 1, "32 at once x 1 part x 1 process = 32 samples, the effective batch"),
    ],
)
def test_the_effective_batch_is_told_as_an_equation(batch, processes, equation):
    config = TrainingConfig(num_processes=processes)
    config.per_device_train_batch_size = batch
    assert config.equation() == equation


def test_of_a_batch_in_seconds_the_equation_is_that_of_the_longest_samples():
    config = TrainingConfig(num_processes=2, effective_batch_size=12, effective_seconds=400.0, longest_seconds=30.0)
    config.per_device_train_batch_size = 3
    assert config.equation() == (
        "3 at once x 2 parts x 2 processes = 12 samples of 30 s, 360 s within the effective batch of 400 s of audio"
    )


@pytest.mark.parametrize("batch", [0, -1, 3, 33, 64, 1.5, "4", None])
def test_a_batch_that_does_not_add_up_is_refused(batch):
    config = TrainingConfig()
    with pytest.raises(UsageError, match="does not add up") as told:
        config.per_device_train_batch_size = batch
    assert "1, 2, 4, 8, 16, 32" in str(told.value)


def test_training_arguments_take_it():
    config = TrainingConfig(
        bf16=False,
        gradient_checkpointing=True,
        learning_rate=1e-4,
        num_train_epochs=7,
        warmup_fraction=0.2,
        optimizer="adafactor",
        seed=5,
        dataloader_num_workers=3,
    )
    config.per_device_train_batch_size = 4
    arguments = config.to_training_arguments("out", use_cpu=True, report_to=[], num_train_epochs=2)
    assert isinstance(arguments, TrainingArguments)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (4, 8)
    name = "activation_checkpointing" if hasattr(arguments, "activation_checkpointing") else "gradient_checkpointing"
    assert getattr(arguments, name) is True and getattr(arguments, f"{name}_kwargs") == {"use_reentrant": False}
    assert arguments.learning_rate == 1e-4 and arguments.num_train_epochs == 2 and arguments.seed == 5
    assert (
        str(getattr(arguments.optim, "value", arguments.optim)) == "adafactor" and arguments.dataloader_num_workers == 3
    )
    assert arguments.get_warmup_steps(100) == 20


def test_an_argument_that_is_not_known_is_named():
    with pytest.raises(UsageError, match="no such argument") as told:
        TrainingConfig().to_training_arguments("out", learning_speed=1)
    assert "learning_speed" in str(told.value)


def test_choices_show_their_reasons():
    config = TrainingConfig(reasons={"streaming": "120.0 GB are more than 50 GB"}, streaming=True)
    assert "120.0 GB" in str(config) and "streaming" in config._repr_html_()
    assert TrainingConfig(**config.to_dict()) == config


@pytest.mark.parametrize(("bf16", "fp16", "name"), [(True, False, "bf16"), (False, True, "fp16"), (False, False, "no")])
def test_mixed_precision(bf16, fp16, name):
    assert TrainingConfig(bf16=bf16, fp16=fp16).mixed_precision == name
