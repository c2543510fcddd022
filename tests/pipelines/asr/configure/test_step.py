"""A configuration made for this machine is taken as it is; one for another machine or other limits is made anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colabkit.pipelines.asr.config import demo
from colabkit.pipelines.asr.configure import step
from colabkit.pipelines.asr.configure.manager import ASRConfigManager
from colabkit.pipelines.asr.configure.profiles import summarise
from colabkit.pipelines.asr.workload import workload
from colabkit.training.sizing import devices
from tests.told import Told


@pytest.fixture
def made_anew(monkeypatch):
    """Return the settings that a configuration was made anew for."""
    calls = []

    def configure_run(config, *rest):
        calls.append(config)
        return None, ASRConfigManager()

    monkeypatch.setattr(step, "configure_run", configure_run)
    return calls


def stored(folder, device=None, at_once=None):
    manager = ASRConfigManager(device=device, teller=Told())
    manager.profile_hardware()
    manager.dataset = summarise([1.0, 2.0, 3.0], num_samples=3, how="all")
    chosen = manager.configure(workload(demo()), effective_batch=16, at_once=at_once)
    manager.save_config(chosen, folder / step.TRAINING_CONFIG)
    return chosen, manager.sizing


@pytest.mark.parametrize("at_once", [None, 4, 99])
def test_one_for_this_machine_is_taken_as_it_is(tmp_path, run, made_anew, at_once):
    expected = stored(tmp_path, at_once=at_once)
    config = replace(demo(), sizing=replace(demo().sizing, at_once=at_once))
    assert step.configured(config, None, 20, run, tmp_path, 1) == expected and made_anew == [] and run.said == []


def test_one_for_another_machine_or_limit_is_made_anew(tmp_path, run, made_anew):
    stored(tmp_path, devices.find("T4"))
    step.configured(demo(), None, 20, run, tmp_path, 1)
    stored(tmp_path)
    step.configured(replace(demo(), sizing=replace(demo().sizing, at_once=4)), None, 20, run, tmp_path, 1)
    step.configured(replace(demo(), sizing=replace(demo().sizing, safety_margin=0.7)), None, 20, run, tmp_path, 1)
    (tmp_path / step.TRAINING_CONFIG).write_text("{")
    step.configured(demo(), None, 20, run, tmp_path, 1)
    assert len(made_anew) == 4 and all("anew" in line for line in run.said)
