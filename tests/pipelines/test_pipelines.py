"""The pipelines, found by looking: a folder here with a recipe is a pipeline, nothing is registered."""

from __future__ import annotations

import pytest

from colabkit.core.errors import UsageError
from colabkit.pipelines import Pipeline, discover, find


def test_a_pipeline_without_a_workload_is_told(monkeypatch):
    monkeypatch.setattr(Pipeline, "config_type", property(lambda self: None))
    with pytest.raises(UsageError, match="no batch size to plan") as error:
        Pipeline("a pipeline without").workload(None)
    assert "asr" in error.value.expected and "diarization" in error.value.expected


def test_every_pipeline_that_trains_declares_its_workload():
    for pipeline in discover():
        if pipeline.name in ("asr", "diarization"):
            work = pipeline.workload(pipeline.presets["demo"]())
            assert work.name and work.num_layers >= 0
            assert pipeline.request(pipeline.presets["demo"]()).lengths
    assert find("asr").name == "asr"
