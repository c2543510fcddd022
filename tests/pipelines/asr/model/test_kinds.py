"""Kinds of models: which are trained, and what training changes of their settings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import AutoConfig

from colabkit.core.errors import UsageError
from colabkit.pipelines.asr.config import ModelConfig
from colabkit.pipelines.asr.model.kinds import (
    CLASS_NAMES,
    EXAMPLE,
    MASK_FRAMES,
    is_ctc,
    require_kind,
    small_shape,
    training_changes,
)

MODEL = ModelConfig(dropout=0.25, mask_time=0.2)


@pytest.mark.parametrize("kind", CLASS_NAMES)
def test_training_changes_settings_that_the_kind_has(kind):
    shape = AutoConfig.for_model(kind)
    changes = training_changes(shape, MODEL)
    assert all(hasattr(shape, name) for name in changes) and changes["mask_time_prob"] == 0.2
    assert changes["apply_spec_augment"] and changes["mask_time_length"] == MASK_FRAMES
    assert all(value == 0.0 for name, value in changes.items() if "layerdrop" in name or name == "activation_dropout")
    dropouts = {name for name, value in changes.items() if value == 0.25}
    if is_ctc(kind):
        assert {"hidden_dropout", "attention_dropout", "final_dropout"} <= dropouts
        assert (changes["ctc_loss_reduction"], changes["ctc_zero_infinity"]) == ("sum", True)
    else:
        assert dropouts == {"dropout"} and "ctc_loss_reduction" not in changes
    assert training_changes(shape, replace(MODEL, mask_time=0.0))["apply_spec_augment"] is False


def test_only_whisper_writes_token_after_token():
    assert {kind for kind in CLASS_NAMES if not is_ctc(kind)} == {"whisper"}


def test_another_kind_is_refused_with_one_that_is_not():
    for kind in CLASS_NAMES:
        require_kind(kind, "any name")
    with pytest.raises(UsageError) as caught:
        require_kind("bert", "google/bert")
    assert "google/bert" in str(caught.value) and EXAMPLE in caught.value.fix


def test_the_small_network_is_as_wide_and_deep_as_asked():
    shape = small_shape(ModelConfig(hidden_size=64, num_layers=5))
    assert (shape.hidden_size, shape.output_hidden_size, shape.num_hidden_layers) == (64, 64, 5)
    assert shape.initializer_range == 0.125 and shape.feature_projection_input_dim == 3 * 80


@pytest.mark.parametrize("wrong", [{"hidden_size": 30}, {"hidden_size": 0}, {"num_layers": 0}])
def test_a_small_network_that_cannot_be_made(wrong):
    with pytest.raises(UsageError) as caught:
        small_shape(ModelConfig(**wrong))
    assert "--set model.hidden_size=" in caught.value.fix
