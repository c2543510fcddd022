"""Settings of the ASR pipeline: what goes together and what does not, with the mend."""

from __future__ import annotations

import pytest

from colabkit.core.config import identity_settings, with_settings
from colabkit.core.errors import UsageError
from colabkit.pipelines.asr.config import PRESETS, demo


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_an_optimizer_step_may_be_said_in_seconds(preset):
    config = with_settings(preset(), ["train.effective_batch=none", "train.effective_seconds=400"])
    assert (config.train.effective_batch, config.train.effective_seconds) == (None, 400.0)


@pytest.mark.parametrize(
    "given, mend",
    [
        (["train.effective_seconds=400"], "add --set train.effective_batch=none"),
        (["train.effective_seconds=400", "train.effective_batch=8"], "add --set train.effective_batch=none"),
        (["train.effective_batch=none"], "--set train.effective_seconds=SECONDS"),
        (["train.effective_batch=0"], "at least 1"),
        (["train.effective_batch=none", "train.effective_seconds=0.5"], "at least 1"),
    ],
)
def test_it_is_said_in_one_way_and_the_error_says_how(given, mend):
    with pytest.raises(UsageError) as told:
        with_settings(demo(), given)
    assert mend in str(told.value)


def test_runs_of_before_there_was_the_other_way_are_the_same_runs():
    """A record has no such setting then; None counts the same."""
    assert identity_settings(demo().train)["effective_seconds"] is None
